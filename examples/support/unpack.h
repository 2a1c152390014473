#ifndef BILEVEL_EXAMPLES_SUPPORT_UNPACK_H_
#define BILEVEL_EXAMPLES_SUPPORT_UNPACK_H_

#include <cstddef>
#include <string>

namespace examples {

/// No file is larger than this, packed or not. [bytes]
constexpr size_t kMostBytes = 2000000000;
/// Small files that unpack to more than this, and to more than kMostRatio times their size, are
/// made to fill the memory.
constexpr size_t kAlwaysAllowed = 64000000, kMostRatio = 50;

/// Unpacks in place what gzip, bzip2 or xz have packed, told by its first bytes; leaves anything
/// else as it is. False: *why says what is wrong with the file ("is damaged ..."), or which package
/// was missing when this was built.
bool Unpack(std::string* bytes, std::string* why);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_UNPACK_H_
