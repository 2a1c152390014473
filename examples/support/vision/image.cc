#include "examples/support/vision/image.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "examples/support/text.h"

namespace examples {
namespace {

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool IsImage(const std::string& name) { return EndsWith(name, ".png") || EndsWith(name, ".pgm"); }

constexpr int kMostSide = 1 << 15;

bool DecodePng(const std::string& bytes, Image* image, std::string* error) {
  png_image png;
  std::memset(&png, 0, sizeof(png));
  png.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size())) {
    *error = png.message;
    return false;
  }
  // Deflate makes at most 1032 bytes of one, of eight pixels each: more are not there to be read.
  if (png.width > kMostSide || png.height > kMostSide ||
      size_t{png.width} * png.height / (1032 * 8) > bytes.size()) {
    png_image_free(&png);
    *error = "the image is larger than its file can hold";
    return false;
  }
  png.format = PNG_FORMAT_GRAY;
  std::vector<png_byte> grey(PNG_IMAGE_SIZE(png));
  const png_color black = {0, 0, 0};
  if (!png_image_finish_read(&png, &black, grey.data(), 0, nullptr)) {
    *error = png.message;
    return false;
  }
  *image = Image(static_cast<int>(png.width), static_cast<int>(png.height));
  std::copy(grey.begin(), grey.end(), image->pixels.begin());
  return true;
}

bool DecodePgm(const std::string& bytes, Image* image, std::string* error) {
  size_t at = 0;
  const auto next = [&] {  // A word; comments run to the end of the line.
    while (at < bytes.size() &&
           (std::isspace(static_cast<unsigned char>(bytes[at])) || bytes[at] == '#')) {
      if (bytes[at] == '#') {
        while (at < bytes.size() && bytes[at] != '\n') ++at;
      } else {
        ++at;
      }
    }
    std::string word;
    while (at < bytes.size() && !std::isspace(static_cast<unsigned char>(bytes[at])))
      word += bytes[at++];
    return word;
  };
  const std::string magic = next();
  const auto next_size = [&] {  // 0: it is none.
    const std::string word = next();
    const bool is_number = word.find_first_not_of("0123456789") == std::string::npos;
    const int size = is_number && !word.empty() && word.size() <= 5 ? std::stoi(word) : 0;
    return size <= kMostSide ? size : 0;
  };
  const int width = next_size(), height = next_size(), most = next_size();
  ++at;  // One white space before the pixels.
  if (magic != "P5" || width == 0 || height == 0 || most != 255) {
    *error = "it is not a P5 file with 8 bits";
    return false;
  }
  const size_t size = static_cast<size_t>(width) * height;
  if (at > bytes.size() || bytes.size() - at < size) {
    *error = "it ends early";
    return false;
  }
  *image = Image(width, height);
  for (size_t i = 0; i < size; ++i) {
    image->pixels[i] = static_cast<unsigned char>(bytes[at + i]);
  }
  return true;
}

// The image `name` of an archive or a folder `path`, or the file `path` itself.
bool Decode(const std::string& path,
            const std::string& name,
            const std::string& bytes,
            std::vector<Image>* images,
            std::string* error) {
  Image image;
  std::string what;
  const bool ok =
      EndsWith(name, ".png") ? DecodePng(bytes, &image, &what) : DecodePgm(bytes, &image, &what);
  if (!ok) {
    *error = path + (name == path ? "" : ", " + Printable(name)) + " cannot be read: " + what;
    return false;
  }
  image.name = Printable(std::filesystem::path(name).stem().string());
  images->push_back(std::move(image));
  return true;
}

// The regular files of a tar archive: headers of 512 bytes, contents padded to as much (POSIX.1).
bool DecodeTar(const std::string& path,
               const std::string& bytes,
               std::vector<Image>* images,
               std::string* error) {
  for (size_t at = 0; at < bytes.size() && bytes[at] != '\0';) {
    const auto fail = [&](const std::string& what) {
      *error = path + ", byte " + std::to_string(at) + ": " + what;
      return false;
    };
    if (bytes.size() - at < 512) return fail("the file ends within a header");
    const std::string name(bytes.c_str() + at, strnlen(bytes.c_str() + at, 100));
    const std::string octal(bytes.c_str() + at + 124, strnlen(bytes.c_str() + at + 124, 12));
    const size_t size = std::strtoull(octal.c_str(), nullptr, 8);
    if (octal.find_first_not_of(" 01234567") != std::string::npos) {
      return fail("the size of " + Printable(name) + " is not an octal number");
    }
    const char type = bytes[at + 156];
    at += 512;
    if (size > bytes.size() - at) return fail("the file ends within " + Printable(name));
    if ((type == '0' || type == '\0') && IsImage(name) &&
        !Decode(path, name, bytes.substr(at, size), images, error)) {
      return false;
    }
    at += (size + 511) / 512 * 512;
  }
  return true;
}

}  // namespace

bool ReadImages(const std::string& path, std::vector<Image>* images, std::string* error) {
  images->clear();
  std::string bytes;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
      const std::string name = entry.path().filename().string();
      if (IsImage(name) && !(ReadFile(entry.path().string(), &bytes, error) &&
                             Decode(path, name, bytes, images, error))) {
        return false;
      }
    }
  } else {
    if (!ReadFile(path, &bytes, error)) return false;
    if (EndsWith(path, ".tar") ? !DecodeTar(path, bytes, images, error)
                               : !Decode(path, path, bytes, images, error)) {
      return false;
    }
  }
  std::sort(images->begin(), images->end(), [](const Image& a, const Image& b) {
    return a.name < b.name;
  });
  if (images->empty()) *error = path + " has no .png or .pgm files";
  return !images->empty();
}

bool WritePng(const std::string& path, const Image& image, std::string* error) {
  std::vector<png_byte> grey(image.pixels.size());
  for (size_t i = 0; i < grey.size(); ++i) {
    grey[i] = static_cast<png_byte>(std::lround(std::min(255.0, std::max(0.0, image.pixels[i]))));
  }
  png_image png;
  std::memset(&png, 0, sizeof(png));
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = PNG_FORMAT_GRAY;
  if (png_image_write_to_file(&png, path.c_str(), 0, grey.data(), 0, nullptr)) return true;
  *error = path + " cannot be written: " + png.message;
  return false;
}

Image Crop(const Image& image, int x, int y, int width, int height) {
  Image part(width, height);
  part.name = image.name;
  for (int j = 0; j < height; ++j) {
    for (int i = 0; i < width; ++i) part.at(i, j) = image.at(x + i, y + j);
  }
  return part;
}

double Psnr(const Image& image, const Image& truth) {
  double sum = 0.0;
  for (size_t i = 0; i < truth.pixels.size(); ++i) {
    const double clipped = std::min(255.0, std::max(0.0, image.pixels[i]));
    sum += (clipped - truth.pixels[i]) * (clipped - truth.pixels[i]);
  }
  return 10.0 * std::log10(255.0 * 255.0 * static_cast<double>(truth.pixels.size()) / sum);
}

double Ssim(const Image& image, const Image& truth) {
  constexpr int kSize = 11;
  std::array<double, kSize> window;
  double total = 0.0;
  for (int i = 0; i < kSize; ++i) total += window[i] = std::exp(-(i - 5) * (i - 5) / 4.5);
  for (double& w : window) w /= total;
  const int width = truth.width, height = truth.height;
  const int inner_width = width - kSize + 1, inner_height = height - kSize + 1;
  if (inner_width < 1 || inner_height < 1) return std::nan("");
  // Windowed means of a, b, aa, bb, ab: along rows, then along columns.
  std::vector<std::array<double, 5>> rows(static_cast<size_t>(inner_width) * height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < inner_width; ++x) {
      std::array<double, 5>& m = rows[static_cast<size_t>(y) * inner_width + x];
      m.fill(0.0);
      for (int k = 0; k < kSize; ++k) {
        const double a = std::min(255.0, std::max(0.0, image.at(x + k, y))), b = truth.at(x + k, y);
        const double terms[] = {a, b, a * a, b * b, a * b};
        for (int t = 0; t < 5; ++t) m[t] += window[k] * terms[t];
      }
    }
  }
  const double c1 = std::pow(0.01 * 255.0, 2), c2 = std::pow(0.03 * 255.0, 2);
  double sum = 0.0;
  for (int y = 0; y < inner_height; ++y) {
    for (int x = 0; x < inner_width; ++x) {
      std::array<double, 5> m{};
      for (int k = 0; k < kSize; ++k) {
        const auto& row = rows[static_cast<size_t>(y + k) * inner_width + x];
        for (int t = 0; t < 5; ++t) m[t] += window[k] * row[t];
      }
      const double aa = m[2] - m[0] * m[0], bb = m[3] - m[1] * m[1], ab = m[4] - m[0] * m[1];
      sum += (2.0 * m[0] * m[1] + c1) * (2.0 * ab + c2) /
             ((m[0] * m[0] + m[1] * m[1] + c1) * (aa + bb + c2));
    }
  }
  return sum / (static_cast<double>(inner_width) * inner_height);
}

}  // namespace examples
