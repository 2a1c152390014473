// Every method on minibatches beside the recursion of its paper in long double, over the same
// samples: each draw of a stream is replayed from the seed.
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/methods/stochastic/alset.h"
#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/bsa.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/pnpbo.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/methods/stochastic/ttsa.h"
#include "bilevel/methods/stochastic/vrbo.h"
#include "examples/support/learning/quadratic_sum.h"
#include "gtest/gtest.h"

namespace bilevel {
namespace {

using Real = long double;
using Vec = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using Mat = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

constexpr int kTerms = 64, kM = 4, kN = 5, kLowerBatch = 4, kUpperBatch = 3, kIterations = 30;
constexpr unsigned kSeed = 11;

// As StochasticMethod numbers its streams.
enum Stream { kY, kZ, kJ, kF, kP, kW };

// Terms and their weights in a mean.
using Sample = std::vector<std::pair<int, Real>>;

// The samples of one run, and what the papers' recursions are made of over them.
class Replay {
 public:
  Replay(const QuadraticSum& sum, const Oracle& oracle, Batch::Sampling sampling)
      : x(sum.x.cast<Real>()),
        y(sum.y.cast<Real>()),
        z(Vec::Zero(kN)),
        sum_(sum),
        oracle_(oracle),
        sampling_(sampling) {}

  Sample Lower(Stream stream, int size = kLowerBatch) { return Draw(stream, size); }
  Sample Upper(Stream stream, int size = kUpperBatch) { return Draw(stream, size); }
  static Sample All() {
    Sample sample;
    for (int i = 0; i < kTerms; ++i) sample.emplace_back(i, Real(1) / kTerms);
    return sample;
  }
  static Sample Block(int size, int number) {
    Sample sample;
    for (int i = size * number; i < std::min(kTerms, size * (number + 1)); ++i) {
      sample.emplace_back(i, Real((kTerms + size - 1) / size) / kTerms);
    }
    return sample;
  }
  // A length of Ghadimi's and Wang's series.
  int RandomLength(int k, int most) const {
    return oracle_.Draw(1, kP, static_cast<uint64_t>(k)).Term(0, most);
  }
  // The number of a drawn block.
  int BlockNumber(Stream stream, int size) {
    const Batch batch = oracle_.Draw(size, stream, next_[stream]++, sampling_);
    return batch.First(kTerms) / size;
  }

  Vec gy(const Sample& s, const Vec& at_x, const Vec& at_y) const {
    Vec sum = Vec::Zero(kN);
    for (const auto& [i, weight] : s) {
      sum += weight * (H(i) * at_y - C(i) * at_x - sum_.d[i].cast<Real>());
    }
    return sum;
  }
  Vec gy(const Sample& s, const Vec& at_y) const { return gy(s, x, at_y); }
  Vec gx(const Sample& s, const Vec& at_y) const { return Jz(s, at_y); }
  Vec Hz(const Sample& s, const Vec& v) const {
    Vec sum = Vec::Zero(kN);
    for (const auto& [i, weight] : s) sum += weight * (H(i) * v);
    return sum;
  }
  Vec Jz(const Sample& s, const Vec& v) const {
    Vec sum = Vec::Zero(kM);
    for (const auto& [i, weight] : s) sum -= weight * (C(i).transpose() * v);
    return sum;
  }
  Vec fy(const Sample& s, const Vec& at_y) const {
    Vec sum = Vec::Zero(kN);
    for (const auto& [j, weight] : s) sum += weight * (at_y - sum_.b[j].cast<Real>());
    return sum;
  }
  Vec fx(const Sample& s, const Vec& at_x) const {
    Vec sum = Vec::Zero(kM);
    for (const auto& [j, weight] : s) sum += weight * Real(sum_.rho) * at_x;
    return sum;
  }

  Vec x, y, z, m, h;  // m, h: a method's memory.

 private:
  Mat H(int i) const { return sum_.h[i].cast<Real>(); }
  Mat C(int i) const { return sum_.cs[i].cast<Real>(); }
  Sample Draw(Stream stream, int size) {
    Batch batch = oracle_.Draw(size, stream, next_[stream]++, sampling_);
    batch.seed = Mix(batch.seed);  // As a level's first general term draws.
    Sample sample;
    for (int k = 0; k < batch.Count(kTerms); ++k) {
      sample.emplace_back(batch.Term(k, kTerms), Real(batch.Weight(k, kTerms)) / kTerms);
    }
    return sample;
  }

  const QuadraticSum& sum_;
  const Oracle& oracle_;
  Batch::Sampling sampling_;
  std::array<uint64_t, 6> next_{};
};

using Iteration = std::function<void(int k, Replay* r)>;

// The method beside the recursion, which `start` begins.
template <typename TheMethod>
void ExpectSameAsReplay(typename TheMethod::Options options,
                        const Iteration& recursion,
                        const std::function<void(Replay* r)>& start = nullptr) {
  options.lower_batch = kLowerBatch;
  options.upper_batch = kUpperBatch;
  options.solve_lower_level = false;
  QuadraticSum sum(kTerms, kM, kN, 0.4);
  sum.x.setConstant(0.7);
  sum.y.setConstant(-0.2);
  Problem problem;
  sum.AddTo(&problem);
  std::string error;
  const auto program = problem.Compile({}, &error);
  ASSERT_TRUE(program) << error;
  const Oracle oracle(program.get(), nullptr, kSeed);
  Replay replay(sum, oracle, options.sampling);
  if (start) start(&replay);
  for (int k = 0; k < kIterations; ++k) recursion(k, &replay);

  Solver::Options solver;
  solver.method = std::make_shared<TheMethod>(options);
  solver.max_num_iterations = kIterations;
  solver.seed = kSeed;
  Solver::Summary summary;
  Solve(solver, &problem, &summary);
  ASSERT_TRUE(summary.IsSolutionUsable()) << summary.FullReport();
  EXPECT_LT((sum.x.cast<Real>() - replay.x).cast<double>().lpNorm<Eigen::Infinity>(), 1e-12)
      << summary.method;
  EXPECT_LT((sum.y.cast<Real>() - replay.y).cast<double>().lpNorm<Eigen::Infinity>(), 1e-12)
      << summary.method;
  EXPECT_GT((sum.x.array() - 0.7).matrix().norm(), 1e-3) << summary.method;
}

Real Decay(double step, int k, double exponent, double time = 100.0) {
  return step * std::pow(1.0 + k / time, -exponent);
}

TEST(Replay, Soba) {
  for (const auto sampling : {Batch::kIndependent, Batch::kDistinct}) {
    Soba::Options options;
    options.sampling = sampling;
    options.lower = {0.1, 0.5, 100.0};
    options.x.step = 0.05;
    options.x.decay_exponent = 0.5;
    options.x.decay_time = 100.0;
    ExpectSameAsReplay<Soba>(options, [](int k, Replay* r) {
      const Sample i = r->Lower(kY), j = r->Upper(kF);
      const Vec dy = r->gy(i, r->y), dz = r->Hz(i, r->z) - r->fy(j, r->y);
      const Vec dx = r->fx(j, r->x) - r->Jz(i, r->z);
      r->y -= Decay(0.1, k, 0.5) * dy;
      r->z -= Decay(0.1, k, 0.5) * dz;
      r->x -= Decay(0.05, k, 0.5) * dx;
    });
  }
}

TEST(Replay, Amigo) {
  Amigo::Options options;
  options.num_lower_steps = 3;
  options.num_linear_steps = 4;
  options.y = {0.1, 0.0, 1.0};
  options.z = {0.2, 0.0, 1.0};
  options.x.step = 0.05;
  options.x.decay_exponent = 0.0;
  ExpectSameAsReplay<Amigo>(options, [](int, Replay* r) {
    for (int t = 0; t < 3; ++t) r->y -= Real(0.1) * r->gy(r->Lower(kY), r->y);
    const Sample j = r->Upper(kF);
    for (int q = 0; q < 4; ++q) {
      r->z -= Real(0.2) * (r->Hz(r->Lower(kZ), r->z) - r->fy(j, r->y));
    }
    r->x -= Real(0.05) * (r->fx(j, r->x) - r->Jz(r->Lower(kJ), r->z));
  });
}

TEST(Replay, MaSoba) {
  MaSoba::Options options;
  options.x.step = 0.05;
  options.x.decay_time = 100.0;
  options.lower = {0.1, 0.5, 100.0};
  options.average = options.lower;
  ExpectSameAsReplay<MaSoba>(
      options,
      [](int k, Replay* r) {
        const Sample i = r->Lower(kY), j = r->Upper(kF);
        const Vec w = r->fx(j, r->x) - r->Jz(i, r->z), dy = r->gy(i, r->y);
        const Vec dz = r->Hz(i, r->z) - r->fy(j, r->y);
        r->x -= Decay(0.05, k, 0.5) * r->h;
        r->y -= Decay(0.1, k, 0.5) * dy;
        r->z -= Decay(0.1, k, 0.5) * dz;
        r->h += Decay(0.1, k, 0.5) * (w - r->h);
      },
      [](Replay* r) { r->h = Vec::Zero(kM); });
}

template <typename Options>
Options GivenSlip() {
  Options options;
  options.y = {0.1, 0.0, 1.0};
  options.z = {0.05, 0.0, 1.0};
  options.x = {0.02, 0.75, 100.0};
  options.average = {0.1, 0.0, 1.0};
  options.warm_start_step = 0.2;
  return options;
}

// x and z of both, from what they were evaluated at.
void SlipXAndZ(int k, const Sample& i, const Sample& j, const Vec& y, Replay* r) {
  const Vec w = r->fx(j, r->x) - r->Jz(i, r->z);
  r->m = Real(0.9) * r->m + Real(0.1) * w;
  r->z -= Real(0.05) * (r->Hz(i, r->z) - r->fy(j, y));
  r->x -= Decay(0.02, k, 0.75) / r->m.norm() * r->m;
}

TEST(Replay, Slip) {
  for (const bool one_sample : {false, true}) {
    Slip::Options options = GivenSlip<Slip::Options>();
    options.one_sample = one_sample;
    ExpectSameAsReplay<Slip>(
        options,
        [one_sample](int k, Replay* r) {
          const Sample of_y = r->Lower(kY), i = one_sample ? of_y : r->Lower(kZ);
          const Sample j = r->Upper(kF);
          const Vec y = r->y;
          r->y -= Real(0.1) * r->gy(of_y, y);
          SlipXAndZ(k, i, j, y, r);
        },
        [](Replay* r) {
          r->m = Vec::Zero(kM);
          for (int t = 0; t < 3; ++t) r->y -= Real(0.2) * r->gy(r->Lower(kY), r->y);
        });
  }
}

TEST(Replay, BoRep) {
  BoRep::Options options = GivenSlip<BoRep::Options>();
  options.radius = 0.01;
  options.num_epochs = 2;
  options.first_epoch = 4;
  options.epoch_step = 0.05;
  options.epoch_radius = 0.3;
  const auto step = [](const Vec& centre, Real length, Real radius, Replay* r) {
    r->y -= length * r->gy(r->Lower(kY), r->y);
    const Real distance = (r->y - centre).norm();
    if (distance > radius) r->y = centre + radius / distance * (r->y - centre);
  };
  ExpectSameAsReplay<BoRep>(
      options,
      [step](int k, Replay* r) {
        if (k > 0 && k % 2 == 0) {
          const Vec centre = r->y;
          for (int t = 0; t < 3; ++t) step(centre, 0.1, 0.01, r);
        }
        const Sample i = r->Lower(kZ), j = r->Upper(kF);
        SlipXAndZ(k, i, j, r->y, r);
      },
      [step](Replay* r) {
        r->m = Vec::Zero(kM);
        for (int epoch = 0; epoch < 2; ++epoch) {
          const Vec centre = r->y;
          Vec mean = Vec::Zero(kN);
          const int num_steps = 4 << epoch;
          for (int t = 0; t < num_steps; ++t) {
            step(centre, 0.05 / (1 << epoch), 0.3 / std::pow(2.0, epoch / 2.0), r);
            mean += r->y / num_steps;
          }
          r->y = mean;
        }
      });
}

// What a Neumann estimate is over: the same again at another point.
struct Series {
  Sample f, j;
  std::vector<Sample> h;
  int length;
};
constexpr double kEta = 0.2;

Series DrawSeries(int k, int length, bool random, Replay* r) {
  Series s{r->Upper(kF), r->Lower(kJ), {}, length};
  const int products = random ? r->RandomLength(k, length) : length;
  for (int q = 0; q < products; ++q) s.h.push_back(r->Lower(kZ));
  return s;
}

Vec Estimate(const Series& s, bool random, const Vec& x, const Vec& y, const Replay& r) {
  Vec u = r.fy(s.f, y), sum = u;
  for (const Sample& h : s.h) {
    u -= Real(kEta) * r.Hz(h, u);
    sum += u;
  }
  const Vec z = random ? Vec(Real(kEta) * s.length * u) : Vec(Real(kEta) * sum);
  return r.fx(s.f, x) - r.Jz(s.j, z);
}

template <typename Options>
Options GivenNeumann(double growth) {
  Options options;
  options.y.step = options.x.step = 0.05;
  options.y.decay_time = options.x.decay_time = 100.0;
  options.neumann.step = kEta;
  options.neumann.length = 6;
  options.neumann.log_growth = growth;
  return options;
}

template <typename TheMethod>
void ExpectNeumann(bool random) {
  const auto options = GivenNeumann<typename TheMethod::Options>(1.5);
  ExpectSameAsReplay<TheMethod>(options, [options, random](int k, Replay* r) {
    for (int t = 0; t < options.num_lower_steps; ++t) {
      r->y -= Decay(0.05, k, options.y.decay_exponent) * r->gy(r->Lower(kY), r->y);
    }
    const int length = 6 + static_cast<int>(std::ceil(1.5 * std::log(1.0 + k)));
    const Series s = DrawSeries(k, length, random, r);
    r->x -= Decay(0.05, k, options.x.decay_exponent) * Estimate(s, random, r->x, r->y, *r);
  });
}

TEST(Replay, NeumannMethods) {
  ExpectNeumann<Ttsa>(true);
  ExpectNeumann<Alset>(true);
  ExpectNeumann<StocBiO>(false);
  auto bsa = GivenNeumann<Bsa::Options>(0.0);
  bsa.num_lower_steps = 2;
  ExpectSameAsReplay<Bsa>(bsa, [](int k, Replay* r) {
    for (int t = 0; t < std::ceil(2.0 * std::sqrt(1.0 + k)); ++t) {
      r->y -= Decay(0.05, t, 1.0) * r->gy(r->Lower(kY), r->y);
    }
    const Series s = DrawSeries(k, 6, true, r);
    r->x -= Decay(0.05, k, 0.5) * Estimate(s, true, r->x, r->y, *r);
  });
}

// d = G + (1 - eta) (d - G at the point before), over one sample.
struct Recursive {
  const Vec& Next(Real eta, const Vec& now, const Vec& before) {
    d = begun ? Vec(now + (1 - eta) * (d - before)) : now;
    begun = true;
    return d;
  }
  bool begun = false;
  Vec d;
};

template <typename TheMethod>
void ExpectStorm(bool random) {
  auto options = GivenNeumann<typename TheMethod::Options>(0.0);
  options.eta_g = options.eta_f = {0.5, 2.0 / 3.0, 100.0};
  auto u = std::make_shared<Recursive>(), v = std::make_shared<Recursive>();
  auto before = std::make_shared<std::pair<Vec, Vec>>();
  ExpectSameAsReplay<TheMethod>(options, [=](int k, Replay* r) {
    if (k == 0) *before = {r->x, r->y};
    const Real eta = Decay(0.5, k, 2.0 / 3.0);
    const Sample i = r->Lower(kY);
    const Vec dy = u->Next(eta, r->gy(i, r->x, r->y), r->gy(i, before->first, before->second));
    const Series s = DrawSeries(k, 6, random, r);
    const Vec dx = v->Next(eta,
                           Estimate(s, random, r->x, r->y, *r),
                           Estimate(s, random, before->first, before->second, *r));
    *before = {r->x, r->y};
    r->y -= Decay(0.05, k, 1.0 / 3.0) * dy;
    r->x -= Decay(0.05, k, 1.0 / 3.0) * dx;
  });
}

TEST(Replay, SustainAndMrbo) {
  ExpectStorm<Sustain>(true);
  ExpectStorm<Mrbo>(false);
}

// Algorithm 2 of the paper: large batches every `period`, then differences over small ones, of
// which the first carries the move of x.
TEST(Replay, Vrbo) {
  auto options = GivenNeumann<Vrbo::Options>(0.0);
  options.period = 4;
  options.num_lower_steps = 2;
  options.large_lower_batch = 16;
  options.large_upper_batch = 12;
  struct Memory {
    Recursive u, v;
    Vec x, y;  // Where both were last taken.
  };
  auto memory = std::make_shared<Memory>();
  ExpectSameAsReplay<Vrbo>(options, [=](int k, Replay* r) {
    Memory& at = *memory;
    const auto update = [&](const Sample& i, const Series& s) {
      if (!at.u.begun) at.x = r->x, at.y = r->y;
      at.u.Next(0, r->gy(i, r->x, r->y), r->gy(i, at.x, at.y));
      at.v.Next(0, Estimate(s, false, r->x, r->y, *r), Estimate(s, false, at.x, at.y, *r));
      at.x = r->x;
      at.y = r->y;
    };
    if (k % 4 == 0) {
      at.u = at.v = Recursive();
      Series s{r->Upper(kF, 12), r->Lower(kJ, 16), {}, 6};
      for (int q = 0; q < 6; ++q) s.h.push_back(r->Lower(kZ, 16));
      update(r->Lower(kY, 16), s);
    }
    r->x -= Decay(0.05, k, options.x.decay_exponent) * at.v.d;
    for (int t = 0; t <= 2; ++t) {
      if (t > 0) r->y -= Decay(0.05, k, options.y.decay_exponent) * at.u.d;
      const Series s = DrawSeries(k, 6, false, r);
      update(r->Lower(kY), s);
    }
  });
}

Vec Joint(
    const Sample& i, const Sample& j, const Vec& x, const Vec& y, const Vec& z, const Replay& r) {
  Vec d(kM + 2 * kN);
  d << r.fx(j, x) - r.Jz(i, z), r.gy(i, x, y), r.Hz(i, z) - r.fy(j, y);
  return d;
}

void MoveJointly(Real rho, Real gamma, const Vec& d, Replay* r) {
  r->y -= rho * d.segment(kM, kN);
  r->z -= rho * d.tail(kN);
  r->x -= gamma * d.head(kM);
}

TEST(Replay, SrbaAndSvrb) {
  struct Memory {
    Recursive d;
    Vec x, y, z;
  };
  const auto iterate = [](Real eta, const Sample& i, const Sample& j, Memory* at, Replay* r) {
    if (!at->d.begun) at->x = r->x, at->y = r->y, at->z = r->z;
    const Vec d =
        at->d.Next(eta, Joint(i, j, r->x, r->y, r->z, *r), Joint(i, j, at->x, at->y, at->z, *r));
    at->x = r->x;
    at->y = r->y;
    at->z = r->z;
    return d;
  };
  {
    Srba::Options options;
    options.lower = {0.1, 0.0, 1.0};
    options.x.step = 0.05;
    options.x.decay_exponent = 0.0;
    options.period = 7;
    auto at = std::make_shared<Memory>();
    ExpectSameAsReplay<Srba>(options, [=](int k, Replay* r) {
      const bool full = k % 7 == 0;
      if (full) at->d = Recursive();
      const Sample i = full ? Replay::All() : r->Lower(kY), j = full ? i : r->Upper(kF);
      MoveJointly(0.1, 0.05, iterate(0, i, j, at.get(), r), r);
    });
  }
  Svrb::Options options;
  options.lower = {0.1, 1.0 / 3.0, 100.0};
  options.x.step = 0.05;
  options.x.decay_exponent = 1.0 / 3.0;
  options.x.decay_time = 100.0;
  options.eta = {0.5, 2.0 / 3.0, 100.0};
  auto at = std::make_shared<Memory>();
  ExpectSameAsReplay<Svrb>(options, [=](int k, Replay* r) {
    const Sample i = r->Lower(kY), j = r->Upper(kF);
    const Vec d = iterate(Decay(0.5, k, 2.0 / 3.0), i, j, at.get(), r);
    MoveJointly(Decay(0.1, k, 1.0 / 3.0), Decay(0.05, k, 1.0 / 3.0), d, r);
  });
}

// Tables by block, of zeros at first.
TEST(Replay, Saba) {
  Saba::Options options;
  options.lower = {0.05, 0.0, 1.0};
  options.x.step = 0.02;
  options.x.decay_exponent = 0.0;
  struct Table {
    const Vec Next(int entry, const Vec& now) {
      const Vec d = now - rows[entry] + mean;
      mean += (now - rows[entry]) / Real(rows.size());
      rows[entry] = now;
      return d;
    }
    std::vector<Vec> rows;
    Vec mean;
  };
  const int num_lower = kTerms / kLowerBatch, num_upper = (kTerms + kUpperBatch - 1) / kUpperBatch;
  const Vec of_g = Vec::Zero(2 * kN + kM), of_f = Vec::Zero(kM + kN);
  auto lower = std::make_shared<Table>(Table{std::vector<Vec>(num_lower, of_g), of_g});
  auto upper = std::make_shared<Table>(Table{std::vector<Vec>(num_upper, of_f), of_f});
  ExpectSameAsReplay<Saba>(options, [=](int, Replay* r) {
    const int i = r->BlockNumber(kY, kLowerBatch), j = r->BlockNumber(kF, kUpperBatch);
    const Sample bi = Replay::Block(kLowerBatch, i), bj = Replay::Block(kUpperBatch, j);
    Vec g(2 * kN + kM), f(kM + kN);
    g << r->gy(bi, r->y), r->Hz(bi, r->z), r->Jz(bi, r->z);
    f << r->fx(bj, r->x), r->fy(bj, r->y);
    const Vec dg = lower->Next(i, g), df = upper->Next(j, f);
    r->y -= Real(0.05) * dg.head(kN);
    r->z -= Real(0.05) * (dg.segment(kN, kN) - df.tail(kN));
    r->x -= Real(0.02) * (df.head(kM) - dg.tail(kM));
  });
}

F2sa::Options GivenF2sa() {
  F2sa::Options options;
  options.gamma = {0.2, 4.0 / 7.0, 100.0};
  options.alpha = {0.01, 5.0 / 7.0, 100.0};
  options.xi = 2.0;
  options.num_lower_steps = 2;
  return options;
}
Real Alpha(int k) { return Decay(0.01, k, 5.0 / 7.0); }
Real Gamma(int k) { return Decay(0.2, k, 4.0 / 7.0); }

TEST(Replay, F2sa) {
  auto w = std::make_shared<Vec>();
  ExpectSameAsReplay<F2sa>(
      GivenF2sa(),
      [w](int k, Replay* r) {
        const Real lambda = Gamma(k) / (2 * Alpha(k));
        for (int t = 0; t < 2; ++t) {
          const Sample j = r->Upper(kZ), i = r->Lower(kY);
          r->y -= Alpha(k) * (r->fy(j, r->y) + lambda * r->gy(i, r->y));
          *w -= Gamma(k) * r->gy(r->Lower(kW), *w);
        }
        const Sample j = r->Upper(kF);
        const Vec dx =
            r->fx(j, r->x) + lambda * r->gx(r->Lower(kJ), r->y) - lambda * r->gx(r->Lower(kP), *w);
        r->x -= Real(2) * Alpha(k) * dx;
      },
      [w](Replay* r) { *w = r->y; });
}

// Central differences: y+ and y- follow +-f + lambda g over the same samples.
TEST(Replay, F2saOfOrderTwo) {
  F2sa::Options options = GivenF2sa();
  options.order = 2;
  auto minus = std::make_shared<Vec>();
  ExpectSameAsReplay<F2sa>(
      options,
      [minus](int k, Replay* r) {
        const Real lambda = Gamma(k) / (2 * Alpha(k));
        for (int t = 0; t < 2; ++t) {
          const Sample j = r->Upper(kZ), i = r->Lower(kY);
          r->y -= Alpha(k) * (r->fy(j, r->y) + lambda * r->gy(i, r->y));
          *minus -= Alpha(k) * (lambda * r->gy(i, *minus) - r->fy(j, *minus));
        }
        const Sample j = r->Upper(kF), i = r->Lower(kJ);
        const Vec dx = r->fx(j, r->x) + lambda / 2 * (r->gx(i, r->y) - r->gx(i, *minus));
        r->x -= Real(2) * Alpha(k) * dx;
      },
      [minus](Replay* r) { *minus = r->y; });
}

// STORM on each of the six gradients.
TEST(Replay, F3sa) {
  F2sa::Options options = GivenF2sa();
  options.momentum = true;
  options.num_lower_steps = 1;
  options.eta = {0.5, 2.0 / 3.0, 100.0};
  struct Memory {
    Recursive g_w, f_y, g_y, f_x, g_x_y, g_x_w;
    Vec w;
    // Where each pair was last taken: of the steps of y and w, and of that of x.
    Vec x_below, y_below, w_below, x_above, y_above, w_above;
  };
  auto memory = std::make_shared<Memory>();
  ExpectSameAsReplay<F2sa>(
      options,
      [memory](int k, Replay* r) {
        Memory& at = *memory;
        const Real lambda = Gamma(k) / (2 * Alpha(k)), eta = Decay(0.5, k, 2.0 / 3.0);
        if (k == 0) at.x_below = r->x, at.y_below = r->y, at.w_below = at.w;
        const Sample of_w = r->Lower(kW), j = r->Upper(kZ), i = r->Lower(kY);
        const Vec dw =
            at.g_w.Next(eta, r->gy(of_w, r->x, at.w), r->gy(of_w, at.x_below, at.w_below));
        const Vec fy = at.f_y.Next(eta, r->fy(j, r->y), r->fy(j, at.y_below));
        const Vec gy = at.g_y.Next(eta, r->gy(i, r->x, r->y), r->gy(i, at.x_below, at.y_below));
        at.x_below = r->x;
        at.y_below = r->y;
        at.w_below = at.w;
        at.w -= Gamma(k) * dw;
        r->y -= Alpha(k) * (fy + lambda * gy);
        if (k == 0) at.x_above = r->x, at.y_above = r->y, at.w_above = at.w;
        const Sample f = r->Upper(kF), g = r->Lower(kJ), p = r->Lower(kP);
        const Vec dx = at.f_x.Next(eta, r->fx(f, r->x), r->fx(f, at.x_above)) +
                       lambda * at.g_x_y.Next(eta, r->gx(g, r->y), r->gx(g, at.y_above)) -
                       lambda * at.g_x_w.Next(eta, r->gx(p, at.w), r->gx(p, at.w_above));
        at.x_above = r->x;
        at.y_above = r->y;
        at.w_above = at.w;
        r->x -= Real(2) * Alpha(k) * dx;
      },
      [memory](Replay* r) { memory->w = r->y; });
}

}  // namespace
}  // namespace bilevel
