#ifndef BILEVEL_METHODS_REGISTRY_H_
#define BILEVEL_METHODS_REGISTRY_H_

#include <memory>
#include <string>
#include <vector>

#include "bilevel/methods/method.h"

namespace bilevel {

/// A method with its published defaults, by name; nullptr for an unknown one, and a solve with that
/// fails and says so.
std::unique_ptr<Method> CreateMethod(const std::string& name);

/// All names CreateMethod knows.
std::vector<std::string> ListMethods();

}  // namespace bilevel

#endif  // BILEVEL_METHODS_REGISTRY_H_
