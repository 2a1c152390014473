#include "examples/support/table.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "bilevel/base/internal/text.h"

namespace examples {

std::string Format(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof(buffer), format, arguments);
  va_end(arguments);
  return buffer;
}

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (size_t i = 0; i < rows_[r].size(); ++i) {
      const std::string pad(widths[i] - rows_[r][i].size(), ' ');
      line += i == 0 ? "  " + rows_[r][i] + pad : "   " + pad + rows_[r][i];
    }
    text += line + "\n";
    if (r == 0) text += "  " + std::string(line.size() - 2, '-') + "\n";
  }
  return text;
}

namespace {

std::string Number(double value) { return std::isfinite(value) ? Format("%.17g", value) : "null"; }

}  // namespace

Json& Json::AddRaw(const std::string& name, const std::string& json) {
  if (!members_.empty()) members_ += ",\n";
  members_ += bilevel::JsonQuote(name) + ": " + json;
  return *this;
}

Json& Json::Append(const Json& object) {
  if (!members_.empty() && !object.members_.empty()) members_ += ",\n";
  members_ += object.members_;
  return *this;
}

Json& Json::Add(const std::string& name, double value) { return AddRaw(name, Number(value)); }

Json& Json::Add(const std::string& name, const std::string& text) {
  return AddRaw(name, bilevel::JsonQuote(text));
}

Json& Json::Add(const std::string& name, const Json& object) {
  return AddRaw(name, "{" + object.members_ + "}");
}

Json& Json::Add(const std::string& name, const std::vector<double>& values) {
  std::string text = "[";
  for (size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + Number(values[i]);
  return AddRaw(name, text + "]");
}

}  // namespace examples
