#include "test_data.h"

#include <cstdlib>
#include <fstream>

namespace bilevel {

std::string DataPath(const std::string& relative_path) {
  const char* folder = std::getenv("BILEVEL_DATA_DIR");
  for (const std::string& path :
       {std::string(folder == nullptr ? "" : folder) + "/" + relative_path,
        std::string(BILEVEL_FETCHED_DATA_DIR) + "/" + relative_path}) {
    if (std::ifstream(path).good()) return path;
  }
  return "";
}

}  // namespace bilevel
