#include "examples/support/learning/abalone.h"

#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "examples/support/text.h"

namespace examples {
namespace {

constexpr int kFeatures = 8;

double SexCode(const std::string& text) {
  return text == "M" ? 1.0 : text == "F" ? 2.0 : text == "I" ? 3.0 : 0.0;
}

}  // namespace

bool ReadAbalone(const std::string& path, Abalone* data, std::string* error) {
  LineReader in;
  std::vector<std::array<double, kFeatures + 1>> rows;
  const auto read_row = [&] {
    const double sex = SexCode(in[0]);
    if (sex == 0.0 && in.line() == 1) return true;  // A header.
    if (sex == 0.0) return in.Fail("the sex is neither M, F nor I");
    rows.push_back({sex});
    for (int k = 1; k <= kFeatures; ++k) {
      if (!in.Number(k, k < kFeatures ? "a measure" : "the rings", &rows.back()[k])) return false;
    }
    return in.End(kFeatures + 1, "the rings");
  };
  bool ok = in.Open(path, LineReader::kComma);
  while (ok && in.Next()) ok = read_row();
  if (ok && rows.empty()) ok = in.FailAt(0, "there are no shells");
  *error = in.error();
  if (!ok) return false;
  data->features.resize(rows.size(), kFeatures);
  data->rings.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int j = 0; j < kFeatures; ++j) data->features(i, j) = rows[i][j];
    data->rings[i] = rows[i][kFeatures];
  }
  return true;
}

Abalone SimulateAbalone(int num_shells, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int> sex(1, 3);
  Abalone data{Eigen::MatrixXd(num_shells, kFeatures), Eigen::VectorXd(num_shells)};
  for (int i = 0; i < num_shells; ++i) {
    const int code = sex(generator);
    const auto about = [&](double value, double spread) {
      return value * std::exp(spread * normal(generator));
    };
    // Lengths [200 mm], weights [200 g] that go with their cube.
    const double length = about(code == 3 ? 0.43 : 0.57, 0.2);
    const double diameter = about(0.78 * length, 0.03), height = about(0.27 * length, 0.08);
    const double whole = about(4.6 * std::pow(length, 3), 0.1);
    const double meat = about(0.43 * whole, 0.1), viscera = about(0.22 * whole, 0.1);
    const double shell = about(0.29 * whole, 0.15);
    data.features.row(i) << code, length, diameter, height, whole, meat, viscera, shell;
    data.rings[i] = std::round(about(5.0 + 20.0 * (shell - 0.3 * meat) + 3.0 * diameter, 0.15));
  }
  return data;
}

}  // namespace examples
