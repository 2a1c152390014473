#ifndef BILEVEL_BASE_INTERNAL_THROWN_H_
#define BILEVEL_BASE_INTERNAL_THROWN_H_

#include <exception>
#include <string>

namespace bilevel {

/// How body() ended, where that was by an exception: " threw: out of memory", to follow what was
/// tried. Empty: it did not.
template <typename Body>
std::string Thrown(const Body& body) {
  try {
    body();
    return "";
  } catch (const std::exception& e) {
    return std::string(" threw: ") + e.what();
  } catch (...) {
    return " threw something that is not a std::exception";
  }
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_THROWN_H_
