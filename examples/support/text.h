#ifndef BILEVEL_EXAMPLES_SUPPORT_TEXT_H_
#define BILEVEL_EXAMPLES_SUPPORT_TEXT_H_

#include <string>
#include <vector>

namespace examples {

/// The whole file, unpacked where gzip, bzip2 or xz have packed it.
bool ReadFile(const std::string& path, std::string* bytes, std::string* error);

/// Whether all of it is printable ASCII.
bool IsPrintable(const std::string& text);
/// Text of a file for a message: what is not printable ASCII becomes '?', and what is long is cut.
std::string Printable(const std::string& text);

/// The parts of text between commas.
std::vector<std::string> SplitList(const std::string& text);

/// A text file, line after line, as fields between white space or between commas. Lines that are
/// empty or begin with '#' are passed over, and between white space what follows a field's '#'. The
/// first failure is kept as "path:line: what".
class LineReader {
 public:
  /// White space about a comma goes with it. kAny: kComma in lines with a comma.
  enum Separator { kSpace, kComma, kAny };

  /// Reads the file whole, packed or not.
  bool Open(const std::string& path, Separator separator = kSpace);

  /// False at the end of the file.
  bool Next();

  const std::string& path() const { return path_; }
  int line() const { return line_; }
  int size() const { return static_cast<int>(fields_.size()); }
  const std::string& operator[](int i) const { return fields_[i]; }

  /// Field i as a finite number or as a whole one. `what` it is, for the message.
  bool Number(int i, const std::string& what, double* value);
  bool Integer(int i, const std::string& what, long* value);
  /// There are no more than `size` fields; `last` is the last one.
  bool End(int size, const std::string& last);

  /// Returns false, for the caller to return.
  bool Fail(const std::string& what) { return FailAt(line_, what); }
  /// Line 0 is the file as a whole.
  bool FailAt(int line, const std::string& what);
  const std::string& error() const { return error_; }

 private:
  void Split(const std::string& line);

  std::string path_, text_, error_;
  Separator separator_ = kSpace;
  size_t position_ = 0;
  int line_ = 0;
  std::vector<std::string> fields_;
};

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_TEXT_H_
