#ifndef BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_H_
#define BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_H_

#include <string>
#include <vector>

namespace examples {

/// A grey image, row after row; values from 0 (black) to 255 (white), not rounded.
struct Image {
  Image() = default;
  Image(int w, int h) : width(w), height(h), pixels(static_cast<size_t>(w) * h, 0.0) {}
  double& at(int x, int y) { return pixels[static_cast<size_t>(y) * width + x]; }
  double at(int x, int y) const { return pixels[static_cast<size_t>(y) * width + x]; }

  std::string name;  ///< Its file's, without the ending; of one that is read, printable ASCII.
  int width = 0, height = 0;
  std::vector<double> pixels;
};

/// The images of a file (.png, .pgm), of a folder or of a .tar with such files, in the order of
/// their names. PNG by libpng, colours become grey; PGM is P5 with 8 bits; at most 32,768 pixels a
/// side. False, with *error, if one of them cannot be read, or there is none.
bool ReadImages(const std::string& path, std::vector<Image>* images, std::string* error);

/// Rounded and clipped to 0..255. False, with *error, if the file cannot be written.
bool WritePng(const std::string& path, const Image& image, std::string* error);

/// The part of an image from (x, y) on.
Image Crop(const Image& image, int x, int y, int width, int height);

/// Peak signal-to-noise ratio [dB] for a peak of 255, after clipping to 0..255.
double Psnr(const Image& image, const Image& truth);

/// Mean structural similarity (Wang, Bovik, Sheikh and Simoncelli, 2004): Gaussian windows of
/// 11 x 11 with standard deviation 1.5, K = (0.01, 0.03), windows inside the image only.
double Ssim(const Image& image, const Image& truth);

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_VISION_IMAGE_H_
