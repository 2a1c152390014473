// libFuzzer's target for the reader that the environment variable READER names; see run.sh.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "fuzz/readers.h"

namespace {

const fuzz::Reader& Chosen() {
  const char* name = std::getenv("READER");
  for (const fuzz::Reader& reader : fuzz::Readers()) {
    if (name && std::string(name) == reader.name) return reader;
  }
  std::fprintf(stderr, "READER must be one of:");
  for (const fuzz::Reader& reader : fuzz::Readers()) std::fprintf(stderr, " %s", reader.name);
  std::fprintf(stderr, "\n");
  std::exit(1);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Reader& reader = Chosen();
  static const std::string folder = std::filesystem::temp_directory_path();
  fuzz::Read(reader, folder, std::string(data, data + size));
  return 0;
}
