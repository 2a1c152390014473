#include "test_data.h"

#include <cstdlib>
#include <fstream>

namespace bilevel {

std::string DataPath(const std::string& relative_path) {
  const char* folder = std::getenv("BILEVEL_DATA_DIR");
  for (const std::string& path :
       {std::string(folder == nullptr ? "" : folder) + "/" + relative_path,
        SourcePath("build/data/" + relative_path)}) {
    if (std::ifstream(path).good()) return path;
  }
  return "";
}

std::string SourcePath(const std::string& relative_path) {
  return std::string(BILEVEL_SOURCE_DIR) + "/" + relative_path;
}

}  // namespace bilevel
