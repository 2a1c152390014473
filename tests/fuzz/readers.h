#ifndef BILEVEL_TESTS_FUZZ_READERS_H_
#define BILEVEL_TESTS_FUZZ_READERS_H_

#include <string>
#include <vector>

/// The readers of files that may come from anywhere, for arbitrary bytes.
namespace fuzz {

struct Reader {
  const char* name;                  ///< Its corpus is the folder corpus/name.
  std::vector<const char*> endings;  ///< One for each file that it reads.
  /// False: the files were refused, *error says why. Throws std::logic_error where they were
  /// accepted and do not keep what the reader's header promises.
  bool (*read)(const std::string& path, std::string* error);
};

const std::vector<Reader>& Readers();

/// Writes the input to files below `folder`, cut at form feeds where there are several, and reads
/// them; whether they were accepted. Throws std::logic_error as Reader::read, and where a refusal
/// is not one printable line that names the file.
bool Read(const Reader& reader, const std::string& folder, const std::string& input);

}  // namespace fuzz

#endif  // BILEVEL_TESTS_FUZZ_READERS_H_
