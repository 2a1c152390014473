#ifndef BILEVEL_EXAMPLES_SUPPORT_TOY_PROBLEMS_H_
#define BILEVEL_EXAMPLES_SUPPORT_TOY_PROBLEMS_H_

// Small bilevel problems with known answers, from the papers on methods for lower levels without a
// single solution. BOME: Liu et al., NeurIPS 2022. SGM: Chen, Xu and Zhang, 2023.

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"

namespace examples {

/// A level from a lambda: value, and gradients gx and gy, which are never null.
class LambdaTerm : public bilevel::Objective {
 public:
  using Function = std::function<double(const double* x, const double* y, double* gx, double* gy)>;
  explicit LambdaTerm(int size_x, int size_y, Function function)
      : size_x_(size_x), size_y_(size_y), function_(std::move(function)) {}

  bool Evaluate(double const* const* blocks,
                const bilevel::Batch& /*batch*/,
                double* value,
                double** gradients) const override {
    std::vector<double> gx(size_x_), gy(size_y_);
    *value = function_(blocks[0], blocks[1], gx.data(), gy.data());
    if (gradients && gradients[0]) std::copy(gx.begin(), gx.end(), gradients[0]);
    if (gradients && gradients[1]) std::copy(gy.begin(), gy.end(), gradients[1]);
    return true;
  }

 private:
  int size_x_, size_y_;
  Function function_;
};

/// x, y and the two levels; the start is what x and y hold.
struct Toy {
  std::string name, formulas, answer;
  double phi = 0.0;          ///< The least, or infimum.
  std::vector<double> best;  ///< x and y there; empty where it is not one point.
  std::vector<double> x, y;
  double x_bound = 0.0, y_bound = 0.0;  ///< |x_i - x_centre| and |y_i| at most; 0: free.
  double x_centre = 0.0;
  LambdaTerm::Function f, g;

  std::unique_ptr<bilevel::Problem> Build() {
    auto problem = std::make_unique<bilevel::Problem>();
    const int nx = static_cast<int>(x.size()), ny = static_cast<int>(y.size());
    problem->AddUpperParameterBlock(x.data(), nx);
    problem->SetParameterName(x.data(), "x");
    problem->SetParameterName(y.data(), "y");
    problem->lower()->AddParameterBlock(y.data(), ny);
    for (int i = 0; i < nx && x_bound > 0.0; ++i) {
      problem->SetParameterLowerBound(x.data(), i, x_centre - x_bound);
      problem->SetParameterUpperBound(x.data(), i, x_centre + x_bound);
    }
    for (int i = 0; i < ny && y_bound > 0.0; ++i) {
      problem->lower()->SetParameterLowerBound(y.data(), i, -y_bound);
      problem->lower()->SetParameterUpperBound(y.data(), i, y_bound);
    }
    using bilevel::Level;
    problem->AddTerm(
        Level::kUpper, std::make_unique<LambdaTerm>(nx, ny, f), {{x.data(), nx}, {y.data(), ny}});
    problem->AddTerm(
        Level::kLower, std::make_unique<LambdaTerm>(nx, ny, g), {{x.data(), nx}, {y.data(), ny}});
    return problem;
  }
};

/// BOME, section 6.1: the point of a convex hull nearest to x0 = (3, -2). scale: of f; the
/// authors' script has 0.1.
inline Toy Coreset(double y0, double y1, double scale = 0.1) {
  static const double kPoints[4][2] = {{1, 3}, {3, 1}, {-2, 2}, {-3, -2}};
  const auto hull = [](const double* v, double* weights, double* point) {
    double sum = 0.0;
    const double top = std::max(std::max(v[0], v[1]), std::max(v[2], v[3]));
    for (int i = 0; i < 4; ++i) sum += weights[i] = std::exp(v[i] - top);
    point[0] = point[1] = 0.0;
    for (int i = 0; i < 4; ++i) {
      weights[i] /= sum;
      for (int k = 0; k < 2; ++k) point[k] += weights[i] * kPoints[i][k];
    }
  };
  Toy toy;
  toy.name = "coreset";
  toy.phi = 7.2 * scale;
  toy.formulas = "f = 0.1 |y - (3,-2)|^2, g = |y - X softmax(x)|^2";
  toy.answer = "y = (1.8, 0.4), |y - (3,-2)|^2 = 7.2 as two of x go to -infinity";
  toy.x = {0, 0, 0, 0};
  toy.y = {y0, y1};
  toy.f = [scale](const double*, const double* y, double*, double* gy) {
    const double a = y[0] - 3.0, b = y[1] + 2.0;
    gy[0] = 2.0 * scale * a;
    gy[1] = 2.0 * scale * b;
    return scale * (a * a + b * b);
  };
  toy.g = [hull](const double* x, const double* y, double* gx, double* gy) {
    double w[4], p[2];
    hull(x, w, p);
    const double a = y[0] - p[0], b = y[1] - p[1];
    gy[0] = 2.0 * a;
    gy[1] = 2.0 * b;
    for (int i = 0; i < 4; ++i) {
      gx[i] = -2.0 * w[i] * (a * (kPoints[i][0] - p[0]) + b * (kPoints[i][1] - p[1]));
    }
    return a * a + b * b;
  };
  return toy;
}

/// BOME, equation 12, in the box +-10 of the authors' script.
inline Toy MinMax() {
  Toy toy;
  toy.name = "min_max";
  toy.best = {0.0, 0.0};
  toy.phi = 0.0;
  toy.formulas = "f = x y, g = -x y, |x|, |y| <= 10";
  toy.answer = "x = y = 0";
  toy.x = {4};
  toy.y = {4};
  toy.x_bound = toy.y_bound = 10.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = y[0];
    gy[0] = x[0];
    return x[0] * y[0];
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = -y[0];
    gy[0] = -x[0];
    return -x[0] * y[0];
  };
  return toy;
}

/// Liu et al. (2020), example 5.3 of the SGM paper, misprinted in BOME's: with f as there, every x
/// would be optimal.
inline Toy Degenerate() {
  Toy toy;
  toy.name = "degenerate";
  toy.best = {1.0, 1.0, 1.0};
  toy.phi = 0.0;
  toy.formulas = "f = 1/2 (x - y2)^2 + 1/2 (y1 - 1)^2, g = 1/2 y1^2 - x y1";
  toy.answer = "x = 1, y = (1, 1)";
  toy.x = {0};
  toy.y = {0, 0};
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = x[0] - y[1];
    gy[0] = y[0] - 1.0;
    gy[1] = y[1] - x[0];
    return 0.5 * gx[0] * gx[0] + 0.5 * gy[0] * gy[0];
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = -y[0];
    gy[0] = y[0] - x[0];
    gy[1] = 0.0;
    return 0.5 * y[0] * y[0] - x[0] * y[0];
  };
  return toy;
}

/// A line of solutions, of which f chooses one.
inline Toy NonUnique() {
  Toy toy;
  toy.name = "non_unique";
  toy.best = {5.0 / 3.0, 1.0 / 3.0, 4.0 / 3.0};
  toy.phi = 2.0 / 3.0;
  toy.formulas = "f = 1/2 |y - (1,2)|^2 + 1/2 (x - 1)^2, g = 1/2 (y1 + y2 - x)^2";
  // y = p + (x - 3)/2 (1, 1), phi = (x - 3)^2 / 4 + (x - 1)^2 / 2, least at 3/2 x = 5/2.
  toy.answer = "x = 5/3, y = (1/3, 4/3), phi = 2/3";
  toy.x = {0};
  toy.y = {0, 0};
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = x[0] - 1.0;
    gy[0] = y[0] - 1.0;
    gy[1] = y[1] - 2.0;
    return 0.5 * (gx[0] * gx[0] + gy[0] * gy[0] + gy[1] * gy[1]);
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    const double r = y[0] + y[1] - x[0];
    gx[0] = -r;
    gy[0] = gy[1] = r;
    return 0.5 * r * r;
  };
  return toy;
}

/// SGM, example 4.1: phi = x^2 + sign(x) jumps at 0.
inline Toy Discontinuous() {
  Toy toy;
  toy.name = "discontinuous";
  toy.phi = -1.0;
  toy.formulas = "f = x^2 + y, g = -x y, |y| <= 1";
  toy.answer = "phi = x^2 + sign(x) jumps at its infimum -1, x = 0";
  toy.x = {0.8};
  toy.y = {0.5};
  toy.y_bound = 1.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 2.0 * x[0];
    gy[0] = 1.0;
    return x[0] * x[0] + y[0];
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = -y[0];
    gy[0] = -x[0];
    return -x[0] * y[0];
  };
  return toy;
}

/// SGM, example 5.1 made to have minimisers: phi = sum of x_i^2 - |x_i|, not smooth at 0.
inline Toy NonSmooth(int size = 2) {
  Toy toy;
  toy.name = "non_smooth";
  toy.phi = -0.25 * size;
  toy.formulas = "f = sum of x_i^2 + x_i y_i, g = 0, |y_i| <= 1";
  toy.answer = "every x_i = +-1/2, phi = -size/4";
  toy.x.resize(size);
  for (int i = 0; i < size; ++i) toy.x[i] = i % 2 ? 0.1 : -0.2;
  toy.y.assign(size, 0.0);
  toy.y_bound = 1.0;
  toy.f = [size](const double* x, const double* y, double* gx, double* gy) {
    double sum = 0.0;
    for (int i = 0; i < size; ++i) {
      gx[i] = 2.0 * x[i] + y[i];
      gy[i] = x[i];
      sum += x[i] * x[i] + x[i] * y[i];
    }
    return sum;
  };
  toy.g = [size](const double*, const double*, double* gx, double* gy) {
    for (int i = 0; i < size; ++i) gx[i] = gy[i] = 0.0;
    return 0.0;
  };
  return toy;
}

/// IAPTT-GM, Liu et al., NeurIPS 2021: the lower level has a minimiser in every period of the sine.
inline Toy Sine() {
  Toy toy;
  toy.name = "sine";
  toy.best = {2.75 * M_PI, -2.0};
  toy.phi = -2.75 * M_PI;
  toy.formulas = "f = x + x y, g = -sin(x y), 1 <= x <= 10, |y| <= 2";
  // x y = pi / 2 - 2 pi m: f = x + x y with y = -2 at m = 3, x = 11 pi / 4.
  toy.answer = "x = 11 pi / 4 = 8.6394, y = -2, phi = -8.6394";
  toy.x = {7.0};
  toy.y = {-1.0};
  toy.x_centre = 5.5;
  toy.x_bound = 4.5;
  toy.y_bound = 2.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 1.0 + y[0];
    gy[0] = x[0];
    return x[0] + x[0] * y[0];
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    const double slope = -std::cos(x[0] * y[0]);
    gx[0] = slope * y[0];
    gy[0] = slope * x[0];
    return -std::sin(x[0] * y[0]);
  };
  return toy;
}

/// BVFSM, Liu et al. 2021, in two lower variables: again a minimiser in every period.
inline Toy Sines() {
  Toy toy;
  toy.name = "sines";
  const double best_x = 2.0 / 3.0 * (1.5 * M_PI - 1.0), best_y = 1.5 * M_PI + 2.0 - best_x;
  toy.best = {best_x, best_y, best_y};
  toy.formulas = "f = (x - 2)^2 + |y - 4|^2, g = sin(x + y1 - 2) + sin(x + y2 - 2)";
  // x + y_i - 2 = 3 pi / 2 =: C: f = (x - 2)^2 + 2 (C - x - 2)^2, least at x = 2 (C - 1) / 3.
  toy.phi = 2.0 * std::pow(1.5 * M_PI - 4.0, 2) / 3.0;
  toy.answer = "x = 2.4749, y = (4.2375, 4.2375), phi = 0.3383";
  toy.x = {3};
  toy.y = {3, 3};
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 2.0 * (x[0] - 2.0);
    double sum = 0.25 * gx[0] * gx[0];
    for (int i = 0; i < 2; ++i) {
      gy[i] = 2.0 * (y[i] - 4.0);
      sum += 0.25 * gy[i] * gy[i];
    }
    return sum;
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 0.0;
    double sum = 0.0;
    for (int i = 0; i < 2; ++i) {
      gx[0] += gy[i] = std::cos(x[0] + y[i] - 2.0);
      sum += std::sin(x[0] + y[i] - 2.0);
    }
    return sum;
  };
  return toy;
}

/// Mehra and Hamm (2021), their first problem: y = 1 - x, and phi is strictly convex.
inline Toy Sum() {
  Toy toy;
  toy.name = "sum";
  toy.best = {0.5, 0.5};
  toy.formulas = "f = x^2 + y^2 - 1, g = (1 - x - y)^2";
  toy.phi = -0.5;
  toy.answer = "x = y = 1/2, phi = -1/2";
  toy.x = {2};
  toy.y = {-3};
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = 2.0 * x[0];
    gy[0] = 2.0 * y[0];
    return x[0] * x[0] + y[0] * y[0] - 1.0;
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    const double r = x[0] + y[0] - 1.0;
    gx[0] = gy[0] = 2.0 * r;
    return r * r;
  };
  return toy;
}

/// An active set that changes: phi = sum of x_i / 2 - clamp(x_i, -1, 1), least at a corner of every
/// coordinate. Bounded to |x_i| <= 2, where the ends are not lower.
inline Toy Corner(int size = 2) {
  Toy toy;
  toy.name = "corner";
  toy.phi = -0.5 * size;
  toy.formulas = "f = sum of x_i / 2 - y_i, g = 1/2 |y - x|^2, |y_i| <= 1, |x_i| <= 2";
  toy.answer = "every x_i = y_i = 1, a corner of phi; phi = -size/2";
  toy.x.assign(size, -0.5);
  toy.y.assign(size, 0.0);
  toy.x_bound = 2.0;
  toy.y_bound = 1.0;
  toy.f = [size](const double* x, const double* y, double* gx, double* gy) {
    double sum = 0.0;
    for (int i = 0; i < size; ++i) {
      gx[i] = 0.5;
      gy[i] = -1.0;
      sum += 0.5 * x[i] - y[i];
    }
    return sum;
  };
  toy.g = [size](const double* x, const double* y, double* gx, double* gy) {
    double sum = 0.0;
    for (int i = 0; i < size; ++i) {
      gy[i] = y[i] - x[i];
      gx[i] = -gy[i];
      sum += 0.5 * gy[i] * gy[i];
    }
    return sum;
  };
  return toy;
}

/// SGM, proposition 4.1: phi = -x^2/2. With any regularisation of g towards y = 0 it would be 0.
inline Toy Regularised() {
  Toy toy;
  toy.name = "regularised";
  toy.phi = -2.0;
  toy.formulas = "f = 1/2 y^2 - x y, g = 0, |x| <= 2";
  toy.answer = "x = y = +-2, phi = -x^2/2; of g + lambda y^2 phi is 0";
  toy.x = {0.3};
  toy.y = {0.0};
  toy.x_bound = 2.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = -y[0];
    gy[0] = y[0] - x[0];
    return 0.5 * y[0] * y[0] - x[0] * y[0];
  };
  toy.g = [](const double*, const double*, double* gx, double* gy) {
    gx[0] = gy[0] = 0.0;
    return 0.0;
  };
  return toy;
}

/// SGM, proposition 4.2 (an instance of the statement): a chain tied to x at one end, of which a
/// first-order method sees one more coordinate a gradient; f is linear in the far half,
/// 1-Lipschitz.
inline Toy Chain(int size = 8) {
  Toy toy;
  toy.name = "chain";
  toy.phi = -0.5;
  toy.best.assign(size + 1, -std::sqrt(2.0 / size));
  toy.best[0] = -1.0;
  toy.formulas = "f = x^2/2 + sum of far y_i / sqrt(n/2), g = 1/8 sum (y_i - y_{i-1})^2, y_0 = c x";
  toy.answer = "x = -1, y_i = -c = -sqrt(2/n), phi = x^2/2 + x";
  toy.x = {1.0};
  toy.y.assign(size, 0.0);
  const double c = std::sqrt(2.0 / size);
  toy.f = [size, c](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = x[0];
    double sum = 0.5 * x[0] * x[0];
    for (int i = 0; i < size; ++i) {
      gy[i] = i < size / 2 ? 0.0 : c;
      sum += gy[i] * y[i];
    }
    return sum;
  };
  toy.g = [size, c](const double* x, const double* y, double* gx, double* gy) {
    double before = c * x[0], sum = 0.0;
    gx[0] = -0.25 * c * (y[0] - before);
    for (int i = 0; i < size; ++i) {
      const double link = y[i] - before;
      gy[i] = 0.25 * link;
      if (i > 0) gy[i - 1] -= 0.25 * link;
      sum += 0.125 * link * link;
      before = y[i];
    }
    return sum;
  };
  return toy;
}

/// The same with g the greatest link / sqrt(2): 1-Lipschitz, its minimum weak sharp.
inline Toy SharpChain(int size = 8) {
  Toy toy = Chain(size);
  toy.name = "sharp_chain";
  toy.formulas = "f as in chain, g = max |y_i - y_{i-1}| / sqrt(2), y_0 = c x";
  const double c = std::sqrt(2.0 / size);
  toy.g = [size, c](const double* x, const double* y, double* gx, double* gy) {
    int at = 0;
    double link = y[0] - c * x[0];
    for (int i = 1; i < size; ++i) {
      if (std::abs(y[i] - y[i - 1]) <= std::abs(link)) continue;
      link = y[i] - y[i - 1];
      at = i;
    }
    std::fill(gy, gy + size, 0.0);
    const double slope = (link > 0.0 ? 1.0 : link < 0.0 ? -1.0 : 0.0) * std::sqrt(0.5);
    gy[at] = slope;
    if (at > 0) gy[at - 1] = -slope;
    gx[0] = at > 0 ? 0.0 : -c * slope;
    return std::sqrt(0.5) * std::abs(link);
  };
  return toy;
}

/// SGM, example 5.1 as printed; bounds on x give -|x| its minima.
inline Toy PrintedKink() {
  Toy toy;
  toy.name = "printed_kink";
  toy.phi = -1.0;
  toy.formulas = "f = x y, g = 0, |x|, |y| <= 1";
  toy.answer = "x = -y = +-1, phi = -|x|";
  toy.x = {0.1};
  toy.y = {0.0};
  toy.x_bound = toy.y_bound = 1.0;
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    gx[0] = y[0];
    gy[0] = x[0];
    return x[0] * y[0];
  };
  toy.g = [](const double*, const double*, double* gx, double* gy) {
    gx[0] = gy[0] = 0.0;
    return 0.0;
  };
  return toy;
}

/// SGM, example 5.4 with lambda = 1, M = diag(m): y_i = (a_i'x + b_i) / 2 where m_i > 0, and a_i'x,
/// f's choice, elsewhere. phi = 1 / (8 n) sum over m_i > 0 of (a_i'x - b_i)^2.
inline Toy LeastSquaresGame() {
  static constexpr int kNum = 6;
  static const double kA[kNum][2] = {{1, 0}, {0, 1}, {1, 1}, {2, -1}, {1, 3}, {-1, 1}};
  static const double kB[kNum] = {1, 2, 0, 5, -4, 3}, kM[kNum] = {0.9, 0.3, 0.05, 0, 0, 0};
  Toy toy;
  toy.name = "least_squares_game";
  toy.phi = 1.0 / 16.0;
  toy.best = {0.0, 1.0, 0.5, 1.5, 0.5, -1.0, 3.0, 1.0};
  toy.formulas = "f = |A x - y|^2 / (2 n), g = (|A x - y|_M^2 + |y - b|_M^2) / (2 n), M singular";
  toy.answer = "x = (0, 1), phi = 1/16, least squares where M > 0";
  toy.x = {3.0, -1.0};
  toy.y.assign(kNum, 0.0);
  toy.f = [](const double* x, const double* y, double* gx, double* gy) {
    double sum = 0.0;
    gx[0] = gx[1] = 0.0;
    for (int i = 0; i < kNum; ++i) {
      const double r = kA[i][0] * x[0] + kA[i][1] * x[1] - y[i];
      gx[0] += r * kA[i][0] / kNum;
      gx[1] += r * kA[i][1] / kNum;
      gy[i] = -r / kNum;
      sum += 0.5 * r * r / kNum;
    }
    return sum;
  };
  toy.g = [](const double* x, const double* y, double* gx, double* gy) {
    double sum = 0.0;
    gx[0] = gx[1] = 0.0;
    for (int i = 0; i < kNum; ++i) {
      const double r = kA[i][0] * x[0] + kA[i][1] * x[1] - y[i], s = y[i] - kB[i];
      gx[0] += kM[i] * r * kA[i][0] / kNum;
      gx[1] += kM[i] * r * kA[i][1] / kNum;
      gy[i] = kM[i] * (s - r) / kNum;
      sum += 0.5 * kM[i] * (r * r + s * s) / kNum;
    }
    return sum;
  };
  return toy;
}

}  // namespace examples

#endif  // BILEVEL_EXAMPLES_SUPPORT_TOY_PROBLEMS_H_
