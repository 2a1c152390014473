#include "examples/support/text.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <sstream>

namespace examples {

bool ReadFile(const std::string& path, std::string* bytes, std::string* error) {
  bytes->clear();
  int read = -1;
  if (gzFile file = gzopen(path.c_str(), "rb")) {  // Passes through what is not compressed.
    char buffer[1 << 15];
    while ((read = gzread(file, buffer, sizeof(buffer))) > 0) {
      bytes->append(buffer, static_cast<size_t>(read));
    }
    if (gzclose(file) != Z_OK) read = -1;  // It ended early.
  }
  if (read == 0) return true;
  *error = path + " cannot be read";
  return false;
}

bool LineReader::Open(const std::string& path) {
  *this = LineReader();
  path_ = path;
  return ReadFile(path, &text_, &error_);
}

bool LineReader::Next() {
  while (position_ < text_.size()) {
    const size_t end = std::min(text_.find('\n', position_), text_.size());
    std::istringstream line(text_.substr(position_, end - position_));
    position_ = end + 1;
    ++line_;
    fields_.clear();
    for (std::string field; line >> field;) fields_.push_back(field);
    if (!fields_.empty() && fields_[0][0] != '#') return true;
  }
  return false;
}

bool LineReader::Number(int i, const std::string& what, double* value) {
  if (i >= size()) return Fail("the line ends where " + what + " should be");
  char* end = nullptr;
  *value = std::strtod(fields_[i].c_str(), &end);
  // To its last byte: a NUL ends no number.
  if (end == fields_[i].c_str() + fields_[i].size() && std::isfinite(*value)) return true;
  return Fail(what + " is \"" + fields_[i] + "\", not a finite number");
}

bool LineReader::Integer(int i, const std::string& what, long* value) {
  if (i >= size()) return Fail("the line ends where " + what + " should be");
  char* end = nullptr;
  errno = 0;
  *value = std::strtol(fields_[i].c_str(), &end, 10);
  if (end == fields_[i].c_str() + fields_[i].size() && errno == 0) return true;
  return Fail(what + " is \"" + fields_[i] + "\", not a whole number");
}

bool LineReader::FailAt(int line, const std::string& what) {
  if (!error_.empty()) return false;
  error_ = path_ + (line > 0 ? ":" + std::to_string(line) : "") + ": " + what;
  return false;
}

}  // namespace examples
