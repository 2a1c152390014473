#include "examples/support/text.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

namespace examples {
namespace {

bool ReadCompressed(const std::string& path, std::string* text) {
  std::string quoted = "'";
  for (const char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  FILE* pipe = popen(("gzip -dc -- " + quoted + "' 2>/dev/null").c_str(), "r");
  if (!pipe) return false;
  char buffer[1 << 14];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) text->append(buffer, n);
  return pclose(pipe) == 0;
}

}  // namespace

bool LineReader::Open(const std::string& path) {
  *this = LineReader();
  path_ = path;
  std::ifstream file(path, std::ios::binary);
  bool ok = file.good();
  if (ok && path.size() > 3 && path.compare(path.size() - 3, 3, ".gz") == 0) {
    ok = ReadCompressed(path, &text_);
  } else if (ok) {
    std::ostringstream text;
    text << file.rdbuf();
    // An empty file fails here and not there; both are told by what follows.
    text_ = text.str();
    ok = !file.bad();
  }
  if (!ok) error_ = path + " cannot be read";
  return ok;
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
  if (*end == '\0' && std::isfinite(*value)) return true;
  return Fail(what + " is \"" + fields_[i] + "\", not a finite number");
}

bool LineReader::Integer(int i, const std::string& what, long* value) {
  if (i >= size()) return Fail("the line ends where " + what + " should be");
  char* end = nullptr;
  errno = 0;
  *value = std::strtol(fields_[i].c_str(), &end, 10);
  if (*end == '\0' && errno == 0) return true;
  return Fail(what + " is \"" + fields_[i] + "\", not a whole number");
}

bool LineReader::FailAt(int line, const std::string& what) {
  if (!error_.empty()) return false;
  error_ = path_ + (line > 0 ? ":" + std::to_string(line) : "") + ": " + what;
  return false;
}

}  // namespace examples
