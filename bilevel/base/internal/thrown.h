#ifndef BILEVEL_BASE_INTERNAL_THROWN_H_
#define BILEVEL_BASE_INTERNAL_THROWN_H_

#include <exception>
#include <stdexcept>
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

/// body(), whose exceptions say who() it was: "the manifold of line threw: out of memory".
template <typename Who, typename Body>
auto NameThrown(const Who& who, const Body& body) {
  try {
    return body();
  } catch (const std::exception& e) {
    throw std::runtime_error(who() + " threw: " + e.what());
  } catch (...) {
    throw std::runtime_error(who() + " threw something that is not a std::exception");
  }
}

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_THROWN_H_
