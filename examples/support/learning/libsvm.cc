#include "examples/support/learning/libsvm.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "examples/support/text.h"

namespace examples {
namespace {

constexpr int kMostFeatures = 1 << 22;

// index:value.
bool ParseEntry(const std::string& field, long* index, double* value) {
  char* colon = nullptr;
  *index = std::strtol(field.c_str(), &colon, 10);
  if (colon == field.c_str() || *colon != ':') return false;
  char* end = nullptr;
  *value = std::strtod(colon + 1, &end);
  return end != colon + 1 && end == field.c_str() + field.size() && std::isfinite(*value);
}

}  // namespace

bool ReadLibsvm(const std::string& path,
                const std::vector<int>& classes,
                int first_index,
                int num_features,
                SparseSamples* samples,
                std::string* error) {
  *samples = SparseSamples();
  const int most = num_features > 0 ? num_features : kMostFeatures;
  int columns = num_features;
  std::vector<Eigen::Triplet<double>> entries;
  LineReader in;
  const auto read_sample = [&] {
    long label;
    if (!in.Integer(0, "the label", &label)) return false;
    const auto known = std::find(classes.begin(), classes.end(), label);
    if (known == classes.end()) return in.Fail("there is no class " + std::to_string(label));
    const int row = static_cast<int>(samples->labels.size());
    samples->labels.push_back(static_cast<int>(known - classes.begin()));
    const size_t first = entries.size();
    double squares = 0.0;
    for (int k = 1; k < in.size(); ++k) {
      const long least = k == 1 ? first_index : first_index + entries.back().col() + 1L;
      long index;
      double value;
      if (!ParseEntry(in[k], &index, &value) || index < least || index - first_index >= most) {
        return in.Fail("\"" + Printable(in[k]) + "\" is not an index from " +
                       std::to_string(least) + " to " + std::to_string(first_index + most - 1L) +
                       ", a colon and a finite number");
      }
      entries.emplace_back(row, static_cast<int>(index - first_index), value);
      columns = std::max(columns, entries.back().col() + 1);
      squares += value * value;
    }
    if (in.size() > 1 && !std::isnormal(squares)) return in.Fail("the row has no length");
    for (size_t k = first; k < entries.size(); ++k) {
      entries[k] = {row, entries[k].col(), entries[k].value() / std::sqrt(squares)};
    }
    return true;
  };
  bool ok = in.Open(path);
  while (ok && in.Next()) ok = read_sample();
  if (ok && columns == 0) ok = in.FailAt(0, "there is no feature");
  *error = in.error();
  if (!ok) return false;
  samples->features.resize(static_cast<Eigen::Index>(samples->labels.size()), columns);
  samples->features.setFromTriplets(entries.begin(), entries.end());
  return true;
}

}  // namespace examples
