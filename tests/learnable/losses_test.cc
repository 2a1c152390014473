#include "bilevel/learnable/losses.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/learnable/auto_diff_loss.h"
#include "ceres/ceres.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
const double kArguments[] = {1e-12, 1e-6, 1e-3, 0.05, 0.3, 1.0, 3.0, 10.0, 100.0, 1e4, 1e6};

// A copy of a loss's theta that can be moved, and everything the loss says there.
class Probe {
 public:
  explicit Probe(const LearnableLoss& loss) : loss_(loss) {
    for (const LearnableLoss::ParameterBlock& block : loss.parameter_blocks()) {
      values_.emplace_back(block.values, block.values + block.size);
    }
    const int p = loss.num_parameters();
    for (std::vector<double>& block : values_) {
      theta_.push_back(block.data());
      for (double& value : block) entries_.push_back(&value);
    }
    EXPECT_EQ(static_cast<int>(entries_.size()), p);
    rho_theta.resize(p);
    rho_s_theta.resize(p);
  }

  double& theta(int i) { return *entries_[i]; }

  void Evaluate(double s) {
    loss_.Evaluate(s, theta_.data(), rho, rho_theta.data(), rho_s_theta.data());
  }

  // The same without some of the outputs.
  void ExpectOutputsAreIndependent(double s) {
    Evaluate(s);
    double rho1[3], rho2[3], rho3[3], bound[3];
    std::vector<double> only_theta(rho_theta.size()), only_s_theta(rho_theta.size());
    loss_.Evaluate(s, theta_.data(), rho1, only_theta.data(), nullptr);
    loss_.Evaluate(s, theta_.data(), rho2, nullptr, only_s_theta.data());
    loss_.Evaluate(s, theta_.data(), rho3, nullptr, nullptr);
    loss_.Evaluate(s, bound);
    for (int i = 0; i < 3; ++i) {
      for (const double* other : {rho1, rho2, rho3, bound}) EXPECT_DOUBLE_EQ(rho[i], other[i]);
    }
    EXPECT_EQ(only_theta, rho_theta);
    EXPECT_EQ(only_s_theta, rho_s_theta);
  }

  double rho[3];
  std::vector<double> rho_theta, rho_s_theta;

 private:
  const LearnableLoss& loss_;
  std::vector<std::vector<double>> values_;
  std::vector<const double*> theta_;
  std::vector<double*> entries_;
};

// Compares `exact` with central differences of f at x: their Richardson limit, and the factor four
// by which halving the step reduces their error. Returns whether the latter stood above rounding,
// which is that of numbers as large as f and `intermediate`.
template <typename F>
bool ExpectDerivative(const F& f, double x, double step, double exact, double intermediate) {
  double table[4], size = intermediate;
  for (int k = 0; k < 4; ++k) {
    const double h = step / (1 << k), forward = f(x + h), backward = f(x - h);
    table[k] = (forward - backward) / (2 * h);
    size = std::max({size, std::abs(forward), std::abs(backward)});
  }
  const double noise = 8 * kEpsilon * size / (step / 8);
  const double error0 = std::abs(table[0] - exact), error1 = std::abs(table[1] - exact);
  for (int order = 1; order < 4; ++order) {
    const double factor = std::pow(4.0, order);
    for (int k = 0; k + order < 4; ++k) {
      table[k] = (factor * table[k + 1] - table[k]) / (factor - 1);
    }
  }
  EXPECT_NEAR(table[0], exact, 1e-8 * std::abs(exact) + 4 * noise);
  if (error1 <= 1e3 * noise) return false;
  EXPECT_NEAR(error0 / error1, 4.0, 0.6);
  return true;
}

// All derivatives of the loss at its theta; theta_step is the step for every parameter. Arguments
// beyond max_s are left out: in a tail like exp(-s) relative steps are too long. `intermediate` is
// 1 for formulas such as log(1 + s), which do not keep the digits of a small s.
void ExpectConsistent(const LearnableLoss& loss,
                      double theta_step = 0.02,
                      double max_s = 1e6,
                      double intermediate = 0.0) {
  Probe exact(loss), probe(loss);
  int slopes = 0;
  for (const double s : kArguments) {
    if (s > max_s) break;
    SCOPED_TRACE(testing::Message() << loss.Describe() << " at s = " << s);
    exact.ExpectOutputsAreIndependent(s);
    const auto of_s = [&](int order) {
      return [&probe, order](double value) { return probe.Evaluate(value), probe.rho[order]; };
    };
    slopes += ExpectDerivative(of_s(0), s, 0.05 * s, exact.rho[1], intermediate);
    slopes += ExpectDerivative(of_s(1), s, 0.05 * s, exact.rho[2], intermediate);
    for (int i = 0; i < loss.num_parameters(); ++i) {
      const double value = probe.theta(i);
      const auto of_theta = [&](int order) {
        return [&probe, order, i, s](double moved) {
          probe.theta(i) = moved;
          return probe.Evaluate(s), probe.rho[order];
        };
      };
      slopes += ExpectDerivative(of_theta(0), value, theta_step, exact.rho_theta[i], intermediate);
      slopes +=
          ExpectDerivative(of_theta(1), value, theta_step, exact.rho_s_theta[i], intermediate);
      probe.theta(i) = value;
    }
  }
  EXPECT_GT(slopes, 5);

  // s = 0 has no central differences, but everything is continuous there.
  exact.Evaluate(0.0);
  probe.Evaluate(1e-11);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(exact.rho[i], probe.rho[i], 1e-8 * (1 + std::abs(exact.rho[i])));
  }
  for (int i = 0; i < loss.num_parameters(); ++i) {
    EXPECT_NEAR(exact.rho_theta[i], probe.rho_theta[i], 1e-8);
    EXPECT_NEAR(exact.rho_s_theta[i], probe.rho_s_theta[i], 1e-8);
  }

  for (const double s : {-1.0, -1e-300, std::nan("")}) {
    exact.Evaluate(s);
    for (const double value : exact.rho) EXPECT_TRUE(std::isnan(value));
    for (const double value : exact.rho_theta) EXPECT_TRUE(std::isnan(value));
    for (const double value : exact.rho_s_theta) EXPECT_TRUE(std::isnan(value));
  }
}

void ExpectSameLoss(const ceres::LossFunction& loss, const ceres::LossFunction& reference) {
  for (const double s : kArguments) {
    double actual[3], expected[3];
    loss.Evaluate(s, actual);
    reference.Evaluate(s, expected);
    for (int i = 0; i < 3; ++i) {
      // Ceres' Tukey value cancels at small s.
      EXPECT_NEAR(actual[i], expected[i], 1e-13 * std::abs(expected[i]) + 4e-16) << i << " " << s;
    }
  }
}

TEST(Losses, DerivativesOfScaleLosses) {
  double log_scale = 0.26;
  ExpectConsistent(CauchyLoss(&log_scale));
  ExpectConsistent(HuberLoss(&log_scale));
  ExpectConsistent(GemanMcClureLoss(&log_scale));
  ExpectConsistent(WelschLoss(&log_scale), 0.02, 3.0);
  ExpectConsistent(TukeyLoss(&log_scale));
}

TEST(Losses, EqualCeresAtTheSameScale) {
  double log_scale = std::log(1.07);
  ExpectSameLoss(CauchyLoss(&log_scale), ceres::CauchyLoss(1.07));
  ExpectSameLoss(HuberLoss(&log_scale), ceres::HuberLoss(1.07));
  ExpectSameLoss(TukeyLoss(&log_scale), ceres::TukeyLoss(1.07));
  ExpectSameLoss(CauchyLoss(0.3), ceres::CauchyLoss(0.3));
  ExpectSameLoss(HuberLoss(0.3), ceres::HuberLoss(0.3));
  ExpectSameLoss(TukeyLoss(0.3), ceres::TukeyLoss(0.3));
}

// d rho / d log_scale is O(s^2), where subtracting the O(s) terms it is made of leaves nothing:
// 2 a^2 (h - u h') = u^2 a^2 (-h''(0)) (1 + O(u)).
TEST(Losses, ScaleDerivativeKeepsItsDigitsAtSmallArguments) {
  double log_scale = 0.0;
  const CauchyLoss cauchy(&log_scale);
  const WelschLoss welsch(&log_scale);
  const GemanMcClureLoss geman_mcclure(&log_scale);
  const TukeyLoss tukey(&log_scale);
  const double s = 1e-9;
  for (const LearnableLoss* loss :
       std::initializer_list<const LearnableLoss*>{&cauchy, &welsch, &geman_mcclure, &tukey}) {
    Probe probe(*loss);
    probe.Evaluate(s);
    EXPECT_NEAR(probe.rho_theta[0] / (-s * s * probe.rho[2]), 1.0, 1e-8) << loss->Describe();
  }
}

// The series takes over from the closed form at u = 0.1.
TEST(Losses, NoJumpBetweenSeriesAndClosedForm) {
  for (const bool is_cauchy : {true, false}) {
    const CauchyLoss cauchy(1.0);
    const WelschLoss welsch(1.0);
    const LearnableLoss& loss = is_cauchy ? static_cast<const LearnableLoss&>(cauchy) : welsch;
    Probe below(loss), above(loss);
    const double s = is_cauchy ? std::expm1(0.1) : 0.1;
    below.Evaluate(s * (1 - 1e-15));
    above.Evaluate(s * (1 + 1e-15));
    EXPECT_NEAR(below.rho_theta[0] / above.rho_theta[0], 1.0, 3e-14);
  }
}

// alpha, s, then at log_scale = -0.375: rho, rho', rho'', d rho / d alpha, d rho / d log_scale,
// d rho' / d alpha, d rho' / d log_scale. Computed from the formulas of the header, differentiated
// by hand, in 120-digit arithmetic (mpmath).
const double kBarron[][9] = {
    {-1e6,
     0.5,
     0.38824132606054932,
     0.58904675154055064,
     -0.62350533141941535,
     3.1559394610420968e-14,
     0.18743590058054801,
     1.649943814278143e-13,
     0.62350533141941535},
    {-1e6,
     0.001,
     0.0009994709366838598,
     0.99894206000633782,
     -1.0573801765757889,
     3.7317622945152252e-22,
     1.0577533550439059e-6,
     1.1192324479643537e-18,
     0.0021147603531515779},
    {-50,
     3.0,
     0.92741394441599618,
     0.049984003772371417,
     -0.047149484239834763,
     0.00042193591922190269,
     1.5549238661977639,
     0.00015973527329607465,
     0.28289690543900858},
    {-50,
     1e-08,
     9.999999947075e-9,
     0.99999998941499998,
     -1.0584999966711831,
     1.3811911467377007e-28,
     1.0585000005495679e-16,
     4.1435734286858666e-20,
     2.1169999933423662e-8},
    {-4,
     100.0,
     1.4160232276372496,
     2.093526458998516e-5,
     -6.1074811869431323e-7,
     0.11641793264238503,
     2.8278594023565021,
     2.741388497546532e-5,
     0.00012214962373886265},
    {-1,
     1e-05,
     9.999947075310812e-6,
     0.99998941509328469,
     -1.0584813348324798,
     4.1496498761687809e-17,
     1.0584875592853324e-10,
     1.2448887403176653e-11,
     2.1169626696649599e-5},
    {-1e-9,
     2.0,
     1.0740396760503461,
     0.32082130075118831,
     -0.10894749689297221,
     0.089062604493680754,
     0.86479414909593892,
     0.073418720591074969,
     0.43578998757188883},
    {-1e-9,
     1e-12,
     9.9999999999947073e-13,
     0.9999999999989415,
     -1.0585000083040965,
     9.3368522205168202e-38,
     1.0585000083048434e-24,
     2.8010556661533166e-25,
     2.1170000166081929e-12},
    {0,
     1000000.0,
     13.105681826430585,
     9.4473221296223201e-7,
     -9.4473132044327781e-13,
     39.371223439829514,
     24.321899226936705,
     6.0804690623137563e-6,
     1.8894626408865556e-6},
    {0,
     0.01,
     0.0099474455336438774,
     0.98952586859868951,
     -1.0364423972698567,
     9.1662750623731071e-8,
     0.00010437369531396405,
     2.7330594988970097e-5,
     0.020728847945397134},
    {1e-9,
     0.3,
     0.2605327832841601,
     0.75898447734512155,
     -0.60975680160747176,
     0.0015433188603347404,
     0.065674880161247292,
     0.013190554652409108,
     0.36585408096448304},
    {.5,
     10000.0,
     28.05776199463029,
     0.00077224431541913721,
     -5.7914220145356578e-8,
     77.913109661490408,
     40.670637680877836,
     0.0033032816102711416,
     0.0011582844029071316},
    {1,
     0.05,
     0.048742586793288544,
     0.95093731313983603,
     -0.91022033105869949,
     4.0608230231108122e-5,
     0.0023914422725934796,
     0.0023279156083624477,
     0.091022033105869954},
    {1,
     10.0,
     3.5035455222833568,
     0.21238172887488852,
     -0.010140101943781761,
     2.008755770901653,
     2.7594564670689432,
     0.22765686313389091,
     0.20280203887563521},
    {1.9,
     0.001,
     0.00099947462946891835,
     0.99895309694012634,
     -1.0354709414071562,
     3.65428119965574e-8,
     1.0430650575839622e-6,
     0.00010883924122606626,
     0.0020709418828143125},
    {1.999999999,
     1.0,
     0.99999998976336632,
     0.99999998926336629,
     -5.0000003576568489e-10,
     9.7366327875621144,
     1.0000000623604823e-9,
     10.236632767668411,
     1.0000000715313698e-9},
    {1.999999999,
     1e-08,
     9.9999999887744289e-9,
     0.9999999984506299,
     -0.047744703760258254,
     6.957440981829313e-9,
     8.5362594660705076e-18,
     1.0719229755576379,
     9.548940752051651e-10},
    {2.000000001,
     0.2,
     0.20000000188638297,
     1.0000000099319148,
     2.5000002257761335e-9,
     1.7863828106953966,
     -2.0000000905144784e-10,
     9.43191401692477,
     -1.0000000903104534e-9},
    {3,
     2.0,
     3.4559320541524292,
     2.2877937042542427,
     0.46267283904926165,
     0.84907142748779767,
     -2.2393107087121124,
     0.9680047211989814,
     -1.8506913561970466},
};

TEST(BarronLoss, HighPrecisionReference) {
  for (const double* row : kBarron) {
    double alpha = row[0], log_scale = -0.375;
    const BarronLoss loss(&alpha, &log_scale);
    Probe probe(loss);
    probe.Evaluate(row[1]);
    const double actual[] = {probe.rho[0],
                             probe.rho[1],
                             probe.rho[2],
                             probe.rho_theta[0],
                             probe.rho_theta[1],
                             probe.rho_s_theta[0],
                             probe.rho_s_theta[1]};
    for (int i = 0; i < 7; ++i) {
      EXPECT_NEAR(actual[i], row[2 + i], 5e-13 * std::abs(row[2 + i]))
          << "output " << i << " at alpha = " << alpha << ", s = " << row[1];
    }
  }
}

TEST(BarronLoss, Derivatives) {
  double log_scale = -0.2;
  for (double alpha :
       {-1e6, -300.0, -41.0, -39.0, -8.0, -2.0, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 1.5}) {
    ExpectConsistent(BarronLoss(&alpha, &log_scale), 0.02, alpha < -20.0 ? 3.0 : 1e6);
  }
  for (double alpha : {1.9, 1.99, 2.01, 2.1, 3.0}) {
    ExpectConsistent(BarronLoss(&alpha, &log_scale), 0.2 * std::abs(alpha - 2.0));
  }
}

TEST(BarronLoss, SpecialCases) {
  const double scale = 0.8;
  ExpectSameLoss(BarronLoss(2.0, scale), ceres::TrivialLoss());
  ExpectSameLoss(BarronLoss(1.0, scale), ceres::SoftLOneLoss(scale));
  ExpectSameLoss(BarronLoss(0.0, scale), ceres::CauchyLoss(std::sqrt(2.0) * scale));
  ExpectSameLoss(BarronLoss(-2.0, scale), GemanMcClureLoss(2.0 * scale));

  // rho is within O(1 / alpha) of Welsch, relative to its curvature.
  const BarronLoss nearly(-1e9, scale);
  const WelschLoss welsch(std::sqrt(2.0) * scale);
  for (const double s : {1e-6, 0.1, 1.0, 5.0}) {
    double actual[3], expected[3];
    nearly.Evaluate(s, actual);
    welsch.Evaluate(s, expected);
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(actual[i], expected[i], 2e-8 * std::abs(expected[i]));
  }
}

// Across the removable singularities: the change over a step of 2e-9 is what the derivative says.
TEST(BarronLoss, ContinuousInAlpha) {
  double log_scale = 0.1;
  for (const double middle : {0.0, -40.0, 1.0}) {
    for (const double s : kArguments) {
      double rho[2], rho_theta[2], rho_s_theta[2];
      for (const int side : {0, 1}) {
        double alpha = middle + (2 * side - 1) * 1e-9;
        const BarronLoss loss(&alpha, &log_scale);
        Probe here(loss);
        here.Evaluate(s);
        rho[side] = here.rho[0];
        rho_theta[side] = here.rho_theta[0];
        rho_s_theta[side] = here.rho_s_theta[0];
      }
      EXPECT_NEAR(rho[0], rho[1], 3e-9 * std::abs(rho_theta[0]) + 1e-13 * rho[0]);
      EXPECT_NEAR(rho_theta[0], rho_theta[1], 3e-8 * rho_theta[0]);
      EXPECT_NEAR(rho_s_theta[0], rho_s_theta[1], 3e-8 * rho_s_theta[0]);
    }
  }
}

// At alpha = 2 the family is continuous, and its alpha-derivative log(s / (b c^2)) / 2 - 1/2 of
// rho' is not.
TEST(BarronLoss, LeastSquaresEnd) {
  double log_scale = 0.0;
  const double s = 3.0;
  for (const double sign : {1.0, -1.0}) {
    for (const double b : {1e-6, 1e-9, 1e-12}) {
      double alpha = 2.0 + sign * b;
      const double rounded_b = std::abs(alpha - 2.0);
      const BarronLoss loss(&alpha, &log_scale);
      Probe probe(loss);
      probe.Evaluate(s);
      const double expected = 0.5 * std::log(s / rounded_b) - 0.5;
      EXPECT_NEAR(probe.rho_s_theta[0], expected, 50 * b * expected);
      EXPECT_NEAR(probe.rho[1], 1.0, 2 * b * expected);
      EXPECT_NEAR(probe.rho[0], s, 2 * b * expected * s);
    }
  }
  double alpha = 2.0;
  const BarronLoss loss(&alpha, &log_scale);
  Probe probe(loss);
  probe.Evaluate(s);
  EXPECT_EQ(probe.rho_theta[0], HUGE_VAL);
  EXPECT_EQ(probe.rho_s_theta[0], HUGE_VAL);
  EXPECT_EQ(probe.rho_theta[1], 0.0);
  EXPECT_EQ(probe.rho_s_theta[1], 0.0);
  probe.Evaluate(0.0);
  EXPECT_EQ(probe.rho_theta[0], 0.0);
  EXPECT_EQ(probe.rho_s_theta[0], 0.0);
}

TEST(Losses, ParametersOutsideTheDomainGiveNan) {
  for (double bad : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    double zero = 0.0;
    const CauchyLoss cauchy(&bad);
    const BarronLoss barron(&bad, &zero), barron_scale(&zero, &bad);
    const NoiseScaleLoss noise(nullptr, &bad, ceres::TAKE_OWNERSHIP);
    const WeightedLoss weighted(nullptr, &bad, ceres::TAKE_OWNERSHIP);
    const SwitchLoss switched(nullptr, &bad, ceres::TAKE_OWNERSHIP);
    const ComposedLoss composed(
        &cauchy, ceres::DO_NOT_TAKE_OWNERSHIP, nullptr, ceres::TAKE_OWNERSHIP);
    for (const LearnableLoss* loss : std::initializer_list<const LearnableLoss*>{
             &cauchy, &barron, &barron_scale, &noise, &weighted, &switched, &composed}) {
      Probe probe(*loss);
      probe.Evaluate(1.0);
      for (const double value : probe.rho) EXPECT_TRUE(std::isnan(value)) << loss->Describe();
      for (const double value : probe.rho_theta) EXPECT_TRUE(std::isnan(value));
      for (const double value : probe.rho_s_theta) EXPECT_TRUE(std::isnan(value));
    }
  }
  EXPECT_TRUE(std::isnan([] {
    double rho[3];
    CauchyLoss(-1.0).Evaluate(1.0, rho);
    return rho[0];
  }()));
}

// A formula of four parameters in two blocks, and one with more than fits the small buffers.
struct Formula {
  template <typename T>
  T operator()(const T& s, const T* log_scale, const T* w) const {
    const T a2 = exp(2.0 * log_scale[0]);
    return exp(w[0] * w[1]) * a2 * log(1.0 + s / a2) + w[2] * w[2] * s / (1.0 + s);
  }
};

struct ManyWeights {
  template <typename T>
  T operator()(const T& s, const T* w) const {
    T sum(0.0);
    for (int i = 0; i < 20; ++i) sum += exp(0.1 * w[i]) * s / (1.0 + s * double(i));
    return sum;
  }
};

TEST(AutoDiffLearnableLoss, Derivatives) {
  double log_scale = 0.4, w[] = {0.3, -0.7, 0.9};
  ExpectConsistent(AutoDiffLearnableLoss<Formula, 1, 3>(Formula(), &log_scale, w), 0.02, 1e6, 1.0);
}

struct CauchyFormula {
  template <typename T>
  T operator()(const T& s, const T* log_scale) const {
    const T a2 = exp(2.0 * log_scale[0]);
    return a2 * log1p(s / a2);
  }
};

TEST(AutoDiffLearnableLoss, EqualsHandWrittenLoss) {
  double log_scale = -0.6;
  const AutoDiffLearnableLoss<CauchyFormula, 1> loss(CauchyFormula(), &log_scale);
  const CauchyLoss reference(&log_scale);
  ExpectSameLoss(loss, reference);
  Probe actual(loss), expected(reference);
  for (const double s : {0.0, 0.05, 0.3, 1.0, 10.0, 1e6}) {
    actual.Evaluate(s);
    expected.Evaluate(s);
    EXPECT_NEAR(actual.rho_theta[0], expected.rho_theta[0], 1e-14 * (1 + expected.rho[0]));
    EXPECT_NEAR(actual.rho_s_theta[0], expected.rho_s_theta[0], 1e-14);
  }
}

TEST(Wrappers, Derivatives) {
  double log_scale = 0.3, parameter = -0.4;
  const CauchyLoss cauchy(&log_scale);
  const ceres::SoftLOneLoss opaque(0.7);
  for (const ceres::LossFunction* base :
       std::initializer_list<const ceres::LossFunction*>{&opaque, &cauchy}) {
    ExpectConsistent(
        NoiseScaleLoss(base, &parameter, ceres::DO_NOT_TAKE_OWNERSHIP), 0.02, 1e6, 1.0);
    ExpectConsistent(WeightedLoss(base, &parameter, ceres::DO_NOT_TAKE_OWNERSHIP), 0.02, 1e6, 1.0);
    ExpectConsistent(SwitchLoss(base, &parameter, ceres::DO_NOT_TAKE_OWNERSHIP), 0.02, 1e6, 1.0);
  }
}

TEST(Wrappers, TrivialBase) {
  double theta = 0.8;
  const NoiseScaleLoss noise(nullptr, &theta, ceres::TAKE_OWNERSHIP);
  const WeightedLoss weighted(nullptr, &theta, ceres::TAKE_OWNERSHIP);
  const SwitchLoss switched(nullptr, &theta, ceres::TAKE_OWNERSHIP);
  const auto expect_linear = [](const LearnableLoss& loss, double weight, double derivative) {
    Probe probe(loss);
    probe.Evaluate(3.0);
    EXPECT_DOUBLE_EQ(probe.rho[0], 3.0 * weight);
    EXPECT_DOUBLE_EQ(probe.rho[1], weight);
    EXPECT_DOUBLE_EQ(probe.rho[2], 0.0);
    EXPECT_DOUBLE_EQ(probe.rho_theta[0], 3.0 * derivative);
    EXPECT_DOUBLE_EQ(probe.rho_s_theta[0], derivative);
  };
  expect_linear(noise, std::exp(-1.6), -2.0 * std::exp(-1.6));
  expect_linear(weighted, std::exp(0.8), std::exp(0.8));
  expect_linear(switched, 1 / (1 + std::exp(-0.8)), 0.25 / std::pow(std::cosh(0.4), 2));
}

TEST(ComposedLoss, Derivatives) {
  double log_scale = 0.3, log_weight = -0.5, w[20];
  for (int i = 0; i < 20; ++i) w[i] = 0.1 * i;
  const CauchyLoss cauchy(&log_scale);
  const WeightedLoss weighted(&cauchy, &log_weight, ceres::DO_NOT_TAKE_OWNERSHIP);
  const GemanMcClureLoss geman_mcclure(&log_weight);
  const ceres::SoftLOneLoss opaque(0.7);
  const AutoDiffLearnableLoss<ManyWeights, 20> many(ManyWeights(), w);
  const auto composed = [](const ceres::LossFunction* f, const ceres::LossFunction* g) {
    return std::make_unique<ComposedLoss>(
        f, ceres::DO_NOT_TAKE_OWNERSHIP, g, ceres::DO_NOT_TAKE_OWNERSHIP);
  };
  ExpectConsistent(*composed(&geman_mcclure, &weighted));
  ExpectConsistent(*composed(&opaque, &weighted), 0.02, 1e6, 1.0);
  ExpectConsistent(*composed(&weighted, nullptr));
  ExpectConsistent(*composed(&many, &cauchy));
  EXPECT_EQ(composed(&geman_mcclure, &weighted)->parameter_blocks()[1].values, &log_weight);
  EXPECT_EQ(composed(&geman_mcclure, &weighted)->parameter_blocks()[2].values, &log_scale);

  const ceres::CauchyLoss f(1.3);
  const ceres::ComposedLoss reference(
      &f, ceres::DO_NOT_TAKE_OWNERSHIP, &opaque, ceres::DO_NOT_TAKE_OWNERSHIP);
  ExpectSameLoss(*composed(&f, &opaque), reference);
}

class CountedLoss : public ceres::LossFunction {
 public:
  explicit CountedLoss(int* deleted) : deleted_(deleted) {}
  ~CountedLoss() override { ++*deleted_; }
  void Evaluate(double s, double rho[3]) const override {
    rho[0] = s;
    rho[1] = 1.0;
    rho[2] = 0.0;
  }

 private:
  int* deleted_;
};

TEST(Wrappers, Ownership) {
  double theta = 0.0;
  int deleted = 0;
  { WeightedLoss(new CountedLoss(&deleted), &theta, ceres::TAKE_OWNERSHIP); }
  EXPECT_EQ(deleted, 1);
  CountedLoss kept(&deleted);
  { WeightedLoss(&kept, &theta, ceres::DO_NOT_TAKE_OWNERSHIP); }
  EXPECT_EQ(deleted, 1);
  {
    ComposedLoss(
        &kept, ceres::DO_NOT_TAKE_OWNERSHIP, new CountedLoss(&deleted), ceres::TAKE_OWNERSHIP);
  }
  EXPECT_EQ(deleted, 2);
}

// The lines compile and mean the same, see the expressions on the right.
TEST(Losses, DescribeCanBePasted) {
  double log_scale = std::log(1.07), alpha = 0.5, log_sigma = std::log(0.25);
  const CauchyLoss cauchy(&log_scale);
  const BarronLoss barron(&alpha, &log_scale);
  const NoiseScaleLoss noise(&cauchy, &log_sigma, ceres::DO_NOT_TAKE_OWNERSHIP);
  const NoiseScaleLoss plain_noise(nullptr, &log_sigma, ceres::DO_NOT_TAKE_OWNERSHIP);
  const WeightedLoss weighted(&barron, &log_sigma, ceres::DO_NOT_TAKE_OWNERSHIP);
#define EXPECT_DESCRIBED(loss, expression)                                         \
  {                                                                                \
    std::string text = #expression;                                                \
    EXPECT_EQ((loss).Describe(), text);                                            \
    ExpectSameLoss(loss, *std::unique_ptr<const ceres::LossFunction>(expression)); \
  }
  EXPECT_DESCRIBED(cauchy, new ceres::CauchyLoss(1.07));
  EXPECT_DESCRIBED(HuberLoss(&log_scale), new ceres::HuberLoss(1.07));
  EXPECT_DESCRIBED(TukeyLoss(&log_scale), new ceres::TukeyLoss(1.07));
  EXPECT_DESCRIBED(WelschLoss(&log_scale), new bilevel::WelschLoss(1.07));
  EXPECT_DESCRIBED(GemanMcClureLoss(&log_scale), new bilevel::GemanMcClureLoss(1.07));
  EXPECT_DESCRIBED(barron, new bilevel::BarronLoss(0.5, 1.07));
  EXPECT_DESCRIBED(plain_noise, new ceres::ScaledLoss(nullptr, 16, ceres::TAKE_OWNERSHIP));
  EXPECT_DESCRIBED(
      noise,
      new ceres::ComposedLoss(new ceres::CauchyLoss(1.07),
                              ceres::TAKE_OWNERSHIP,
                              new ceres::ScaledLoss(nullptr, 16, ceres::TAKE_OWNERSHIP),
                              ceres::TAKE_OWNERSHIP));
  EXPECT_DESCRIBED(
      weighted,
      new ceres::ScaledLoss(new bilevel::BarronLoss(0.5, 1.07), 0.25, ceres::TAKE_OWNERSHIP));
#undef EXPECT_DESCRIBED
}

struct Offset {
  template <typename T>
  bool operator()(const T* y, T* residual) const {
    residual[0] = y[0] - value;
    return true;
  }
  double value;
};

// Two measurements 0 and 1 with noise scales 1 and sigma: y = 1 / (1 + sigma^2) at theta's value of
// the moment.
TEST(Losses, CeresSolveUsesTheBoundParameters) {
  double log_sigma = 0.0, y = 0.5;
  ceres::Problem problem;
  for (const double value : {0.0, 1.0}) {
    problem.AddResidualBlock(
        new ceres::AutoDiffCostFunction<Offset, 1, 1>(new Offset{value}),
        value == 0.0 ? nullptr : new NoiseScaleLoss(nullptr, &log_sigma, ceres::TAKE_OWNERSHIP),
        &y);
  }
  ceres::Solver::Options options;
  options.function_tolerance = 1e-16;
  options.gradient_tolerance = 1e-14;
  for (const double sigma : {1.0, 0.5, 3.0}) {
    log_sigma = std::log(sigma);
    ceres::Solver::Summary summary;
    ceres::Solve(options, &problem, &summary);
    EXPECT_NEAR(y, 1.0 / (1.0 + sigma * sigma), 1e-8);
  }
}

}  // namespace
}  // namespace bilevel
