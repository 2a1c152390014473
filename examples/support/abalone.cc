#include "examples/support/abalone.h"

#include <array>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

namespace examples {
namespace {

constexpr int kFeatures = 8;

double SexCode(const std::string& text) {
  return text == "M" ? 1.0 : text == "F" ? 2.0 : text == "I" ? 3.0 : 0.0;
}

}  // namespace

bool ReadAbalone(const std::string& path, Abalone* data, std::string* error) {
  std::ifstream file(path);
  if (!file) {
    *error = path + " cannot be read";
    return false;
  }
  std::vector<std::array<double, kFeatures + 1>> rows;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    std::istringstream fields(line);
    std::string field;
    std::array<double, kFeatures + 1> row{};
    int count = 0;
    bool ok = true;
    while (std::getline(fields, field, ',')) {
      if (count == 0) {
        row[0] = SexCode(field);
        ok = row[0] > 0.0;
      } else if (count <= kFeatures) {
        char* end = nullptr;
        row[count] = std::strtod(field.c_str(), &end);
        ok = ok && !field.empty() && end == field.c_str() + field.size() &&
             std::isfinite(row[count]);
      }
      ++count;
    }
    if (ok && count == kFeatures + 1) {
      rows.push_back(row);
    } else if (number > 1) {
      *error = path + ", line " + std::to_string(number) +
               ": a sex (M, F or I) and eight numbers are expected";
      return false;
    }
  }
  if (rows.empty()) {
    *error = path + " has no shells";
    return false;
  }
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
