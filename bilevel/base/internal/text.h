#ifndef BILEVEL_BASE_INTERNAL_TEXT_H_
#define BILEVEL_BASE_INTERNAL_TEXT_H_

#include <string>

namespace bilevel {

/// printf to a string.
std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// The text as a JSON string, in quotes, or as text of HTML: valid UTF-8 whatever its bytes are.
std::string JsonQuote(const std::string& text);
std::string HtmlText(const std::string& text);

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_TEXT_H_
