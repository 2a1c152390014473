#ifndef BILEVEL_EXAMPLES_SUPPORT_TABLE_H_
#define BILEVEL_EXAMPLES_SUPPORT_TABLE_H_

#include <string>
#include <utility>
#include <vector>

namespace examples {

/// printf into a string.
std::string Format(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// Text in columns, the first to the left and the others to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_({std::move(header)}) {}
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// A JSON object, member by member. NaN becomes null.
class Json {
 public:
  Json& Add(const std::string& name, double value);
  Json& Add(const std::string& name, const std::vector<double>& values);
  Json& Add(const std::string& name, const std::string& text);
  Json& Add(const std::string& name, const char* text) { return Add(name, std::string(text)); }
  Json& Add(const std::string& name, const Json& object);
  /// All members of another object.
  Json& Append(const Json& object);
  /// JSON text as it is, a Solver::Summary's for instance.
  Json& AddRaw(const std::string& name, const std::string& json);
  std::string ToString() const { return "{\n" + members_ + "\n}\n"; }

 private:
  std::string members_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_TABLE_H_
