#include "bilevel/base/memory.h"

#include <cstring>
#include <functional>
#include <numeric>

namespace bilevel {

const std::vector<int64_t>* Memory::ShapeOf(const std::string& name,
                                            char kind,
                                            size_t num_dimensions) {
  const auto at = arrays_.find(prefix_ + name);
  if (at == arrays_.end()) {
    Fail("'" + prefix_ + name + "' is missing");
    return nullptr;
  }
  if (at->second.kind != kind || at->second.shape.size() != num_dimensions) {
    Misfit(name);
    return nullptr;
  }
  return &at->second.shape;
}

bool Memory::Exchange(const std::string& name,
                      char kind,
                      std::vector<int64_t> shape,
                      void* values) {
  const int64_t size =
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<int64_t>()) *
      (kind == 'u' ? 1 : 8);
  if (!recalls_) {
    arrays_[prefix_ + name] = {kind,
                               std::move(shape),
                               size > 0 ? std::string(static_cast<const char*>(values), size) : ""};
    return true;
  }
  const std::vector<int64_t>* known = ShapeOf(name, kind, shape.size());
  if (!known) return false;
  const std::string& bytes = arrays_.at(prefix_ + name).bytes;
  if (*known != shape || static_cast<int64_t>(bytes.size()) != size) {
    Misfit(name);
    return false;
  }
  if (size > 0) std::memcpy(values, bytes.data(), size);
  return true;
}

void Memory::Misfit(const std::string& name) { Fail("'" + prefix_ + name + "' does not fit"); }

void Memory::Keep(const std::string& name, std::string* text) {
  if (recalls_) {
    const std::vector<int64_t>* shape = ShapeOf(name, 'u', 1);
    if (!shape) return;
    text->resize((*shape)[0]);
  }
  Exchange(name, 'u', {static_cast<int64_t>(text->size())}, text->data());
}

// One after the other, each ended by a zero.
void Memory::Keep(const std::string& name, std::vector<std::string>* texts) {
  std::string all;
  for (const std::string& text : *texts) all.append(text.c_str(), text.size() + 1);
  Keep(name, &all);
  if (!recalls_) return;
  texts->clear();
  for (size_t begin = 0, end; (end = all.find('\0', begin)) != std::string::npos; begin = end + 1) {
    texts->push_back(all.substr(begin, end - begin));
  }
}

void Memory::Keep(const std::string& name, std::map<std::string, Eigen::VectorXd>* vectors) {
  std::vector<std::string> names;
  for (const auto& entry : *vectors) names.push_back(entry.first);
  Keep(name, &names);
  if (recalls_) vectors->clear();
  const Group group(this, name);
  for (const std::string& key : names) Keep(key, &(*vectors)[key]);
}

}  // namespace bilevel
