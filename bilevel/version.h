#ifndef BILEVEL_VERSION_H_
#define BILEVEL_VERSION_H_

namespace bilevel {

/// The version of the library linked, "major.minor.patch". Static storage.
const char* Version();

}  // namespace bilevel

#endif  // BILEVEL_VERSION_H_
