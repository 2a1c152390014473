#include "examples/support/learning/idx.h"

#include <array>
#include <cstring>

#include "examples/support/table.h"
#include "examples/support/text.h"

namespace examples {
namespace {

// Two zeros, the type of the data (8: unsigned bytes), the number of dimensions, and the size of
// each in four bytes, the highest first; then the data.
template <size_t kDimensions>
bool ReadIdx(const std::string& path,
             std::array<size_t, kDimensions>* sizes,
             std::string* bytes,
             std::string* error) {
  if (!ReadFile(path, bytes, error)) return false;
  const auto fail = [&](const std::string& what) {
    *error = path + ": " + what;
    return false;
  };
  const auto byte = [&](size_t i) { return static_cast<unsigned char>((*bytes)[i]); };
  constexpr size_t kHeader = 4 + 4 * kDimensions;
  if (bytes->size() < 4) return fail("it ends within the header");
  if (byte(0) != 0 || byte(1) != 0) return fail("it is not an IDX file");
  if (byte(2) != 8) return fail(Format("its data are of type %d, not bytes (8)", byte(2)));
  if (byte(3) != kDimensions) {
    return fail(Format("%d dimensions, not %zu as %s have",
                       byte(3),
                       kDimensions,
                       kDimensions == 1 ? "labels" : "images"));
  }
  if (bytes->size() < kHeader) return fail("it ends within the header");
  const size_t given = bytes->size() - kHeader;
  size_t expected = 1;
  for (size_t d = 0; d < kDimensions; ++d) {
    size_t size = 0;
    for (size_t i = 0; i < 4; ++i) size = size << 8 | byte(4 + 4 * d + i);
    if (size == 0) return fail(Format("the size of dimension %zu is 0", d));
    (*sizes)[d] = size;
    // Four bytes each in three dimensions may overflow; what is too long already stays so.
    expected = expected > given ? expected : expected * size;
  }
  if (expected != given) {
    return fail(Format("%zu bytes of data, not as many as its header says", given));
  }
  bytes->erase(0, kHeader);
  return true;
}

}  // namespace

bool ReadIdxImages(const std::string& path, IdxImages* images, std::string* error) {
  std::array<size_t, 3> sizes{};
  std::string bytes;
  *images = IdxImages();
  if (!ReadIdx(path, &sizes, &bytes, error)) return false;
  images->height = static_cast<int>(sizes[1]);
  images->width = static_cast<int>(sizes[2]);
  images->pixels.resize(static_cast<Eigen::Index>(sizes[0]),
                        static_cast<Eigen::Index>(sizes[1] * sizes[2]));
  std::memcpy(images->pixels.data(), bytes.data(), bytes.size());
  return true;
}

bool ReadIdxLabels(const std::string& path,
                   std::vector<unsigned char>* labels,
                   std::string* error) {
  std::array<size_t, 1> sizes{};
  std::string bytes;
  labels->clear();
  if (!ReadIdx(path, &sizes, &bytes, error)) return false;
  labels->assign(bytes.begin(), bytes.end());
  return true;
}

}  // namespace examples
