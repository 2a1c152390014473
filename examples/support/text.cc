#include "examples/support/text.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "examples/support/unpack.h"

namespace examples {
namespace {

constexpr char kBlanks[] = " \t\r\v\f\n";

bool IsPrintableByte(char c) { return c >= ' ' && c <= '~'; }

}  // namespace

bool ReadFile(const std::string& path, std::string* bytes, std::string* error) {
  bytes->clear();
  bool ok = false;
  if (std::FILE* file = std::fopen(path.c_str(), "rb")) {
    std::vector<char> piece(1 << 16);
    for (size_t size; bytes->size() <= kMostBytes &&
                      (size = std::fread(piece.data(), 1, piece.size(), file)) > 0;) {
      bytes->append(piece.data(), size);
    }
    ok = !std::ferror(file);
    std::fclose(file);
  }
  std::string why = "cannot be read";
  if (ok && bytes->size() > kMostBytes) {
    why = "is larger than " + std::to_string(kMostBytes) + " bytes";
    ok = false;
  }
  if (ok && Unpack(bytes, &why)) return true;
  bytes->clear();
  *error = path + " " + why;
  return false;
}

bool IsPrintable(const std::string& text) {
  return std::all_of(text.begin(), text.end(), IsPrintableByte);
}

std::string Printable(const std::string& text) {
  constexpr size_t kMost = 60;
  std::string printable = text.substr(0, kMost);
  for (char& c : printable) c = IsPrintableByte(c) ? c : '?';
  return text.size() > kMost ? printable + "..." : printable;
}

std::vector<std::string> SplitList(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream list(text);
  for (std::string part; std::getline(list, part, ',');) parts.push_back(part);
  return parts;
}

bool LineReader::Open(const std::string& path, Separator separator) {
  *this = LineReader();
  path_ = path;
  separator_ = separator;
  return ReadFile(path, &text_, &error_);
}

bool LineReader::Next() {
  while (position_ < text_.size()) {
    const size_t end = std::min(text_.find('\n', position_), text_.size());
    const std::string line = text_.substr(position_, end - position_);
    position_ = end + 1;
    ++line_;
    const size_t first = line.find_first_not_of(kBlanks);
    if (first == std::string::npos || line[first] == '#') continue;
    Split(line);
    return true;
  }
  return false;
}

void LineReader::Split(const std::string& line) {
  const bool comma =
      separator_ == kComma || (separator_ == kAny && line.find(',') != std::string::npos);
  const char* const separators = comma ? "," : kBlanks;
  fields_.clear();
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find_first_of(separators, at), line.size());
    const size_t first = std::min(line.find_first_not_of(kBlanks, at), end);
    const size_t last = end == first ? end : line.find_last_not_of(kBlanks, end - 1) + 1;
    if (!comma && last > first && line[first] == '#') return;
    if (comma || last > first) fields_.push_back(line.substr(first, last - first));
    at = end + 1;
  }
}

bool LineReader::Number(int i, const std::string& what, double* value) {
  if (i >= size()) return Fail("the line ends where " + what + " should be");
  const std::string& field = fields_[i];
  char* end = nullptr;
  *value = std::strtod(field.c_str(), &end);
  // To its last byte: a NUL ends no number.
  if (!field.empty() && end == field.c_str() + field.size() && std::isfinite(*value)) return true;
  return Fail(what + " is \"" + Printable(field) + "\", not a finite number");
}

bool LineReader::Integer(int i, const std::string& what, long* value) {
  if (i >= size()) return Fail("the line ends where " + what + " should be");
  const std::string& field = fields_[i];
  char* end = nullptr;
  errno = 0;
  *value = std::strtol(field.c_str(), &end, 10);
  if (!field.empty() && end == field.c_str() + field.size() && errno == 0) return true;
  return Fail(what + " is \"" + Printable(field) + "\", not a whole number");
}

bool LineReader::End(int size, const std::string& last) {
  return fields_.size() <= static_cast<size_t>(size) || Fail("something follows " + last);
}

bool LineReader::FailAt(int line, const std::string& what) {
  if (!error_.empty()) return false;
  error_ = path_ + (line > 0 ? ":" + std::to_string(line) : "") + ": " + what;
  return false;
}

}  // namespace examples
