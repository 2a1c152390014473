#ifndef BILEVEL_BASE_INTERNAL_JSON_QUOTE_H_
#define BILEVEL_BASE_INTERNAL_JSON_QUOTE_H_

#include <string>

namespace bilevel {

/// The text as a JSON string, in quotes: valid UTF-8 whatever its bytes are.
std::string JsonQuote(const std::string& text);

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_JSON_QUOTE_H_
