// The methods on minibatches: with batches of everything each is the recursion of its paper; on
// minibatches each solves a quadratic; what they may cost and how they fail.
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bilevel/base/internal/decompositions.h"
#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/adambo.h"
#include "bilevel/methods/stochastic/alset.h"
#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/bsa.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/fsla.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/methods/stochastic/ttsa.h"
#include "bilevel/methods/stochastic/vrbo.h"
#include "examples/support/learning/quadratic_sum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "test_problems.h"

namespace bilevel {
namespace {

using ::testing::HasSubstr;

Solver::Summary RunMethod(std::shared_ptr<Method> method,
                          int iterations,
                          QuadraticSum* sum,
                          unsigned seed = 1) {
  Problem problem;
  sum->AddTo(&problem);
  Solver::Options options;
  options.method = std::move(method);
  options.max_num_iterations = iterations;
  options.seed = seed;
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  return summary;
}

// A sum of 64 terms in blocks of four, from zero with constant steps.
template <typename TheMethod>
Solver::Summary RunFromZero(QuadraticSum* sum, Batch::Sampling sampling) {
  typename TheMethod::Options options;
  options.sampling = sampling;
  options.lower_batch = options.upper_batch = 4;
  options.lower.step = 0.1;
  options.lower.decay_exponent = options.x.decay_exponent = 0.0;
  options.x.step = 0.03;
  options.solve_lower_level = false;
  sum->x.setZero();
  sum->y.setZero();
  return RunMethod(std::make_shared<TheMethod>(options), 20000, sum);
}

// What the recursions of the papers are made of when there is no noise.
struct Exact {
  explicit Exact(const QuadraticSum& sum)
      : s(sum), x(sum.x), y(sum.y), z(Vector::Zero(sum.y.size())) {}
  Vector gy(const Vector& at) const { return s.mean_h * at - s.mean_c * x - s.mean_d; }
  Vector fy(const Vector& at) const { return at - s.mean_b; }
  Vector jz(const Vector& v) const { return -s.mean_c.transpose() * v; }
  Vector Truncated(int q_max, double eta) const {
    Vector u = fy(y), sum = u;
    for (int q = 0; q < q_max; ++q) {
      u -= eta * s.mean_h * u;
      sum += u;
    }
    return s.rho * x - jz(eta * sum);
  }
  const QuadraticSum& s;
  Vector x, y, z;
};

template <typename Options>
Options Everything() {
  Options options;
  options.lower_batch = options.upper_batch = 0;
  options.solve_lower_level = false;
  return options;
}

// The constants of the authors of SLIP and BO-REP.
template <typename Options>
Options GivenSlip() {
  auto options = Everything<Options>();
  options.y.step = options.x.step = options.warm_start_step = 0.05;
  options.z.step = 0.01;
  options.x.decay_exponent = 0.0;
  return options;
}

template <typename Options>
Options GivenNeumann() {
  auto options = Everything<Options>();
  options.y.step = options.x.step = options.neumann.step = 0.1;
  options.neumann.length = 10;
  return options;
}

// 40 iterations of the method and of the recursion, side by side.
template <typename TheMethod>
void ExpectSameAsRecursion(const typename TheMethod::Options& options,
                           const std::function<void(int k, Exact* e)>& recursion) {
  QuadraticSum sum(12, 4, 5, 0.4);
  sum.x.setConstant(0.7);
  sum.y.setConstant(-0.2);
  Exact exact(sum);
  for (int k = 0; k < 40; ++k) recursion(k, &exact);
  const Solver::Summary summary = RunMethod(std::make_shared<TheMethod>(options), 40, &sum);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_LT((sum.x - exact.x).lpNorm<Eigen::Infinity>(), 1e-12) << summary.method;
  EXPECT_LT((sum.y - exact.y).lpNorm<Eigen::Infinity>(), 1e-12) << summary.method;
  EXPECT_GT((sum.x.array() - 0.7).matrix().norm(), 1e-3) << summary.method;
}

double Decay(double step, int k, double exponent) {
  return step * std::pow(1.0 + k / 100.0, -exponent);
}

TEST(DeterministicLimit, SobaAndItsKin) {
  const auto soba = [](double rho, double gamma) {
    return [=](int /*k*/, Exact* e) {
      const Vector dx = e->s.rho * e->x - e->jz(e->z), dy = e->gy(e->y);
      const Vector dz = e->s.mean_h * e->z - e->fy(e->y);
      e->x -= gamma * dx;
      e->y -= rho * dy;
      e->z -= rho * dz;
    };
  };
  {
    auto options = Everything<Soba::Options>();
    options.lower = {0.2, 0.0, 1.0};
    options.x.step = 0.1;
    options.x.decay_exponent = 0.0;
    ExpectSameAsRecursion<Soba>(options, soba(0.2, 0.1));
  }
  {
    auto options = Everything<Saba::Options>();
    options.lower.step = 0.2;
    options.x.step = 0.1;
    ExpectSameAsRecursion<Saba>(options, soba(0.2, 0.1));
  }
  {
    auto options = Everything<Srba::Options>();
    options.lower.step = 0.2;
    options.x.step = 0.1;
    options.period = 7;
    ExpectSameAsRecursion<Srba>(options, soba(0.2, 0.1));
  }
  {
    auto options = Everything<Svrb::Options>();
    options.lower = {0.2, 0.0, 1.0};
    options.x.step = 0.1;
    options.x.decay_exponent = 0.0;
    ExpectSameAsRecursion<Svrb>(options, soba(0.2, 0.1));
  }
  {
    auto options = Everything<PnpBo::Options>();
    options.lower.step = 0.2;
    options.x.step = 0.1;
    ExpectSameAsRecursion<PnpBo>(options, soba(0.2, 0.1));
    options.of_z = PnpBo::kSgd;
    options.of_x = PnpBo::kPage;
    ExpectSameAsRecursion<PnpBo>(options, soba(0.2, 0.1));
  }
}

TEST(DeterministicLimit, MaSoba) {
  auto options = Everything<MaSoba::Options>();
  options.x.step = 0.01;
  options.x.decay_time = 100.0;
  options.lower = {0.1, 0.5, 100.0};
  options.average = options.lower;
  Vector h = Vector::Zero(4);
  ExpectSameAsRecursion<MaSoba>(options, [&](int k, Exact* e) {
    const Vector w = e->s.rho * e->x - e->jz(e->z), dy = e->gy(e->y);
    const Vector dz = e->s.mean_h * e->z - e->fy(e->y);
    e->x -= Decay(0.01, k, 0.5) * h;
    e->y -= Decay(0.1, k, 0.5) * dy;
    e->z -= Decay(0.1, k, 0.5) * dz;
    h += Decay(0.1, k, 0.5) * (w - h);
  });
}

TEST(DeterministicLimit, Slip) {
  auto options = GivenSlip<Slip::Options>();
  options.x.decay_exponent = 0.75;
  options.x.decay_time = 100.0;
  for (const bool one_sample : {false, true}) {
    options.one_sample = one_sample;
    Vector m = Vector::Zero(4);
    ExpectSameAsRecursion<Slip>(options, [&](int k, Exact* e) {
      for (int t = 0; k == 0 && t < 3; ++t) e->y -= 0.05 * e->gy(e->y);
      const Vector w = e->s.rho * e->x - e->jz(e->z), dy = e->gy(e->y);
      const Vector dz = e->s.mean_h * e->z - e->fy(e->y);
      m = 0.9 * m + 0.1 * w;
      e->y -= 0.05 * dy;
      e->z -= 0.01 * dz;
      e->x -= Decay(0.05, k, 0.75) / m.norm() * m;
    });
  }
}

TEST(DeterministicLimit, BoRep) {
  auto options = GivenSlip<BoRep::Options>();
  options.epoch_step = 0.05;
  options.radius = 0.01;  // Active at first.
  options.num_epochs = 2;
  options.first_epoch = 4;
  options.epoch_radius = 0.3;
  Vector m = Vector::Zero(4);
  ExpectSameAsRecursion<BoRep>(options, [&](int k, Exact* e) {
    const auto projected = [&](const Vector& centre, double step, double radius) {
      e->y -= step * e->gy(e->y);
      const double distance = (e->y - centre).norm();
      if (distance > radius) e->y = centre + radius / distance * (e->y - centre);
    };
    for (int epoch = 0; k == 0 && epoch < 2; ++epoch) {
      const Vector centre = e->y;
      Vector mean = Vector::Zero(5);
      const int steps = 4 << epoch;
      for (int t = 0; t < steps; ++t) {
        projected(centre, 0.05 / (1 << epoch), 0.3 / std::pow(2.0, epoch / 2.0));
        mean += e->y / steps;
      }
      e->y = mean;
    }
    if (k > 0 && k % 2 == 0) {
      const Vector centre = e->y;
      for (int t = 0; t < 3; ++t) projected(centre, 0.05, 0.01);
    }
    const Vector w = e->s.rho * e->x - e->jz(e->z);
    e->z -= 0.01 * (e->s.mean_h * e->z - e->fy(e->y));
    m = 0.9 * m + 0.1 * w;
    e->x -= 0.05 / m.norm() * m;
  });
}

// T lower steps, then x by the truncated series at the new y.
template <typename TheMethod>
void ExpectNeumann(typename TheMethod::Options options) {
  options.neumann.kind = Neumann::kTruncated;
  options.neumann.log_growth = 1.5;
  options.y.decay_time = options.x.decay_time = 100.0;
  const auto own = options;
  ExpectSameAsRecursion<TheMethod>(options, [own](int k, Exact* e) {
    for (int t = 0; t < own.num_lower_steps; ++t) e->y -= own.y.At(k) * e->gy(e->y);
    const int q = own.neumann.length + static_cast<int>(std::ceil(1.5 * std::log(1.0 + k)));
    e->x -= own.x.At(k) * e->Truncated(q, own.neumann.step);
  });
}

TEST(DeterministicLimit, NeumannMethods) {
  ExpectNeumann<Ttsa>(GivenNeumann<Ttsa::Options>());
  ExpectNeumann<Alset>(GivenNeumann<Alset::Options>());
  ExpectNeumann<StocBiO>(GivenNeumann<StocBiO::Options>());
  // The randomised series of length 1 is its mean.
  auto options = GivenNeumann<Ttsa::Options>();
  options.neumann.length = 1;
  ExpectSameAsRecursion<Ttsa>(options, [](int k, Exact* e) {
    e->y -= Decay(0.1, k, 0.4) * e->gy(e->y);
    e->x -= Decay(0.1, k, 0.6) * e->Truncated(0, 0.1);
  });
  auto bsa = GivenNeumann<Bsa::Options>();
  bsa.neumann.length = 1;
  bsa.num_lower_steps = 2;
  ExpectSameAsRecursion<Bsa>(bsa, [](int k, Exact* e) {
    for (int t = 0; t < std::ceil(2.0 * std::sqrt(1.0 + k)); ++t) {
      e->y -= Decay(0.1, t, 1.0) * e->gy(e->y);
    }
    e->x -= Decay(0.1, k, 0.5) * e->Truncated(0, 0.1);
  });
}

TEST(DeterministicLimit, SustainAndMrbo) {
  // y and x at once, from (x, y)_k.
  const auto recursion = [](int k, Exact* e) {
    const Vector u = e->gy(e->y), v = e->Truncated(10, 0.1);
    e->y -= Decay(0.1, k, 1.0 / 3.0) * u;
    e->x -= Decay(0.1, k, 1.0 / 3.0) * v;
  };
  ExpectSameAsRecursion<Mrbo>(GivenNeumann<Mrbo::Options>(), recursion);
  auto sustain = GivenNeumann<Sustain::Options>();
  sustain.neumann.length = 1;
  ExpectSameAsRecursion<Sustain>(sustain, [](int k, Exact* e) {
    const Vector u = e->gy(e->y), v = e->Truncated(0, 0.1);
    e->y -= Decay(0.1, k, 1.0 / 3.0) * u;
    e->x -= Decay(0.1, k, 1.0 / 3.0) * v;
  });
}

TEST(DeterministicLimit, Fsla) {
  auto options = Everything<Fsla::Options>();
  options.y.step = options.z.step = 0.2;
  options.x.step = 0.1;
  Vector d, before;
  ExpectSameAsRecursion<Fsla>(options, [&](int k, Exact* e) {
    e->y -= Decay(0.2, k, 0.5) * e->gy(e->y);
    e->z -= Decay(0.2, k, 0.5) * (e->s.mean_h * e->z - e->fy(e->y));
    const Vector now = e->s.rho * e->x - e->jz(e->z);
    d = k == 0 ? now : Vector(now + (1.0 - Decay(0.5, k, 0.5)) * (d - before));
    before = now;
    e->x -= Decay(0.1, k, 0.5) * d;
  });
}

TEST(DeterministicLimit, AdamBo) {
  for (const bool reduced : {false, true}) {
    auto options = GivenNeumann<AdamBo::Options>();
    options.x.step = 0.02;
    options.x.decay_exponent = 0.0;
    options.variance_reduction = reduced;
    Vector m = Vector::Zero(4), v = m, d, before;
    ExpectSameAsRecursion<AdamBo>(options, [&](int k, Exact* e) {
      for (int t = 0; k == 0 && t < 3; ++t) e->y -= 0.1 * e->gy(e->y);
      const Vector h = e->Truncated(10, 0.1);
      e->y -= 0.1 * e->gy(e->y);
      m = 0.9 * m + 0.1 * h;
      v = 0.999 * v + 0.001 * h.cwiseAbs2();
      d = k == 0 ? h : Vector(0.9 * d + 0.1 * h + 0.9 * (h - before));
      before = h;
      const Vector mean = reduced ? d : Vector(m / (1.0 - std::pow(0.9, k + 1)));
      const Vector root = (v / (1.0 - std::pow(0.999, k + 1))).cwiseSqrt();
      e->x -= 0.02 * (mean.array() / (root.array() + 1e-8)).matrix();
    });
  }
}

// Algorithm 2 of the paper to the letter: T = m + 1, and y_{k+1} is the last point at which u and v
// were taken.
TEST(DeterministicLimit, Vrbo) {
  auto options = GivenNeumann<Vrbo::Options>();
  options.period = 4;
  QuadraticSum sum(12, 4, 5, 0.4);
  sum.x.setConstant(0.7);
  sum.y.setConstant(-0.2);
  const auto u_at = [&](const Vector& x, const Vector& y) -> Vector {
    return sum.mean_h * y - sum.mean_c * x - sum.mean_d;
  };
  const auto v_at = [&](const Vector& x, const Vector& y) -> Vector {
    Vector w = y - sum.mean_b, z = 0.1 * w;
    for (int q = 0; q < 10; ++q) z += 0.1 * (w -= 0.1 * sum.mean_h * w);
    return sum.rho * x + sum.mean_c.transpose() * z;
  };
  Vector x = sum.x, y = sum.y, u, v;
  for (int k = 0; k < 20; ++k) {
    if (k % 4 == 0) {
      u = u_at(x, y);
      v = v_at(x, y);
    }
    Vector x_before = x, y_before = y, y_next = y;
    x -= 0.1 * v;
    for (int t = 0; t <= options.num_lower_steps; ++t) {
      y = y_next;
      u += u_at(x, y) - u_at(x_before, y_before);
      v += v_at(x, y) - v_at(x_before, y_before);
      y_next = y - 0.1 * u;
      x_before = x;
      y_before = y;
    }
  }
  const Solver::Summary summary = RunMethod(std::make_shared<Vrbo>(options), 20, &sum);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_LT((sum.x - x).lpNorm<Eigen::Infinity>(), 1e-12);
  EXPECT_LT((sum.y - y).lpNorm<Eigen::Infinity>(), 1e-12);
}

TEST(DeterministicLimit, Amigo) {
  auto options = Everything<Amigo::Options>();
  options.y.step = options.z.step = options.x.step = 0.1;
  ExpectSameAsRecursion<Amigo>(options, [](int /*k*/, Exact* e) {
    for (int t = 0; t < 10; ++t) e->y -= 0.1 * e->gy(e->y);
    for (int t = 0; t < 10; ++t) e->z -= 0.1 * (e->s.mean_h * e->z - e->fy(e->y));
    e->x -= 0.1 * (e->s.rho * e->x - e->jz(e->z));
  });
}

TEST(DeterministicLimit, F2sa) {
  for (const bool momentum : {false, true}) {
    auto options = Everything<F2sa::Options>();
    options.momentum = momentum;
    options.alpha.step = 0.02;
    options.gamma.step = 0.1;
    options.xi = 1.0;
    Vector w = Vector::Constant(5, -0.2);
    ExpectSameAsRecursion<F2sa>(options, [&](int k, Exact* e) {
      const double alpha = Decay(0.02, k, 5.0 / 7.0), gamma = Decay(0.1, k, 4.0 / 7.0);
      const double lambda = gamma / (2.0 * alpha);
      w -= gamma * e->gy(w);
      e->y -= alpha * (e->fy(e->y) + lambda * e->gy(e->y));
      e->x -= alpha * (e->s.rho * e->x - lambda * e->s.mean_c.transpose() * (e->y - w));
    });
  }
}

TEST(Slip, OneLowerStepAnIterationAndStepsOfLengthEta) {
  QuadraticSum sum(40, 4, 5, 0.4);
  sum.x.setConstant(0.7);
  Slip::Options options;
  options.lower_batch = options.upper_batch = 8;
  options.num_warm_start_steps = 5;
  options.y.step = options.x.step = options.warm_start_step = 0.05;
  options.z.step = 0.01;
  options.x.decay_exponent = 0.0;
  options.report_interval = 1;
  options.solve_lower_level = false;
  const Solver::Summary summary = RunMethod(std::make_shared<Slip>(options), 60, &sum);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_EQ(summary.lower.gradients, 5 + 60);
  EXPECT_EQ(summary.lower.products, 60);
  EXPECT_EQ(summary.lower.values, 0);
  EXPECT_EQ(summary.upper.gradients, 60);
  EXPECT_EQ(summary.upper.values, 0);
  EXPECT_EQ(summary.lower.samples, 8 * (5 + 2 * 60));
  EXPECT_EQ(summary.upper.samples, 8 * 60);
  EXPECT_EQ(summary.lower_epochs, 8 * (5 + 2 * 60) / 40.0);
  EXPECT_EQ(summary.upper_epochs, 8 * 60 / 40.0);
  EXPECT_EQ(summary.iterations[30].lower_epochs, 8 * (5 + 2 * 30) / 40.0);
  EXPECT_THAT(summary.FullReport(), HasSubstr("1000 (25 epochs)"));
  EXPECT_THAT(summary.Csv(), HasSubstr("upper_epochs,lower_epochs,seconds"));
  EXPECT_THAT(summary.Json(),
              HasSubstr("\"gradients\": 65, \"products\": 60, \"jacobians\": 0, "
                        "\"samples\": 1000, \"epochs\": 25}"));
  ASSERT_EQ(summary.iterations.size(), 61u);
  for (int k = 1; k <= 60; ++k) {
    const Eigen::Map<const Vector> before(summary.iterations[k - 1].x.data(), 4);
    const Eigen::Map<const Vector> after(summary.iterations[k].x.data(), 4);
    EXPECT_NEAR((after - before).norm(), 0.05, 1e-14);
    EXPECT_EQ(summary.iterations[k].iteration, k);
  }
}

// On finite sums these two end where the gradient does, not where the noise leaves them.
TEST(VarianceReduction, SabaAndSrbaReachTheSolution) {
  QuadraticSum sum(64, 4, 5, 0.4);
  const auto expect_solved = [&](const Solver::Summary& summary) {
    ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
    EXPECT_LT(sum.Hypergradient(sum.x).norm(), 1e-12) << summary.method;
    EXPECT_LT((sum.y - sum.LowerSolution(sum.x)).norm(), 1e-12) << summary.method;
  };
  for (const Batch::Sampling sampling : {Batch::kBlocks, Batch::kShuffledBlocks}) {
    expect_solved(RunFromZero<Saba>(&sum, sampling));
  }
  for (const Batch::Sampling sampling : {Batch::kIndependent, Batch::kShuffled}) {
    expect_solved(RunFromZero<Srba>(&sum, sampling));
    expect_solved(RunFromZero<Spaba>(&sum, sampling));
  }
}

// Whichever of them estimates which direction; with one noisy direction it is not so.
TEST(VarianceReduction, AnyMixtureWithoutNoiseReachesTheSolution) {
  QuadraticSum sum(64, 4, 5, 0.4);
  const auto distance = [&](PnpBo::Estimator y, PnpBo::Estimator z, PnpBo::Estimator x, bool coin) {
    PnpBo::Options options;
    options.of_y = y;
    options.of_z = z;
    options.of_x = x;
    options.tosses_coin = coin;
    options.lower_batch = options.upper_batch = 4;
    options.lower.step = 0.1;
    options.x.step = 0.03;
    options.eta = {0.3, 0.0, 1.0};
    options.solve_lower_level = false;
    if (y == z) options.average = Schedule{0.5, 0.0, 1.0};
    sum.x.setZero();
    sum.y.setZero();
    const auto method = std::make_shared<PnpBo>(options);
    EXPECT_TRUE(RunMethod(method, 12000, &sum).IsSolutionUsable());
    return sum.Hypergradient(sum.x).norm() + (sum.y - sum.LowerSolution(sum.x)).norm();
  };
  const auto without_noise = {PnpBo::kPage, PnpBo::kSaga, PnpBo::kZeroSarah};
  for (const auto y : without_noise) {
    for (const auto z : without_noise) {
      for (const auto x : without_noise) {
        EXPECT_LT(distance(y, z, x, (y + z + x) % 2 == 0), 1e-12) << y << " " << z << " " << x;
      }
    }
  }
  for (const auto noisy : {PnpBo::kSgd, PnpBo::kStorm}) {
    EXPECT_GT(distance(noisy, PnpBo::kSaga, PnpBo::kPage, false), 1e-5);
    EXPECT_GT(distance(PnpBo::kPage, noisy, PnpBo::kZeroSarah, false), 1e-5);
    EXPECT_GT(distance(PnpBo::kZeroSarah, PnpBo::kSaga, noisy, false), 1e-5);
  }
}

// Plain steps hover at a distance that the step sets; the table that reduced the noise must not.
TEST(VarianceReduction, SobaHovers) {
  QuadraticSum sum(64, 4, 5, 0.4);
  RunFromZero<Soba>(&sum, Batch::kIndependent);
  EXPECT_GT(sum.Hypergradient(sum.x).norm(), 1e-4);
  EXPECT_LT(sum.Hypergradient(sum.x).norm(), 0.5);
}

std::vector<std::shared_ptr<Method>> OnMinibatches(int batch, Batch::Sampling sampling) {
  std::vector<std::shared_ptr<Method>> methods;
  const auto add = [&](auto options, auto method) {
    options.lower_batch = options.upper_batch = batch;
    options.solve_lower_level = false;
    if (options.sampling == Batch::kIndependent) options.sampling = sampling;
    using TheMethod = typename decltype(method)::type;
    methods.push_back(std::make_shared<TheMethod>(options));
  };
  Slip::Options slip;
  slip.x.decay_exponent = slip.y.decay_exponent = slip.z.decay_exponent = 0.5;
  slip.x.decay_exponent = 0.75;
  slip.x.decay_time = slip.y.decay_time = slip.z.decay_time = 100.0;
  slip.y.step = slip.z.step = 0.2;
  slip.x.step = 0.05;
  add(slip, std::common_type<Slip>());
  BoRep::Options bo_rep;
  static_cast<Slip::Options&>(bo_rep) = slip;
  add(bo_rep, std::common_type<BoRep>());
  add(Soba::Options(), std::common_type<Soba>());
  add(Saba::Options(), std::common_type<Saba>());
  MaSoba::Options ma_soba;
  ma_soba.average->step = 0.3;
  ma_soba.lower.step = 0.4;
  ma_soba.x.step = 0.1;
  add(ma_soba, std::common_type<MaSoba>());
  Bsa::Options bsa;
  bsa.neumann.step = 0.3;
  bsa.num_lower_steps = 2;
  add(bsa, std::common_type<Bsa>());
  Ttsa::Options ttsa;
  ttsa.neumann.step = 0.3;
  add(ttsa, std::common_type<Ttsa>());
  Alset::Options alset;
  alset.neumann.step = 0.3;
  add(alset, std::common_type<Alset>());
  StocBiO::Options stocbio;
  stocbio.neumann.step = 0.3;
  stocbio.x.decay_exponent = stocbio.y.decay_exponent = 0.5;
  stocbio.x.decay_time = stocbio.y.decay_time = 100.0;
  add(stocbio, std::common_type<StocBiO>());
  Amigo::Options amigo;
  amigo.x.decay_exponent = amigo.y.decay_exponent = amigo.z.decay_exponent = 0.5;
  amigo.x.decay_time = amigo.y.decay_time = amigo.z.decay_time = 100.0;
  add(amigo, std::common_type<Amigo>());
  for (const bool momentum : {false, true}) {
    F2sa::Options f2sa;
    f2sa.momentum = momentum;
    f2sa.alpha.step = 0.02;
    f2sa.gamma.step = 0.3;
    f2sa.xi = 2.0;
    add(f2sa, std::common_type<F2sa>());
  }
  Sustain::Options sustain;
  sustain.neumann.step = 0.3;
  sustain.neumann.length = 10;
  add(sustain, std::common_type<Sustain>());
  Mrbo::Options mrbo;
  mrbo.neumann.step = 0.3;
  add(mrbo, std::common_type<Mrbo>());
  Vrbo::Options vrbo;
  vrbo.neumann.step = 0.3;
  add(vrbo, std::common_type<Vrbo>());
  add(Svrb::Options(), std::common_type<Svrb>());
  add(Srba::Options(), std::common_type<Srba>());
  add(Spaba::Options(), std::common_type<Spaba>());
  add(PnpBo::Options(), std::common_type<PnpBo>());
  add(Fsla::Options(), std::common_type<Fsla>());
  AdamBo::Options adambo;
  adambo.neumann.step = 0.3;
  add(adambo, std::common_type<AdamBo>());
  adambo.variance_reduction = true;
  add(adambo, std::common_type<AdamBo>());
  return methods;
}

TEST(Minibatches, EveryMethodApproachesTheSolutionWhateverTheSampling) {
  for (const Batch::Sampling sampling : {Batch::kIndependent,
                                         Batch::kDistinct,
                                         Batch::kShuffled,
                                         Batch::kBlocks,
                                         Batch::kShuffledBlocks}) {
    for (const auto& method : OnMinibatches(4, sampling)) {
      QuadraticSum sum(64, 3, 4, 0.3, 0.5);
      const double start = sum.Hypergradient(sum.x).norm();
      const Solver::Summary summary = RunMethod(method, 2000, &sum);
      ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      // Six samples an iteration, their difference times lambda: the noisiest of all.
      const bool first_order = summary.method == "f2sa" || summary.method == "f3sa";
      EXPECT_LT(sum.Hypergradient(sum.x).norm(), (first_order ? 0.6 : 0.25) * start)
          << summary.method << " sampling " << sampling;
    }
  }
}

struct Coupled {
  template <typename T>
  bool operator()(const T* x, const T* y, T* r) const {
    r[0] = y[0] - x[0] * c - s;
    r[1] = y[1] + x[1] * s - c * y[0] * 0.1;
    return true;
  }
  double c, s;
};
struct Goal {
  template <typename T>
  bool operator()(const T* y, T* r) const {
    r[0] = y[0] - a;
    r[1] = y[1] + 0.5 * a;
    return true;
  }
  double a;
};

TEST(Minibatches, SameSeedSameAnswerWhateverTheThreads) {
  // Of residual blocks, whose evaluation is shared among threads.
  for (const char* name : {"slip", "soba", "saba", "sustain", "srba", "f2sa"}) {
    std::vector<double> answers;
    for (const int threads : {1, 2, 3}) {
      double x[2] = {0.0, 0.0}, y[2] = {0.0, 0.0};
      Problem problem;
      problem.AddUpperParameterBlock(x, 2);
      constexpr int kTerms = 256;
      for (int i = 0; i < kTerms; ++i) {
        auto* weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
        problem.lower()->AddResidualBlock(new AutoDiffCostFunction<Coupled, 2, 2, 2>(
                                              new Coupled{1.0 + 0.3 * std::cos(i), std::sin(i)}),
                                          weight,
                                          x,
                                          y);
        weight = new ceres::ScaledLoss(nullptr, 1.0 / kTerms, ceres::TAKE_OWNERSHIP);
        problem.upper()->AddResidualBlock(
            new AutoDiffCostFunction<Goal, 2, 2>(new Goal{1.0 + 0.1 * std::sin(2.0 * i)}),
            weight,
            y);
      }
      Solver::Options options;
      options.method = CreateMethod(name);
      ASSERT_TRUE(options.method) << name;
      options.num_threads = threads;
      options.max_num_iterations = 50;
      Solver::Summary summary;
      Solve(options, &problem, &summary);
      ASSERT_TRUE(summary.IsSolutionUsable()) << name << "\n" << summary.FullReport();
      answers.push_back(summary.iterations.back().x[0]);
    }
    EXPECT_EQ(answers[0], answers[1]) << name;
    EXPECT_EQ(answers[0], answers[2]) << name;
    EXPECT_NE(answers[0], 0.0) << name;
  }
}

TEST(BadInput, BatchesSamplingAndSteps) {
  const auto complaint = [](auto options, auto method, double noise = 0.3) {
    using TheMethod = typename decltype(method)::type;
    QuadraticSum sum(16, 2, 3, noise);
    const Solver::Summary summary = RunMethod(std::make_shared<TheMethod>(options), 400, &sum);
    EXPECT_EQ(summary.termination_type, ceres::FAILURE);
    return summary.message;
  };
  Soba::Options soba;
  soba.lower_batch = 17;
  EXPECT_THAT(complaint(soba, std::common_type<Soba>()), HasSubstr("soba.lower_batch is 17"));
  soba.lower_batch = -1;
  EXPECT_THAT(complaint(soba, std::common_type<Soba>()), HasSubstr("must not be negative"));
  soba.lower_batch = 4;
  soba.upper_batch = 100;
  EXPECT_THAT(complaint(soba, std::common_type<Soba>()), HasSubstr("soba.upper_batch is 100"));
  soba.upper_batch = 4;
  soba.x.step = -1.0;
  EXPECT_THAT(complaint(soba, std::common_type<Soba>()), HasSubstr("soba.x.step must be positive"));
  Saba::Options saba;
  saba.lower_batch = saba.upper_batch = 4;
  saba.sampling = Batch::kIndependent;
  EXPECT_THAT(complaint(saba, std::common_type<Saba>()), HasSubstr("kBlocks"));
  // L of the quadratic is about 2.
  Soba::Options wild;
  wild.lower_batch = wild.upper_batch = 4;
  wild.lower.step = 10.0;
  wild.lower.decay_exponent = 0.0;
  const std::string message = complaint(wild, std::common_type<Soba>());
  EXPECT_THAT(message, HasSubstr("above the limit of stability 2 / L = "));
  const double limit = std::stod(message.substr(message.find("2 / L = ") + 8));
  QuadraticSum sum(16, 2, 3, 0.3);
  const double largest = SymmetricEigen(sum.mean_h).eigenvalues().maxCoeff();
  EXPECT_NEAR(limit, 2.0 / largest, 1e-5);
}

// One sample of a sum is bad.
class Poisoned : public QuadraticSum::Lower {
 public:
  Poisoned(const QuadraticSum* sum, int bad) : QuadraticSum::Lower(sum), bad_(bad) {}
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override {
    if (!QuadraticSum::Lower::Evaluate(blocks, batch, value, gradients)) return false;
    for (int k = 0; k < batch.Count(num_terms()); ++k) {
      if (batch.Term(k, num_terms()) != bad_ || blocks[1][0] == 0.0) continue;  // Not yet.
      (gradients && gradients[1] ? gradients[1][0] : *value) =
          std::numeric_limits<double>::quiet_NaN();
    }
    return true;
  }

 private:
  int bad_;
};

TEST(BadInput, ASampleThatIsNotFiniteIsNamed) {
  QuadraticSum sum(32, 2, 3, 0.3);
  Problem problem;
  problem.AddUpperParameterBlock(sum.x.data(), 2);
  problem.AddTerm(
      Level::kLower, std::make_unique<Poisoned>(&sum, 19), {{sum.x.data(), 2}, {sum.y.data(), 3}});
  problem.AddTerm(Level::kUpper,
                  std::make_unique<QuadraticSum::Upper>(&sum),
                  {{sum.x.data(), 2}, {sum.y.data(), 3}});
  Soba::Options soba;
  soba.lower_batch = soba.upper_batch = 4;
  Solver::Options options;
  options.method = std::make_shared<Soba>(soba);
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("general term 0 of the lower problem"));
  EXPECT_THAT(summary.message, HasSubstr("(sample 19)"));
}

// Fresh samples for ever, or until it ends: y - b with b ~ mean 1.
class Ticker : public Objective {
 public:
  explicit Ticker(uint64_t length) : length_(length) {}
  int num_terms() const override { return kStream; }
  bool Evaluate(double const* const* blocks,
                const Batch& batch,
                double* value,
                double** gradients) const override {
    if (batch.all() || batch.position >= length_) return false;
    *value = 0.0;
    if (gradients && gradients[0]) gradients[0][0] = 0.0;
    for (int k = 0; k < batch.size; ++k) {
      const double b = 0.5 + static_cast<double>(Mix(batch.seed + k) >> 11) * 0x1p-53;
      *value += 0.5 * (blocks[0][0] - b) * (blocks[0][0] - b) / batch.size;
      if (gradients && gradients[0]) gradients[0][0] += (blocks[0][0] - b) / batch.size;
    }
    return true;
  }

 private:
  uint64_t length_;
};

TEST(Streams, AreExpectationsAndMayEnd) {
  for (const uint64_t length : {1000000, 50}) {
    double x = 0.0, y = 0.0;
    Problem problem;
    problem.AddUpperParameterBlock(&x, 1);
    problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
    problem.AddTerm(Level::kUpper, std::make_unique<Ticker>(length), {{&y, 1}});
    Soba::Options soba;
    soba.lower_batch = 0;
    soba.upper_batch = 4;
    soba.lower.step = soba.x.step = 0.1;
    soba.solve_lower_level = false;
    Solver::Options options;
    options.method = std::make_shared<Soba>(soba);
    options.max_num_iterations = 2000;
    Solver::Summary summary;
    Solve(options, &problem, &summary);
    if (length > 50) {
      EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
      EXPECT_NEAR(x, 1.0, 0.1);
      EXPECT_TRUE(std::isnan(summary.upper_epochs));
      EXPECT_THAT(summary.FullReport(), HasSubstr("8000 of a stream"));
      EXPECT_THAT(summary.Json(), HasSubstr("\"epochs\": null"));
    } else {
      EXPECT_EQ(summary.termination_type, ceres::FAILURE);
      EXPECT_THAT(summary.message, HasSubstr("batch 50 of 4 samples of its stream"));
    }
    soba.upper_batch = 0;
    options.method = std::make_shared<Soba>(soba);
    Solve(options, &problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("is a stream"));
    soba.upper_batch = 4;
    soba.early_stopping.patience = 3;
    options.method = std::make_shared<Soba>(soba);
    Solve(options, &problem, &summary);
    EXPECT_THAT(summary.message, HasSubstr("soba.early_stopping.held_out must be given"));
  }
}

// Long steps hover: the estimate of phi soon stops to fall.
TEST(EarlyStopping, EndsTheRunAtTheBestEstimate) {
  QuadraticSum sum(64, 4, 5, 0.4);
  sum.x.setConstant(3.0);
  Soba::Options soba;
  soba.lower_batch = soba.upper_batch = 1;
  soba.lower = {0.3, 0.0, 1.0};
  soba.x.step = 0.3;
  soba.x.decay_exponent = 0.0;
  soba.solve_lower_level = false;
  soba.report_interval = 10;
  soba.early_stopping.patience = 7;
  const Vector user_x = sum.x;
  std::vector<Vector> seen;
  soba.early_stopping.held_out = [&] {
    seen.push_back(sum.x);
    return sum.Hypergradient(sum.x).norm();
  };
  const Solver::Summary summary = RunMethod(std::make_shared<Soba>(soba), 100000, &sum);
  // y was left unsolved by request.
  EXPECT_EQ(summary.termination_type, ceres::NO_CONVERGENCE);
  EXPECT_EQ(summary.answer, AnswerKind::kUndetermined);
  EXPECT_THAT(summary.message, HasSubstr("early stopping"));
  const std::vector<IterationSummary>& its = summary.iterations;
  ASSERT_GT(its.size(), 8u);
  ASSERT_EQ(seen.size(), its.size());
  size_t best = 0;
  for (size_t i = 0; i < its.size(); ++i) {
    const Eigen::Map<const Vector> x(its[i].x.data(), 4);
    EXPECT_EQ((seen[i] - x).norm(), 0.0);
    EXPECT_EQ(its[i].held_out, sum.Hypergradient(x).norm());
    if (its[i].held_out < its[best].held_out) best = i;
  }
  EXPECT_EQ(best, its.size() - 8);
  EXPECT_EQ((sum.x - Eigen::Map<const Vector>(its[best].x.data(), 4)).norm(), 0.0);
  EXPECT_THAT(summary.message, HasSubstr("in iteration " + std::to_string(its[best].iteration)));
  EXPECT_THAT(summary.Csv(), HasSubstr(",held_out,"));

  // The user's memory is the user's while the method runs: a callback sees the start.
  sum.x = user_x;
  class Look : public IterationCallback {
   public:
    explicit Look(const Vector* x) : x_(x), start_(*x) {}
    ceres::CallbackReturnType operator()(const IterationSummary&) override {
      EXPECT_EQ((*x_ - start_).norm(), 0.0);
      return ceres::SOLVER_CONTINUE;
    }

   private:
    const Vector* x_;
    const Vector start_;
  } look(&sum.x);
  // f over everything where no estimate is given; the best one also where the limit ends the run.
  soba.early_stopping = {1000, nullptr};
  Problem problem;
  sum.AddTo(&problem);
  Solver::Options options;
  options.method = std::make_shared<Soba>(soba);
  options.max_num_iterations = 500;
  options.callbacks = {&look};
  Solver::Summary limited;
  Solve(options, &problem, &limited);
  EXPECT_EQ(limited.termination_type, ceres::NO_CONVERGENCE);
  EXPECT_EQ(limited.upper.values, 51);
  const IterationSummary* least = &limited.iterations[0];
  for (const IterationSummary& it : limited.iterations) {
    if (it.held_out < least->held_out) least = &it;
  }
  EXPECT_EQ((sum.x - Eigen::Map<const Vector>(least->x.data(), 4)).norm(), 0.0);

  soba.early_stopping.held_out = [] { return std::nan(""); };
  const Solver::Summary failed = RunMethod(std::make_shared<Soba>(soba), 100, &sum);
  EXPECT_EQ(failed.termination_type, ceres::FAILURE);
  EXPECT_THAT(failed.message, HasSubstr("held-out estimate of phi is not finite"));
}

TEST(BadInput, NothingToDrawFrom) {
  double x = 0.0, y = 0.0;
  Problem problem;
  problem.AddUpperParameterBlock(&x, 1);
  const auto id = problem.lower()->AddResidualBlock(DifferenceCost(), nullptr, &y, &x);
  problem.upper()->AddResidualBlock(TargetCost(1.0), nullptr, &y);
  problem.SetSamplingWeight(id, Scenario::kInEveryBatch);
  Soba::Options soba;
  soba.lower_batch = 1;
  soba.upper_batch = 1;
  Solver::Options options;
  options.method = std::make_shared<Soba>(soba);
  Solver::Summary summary;
  Solve(options, &problem, &summary);
  EXPECT_EQ(summary.termination_type, ceres::FAILURE);
  EXPECT_THAT(summary.message, HasSubstr("no terms to draw from"));
  soba.lower_batch = 0;
  options.method = std::make_shared<Soba>(soba);
  options.max_num_iterations = 500;
  Solve(options, &problem, &summary);
  EXPECT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_NEAR(x, 1.0, 0.2);
  problem.SetSamplingWeight(id, -2.0);
  Solve(options, &problem, &summary);
  EXPECT_THAT(summary.message, HasSubstr("sampling weight"));
}

}  // namespace
}  // namespace bilevel
