#include "campaign/random_problems.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace bilevel {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

int SizeOf(BlockKind kind, int plain) {
  switch (kind) {
    case BlockKind::kQuaternion:
    case BlockKind::kEigenQuaternion:
      return 4;
    case BlockKind::kSphere:
      return 3;
    case BlockKind::kLine:
      return 6;
    case BlockKind::kPose:
      return 7;
    case BlockKind::kSubset:
      return std::max(plain, 2);
    default:
      return plain;
  }
}

void Normalize(double* v, int size) {
  double sum = 0.0;
  for (int i = 0; i < size; ++i) sum += v[i] * v[i];
  for (int i = 0; i < size; ++i) v[i] /= std::sqrt(sum);
}

}  // namespace

ceres::Manifold* MakeManifold(BlockKind kind, int size) {
  switch (kind) {
    case BlockKind::kSubset:
      return new ceres::SubsetManifold(size, {size / 2});
    case BlockKind::kQuaternion:
      return new ceres::QuaternionManifold;
    case BlockKind::kEigenQuaternion:
      return new ceres::EigenQuaternionManifold;
    case BlockKind::kSphere:
      return new ceres::SphereManifold<3>;
    case BlockKind::kLine:
      return new ceres::LineManifold<3>;
    case BlockKind::kPose:
      return new ceres::ProductManifold<ceres::QuaternionManifold, ceres::EuclideanManifold<3>>;
    default:
      return nullptr;
  }
}

RandomProblem::RandomProblem(unsigned seed) : seed_(seed), rng_(seed) {
  num_scenarios_ = Chance(0.25) ? Integer(2, 3) : 1;
  is_far_ = Chance(0.3);
  for (int s = 0; s < num_scenarios_; ++s) weights_.push_back(s == 0 ? 1.0 : Uniform(0.3, 2.0));
  MakeBlocks();
  MakeTerms();
  BuildProblem();
}

// ---- Blocks.

int RandomProblem::AddBlock(
    RandomBlock::Role role, int scenario, BlockKind kind, int size, double spread) {
  RandomBlock block;
  block.role = role;
  block.scenario = scenario;
  block.kind = kind;
  block.values.resize(SizeOf(kind, size));
  for (double& v : block.values) v = spread * Normal();
  double* v = block.values.data();
  if (kind == BlockKind::kLine) {
    Normalize(v + 3, 3);
  } else if (kind != BlockKind::kPlain && kind != BlockKind::kSubset) {
    Normalize(v, kind == BlockKind::kSphere ? 3 : 4);
  }
  block.lower.assign(block.size(), -kInfinity);
  block.upper.assign(block.size(), kInfinity);
  block.manifold.reset(MakeManifold(kind, block.size()));
  const int index = static_cast<int>(blocks_.size());
  const char* names[] = {"x", "y", "c"};
  block.name = names[role] + std::to_string(index);
  blocks_.push_back(std::move(block));
  return index;
}

BlockKind RandomProblem::RandomManifold(double chance) {
  return Chance(chance) ? static_cast<BlockKind>(Integer(1, 6)) : BlockKind::kPlain;
}

void RandomProblem::SetBounds(int b) {
  RandomBlock& block = blocks_[b];
  for (int i = 0; i < block.size(); ++i) {
    const double v = block.values[i];
    if (Chance(0.6)) block.lower[i] = Chance(0.15) ? v : v - Uniform(0.05, 2.0);
    if (Chance(0.6)) block.upper[i] = v + Uniform(0.05, 2.0);
  }
}

void RandomProblem::MakeUpperBlocks() {
  const bool has_bounds = Chance(0.35);
  const int count = Integer(1, 3);
  for (int k = 0; k < count; ++k) {
    const BlockKind kind = RandomManifold(0.2);
    const double spread = is_far_ ? Uniform(2.0, 6.0) : 1.0;
    const int b = AddBlock(RandomBlock::kUpper, -1, kind, Integer(1, k == 0 ? 4 : 2), spread);
    if (kind == BlockKind::kPlain && has_bounds && Chance(0.7)) SetBounds(b);
  }
}

void RandomProblem::MakeBlocks() {
  MakeUpperBlocks();
  if (Chance(0.3)) AddBlock(RandomBlock::kConstant, -1, RandomManifold(0.2), Integer(1, 3), 1.0);
  const bool has_bounds = Chance(0.25);
  for (int s = 0; s < num_scenarios_; ++s) {
    const int count = Integer(1, num_scenarios_ > 1 ? 2 : 3);
    for (int k = 0; k < count; ++k) {
      const BlockKind kind = RandomManifold(0.35);
      const double spread = is_far_ && Chance(0.5) ? 4.0 : 1.0;
      const int b = AddBlock(RandomBlock::kLower, s, kind, Integer(1, 6), spread);
      if (kind == BlockKind::kPlain && has_bounds && Chance(0.7)) SetBounds(b);
    }
  }
}

// A block of one coordinate: of x, which may be there already, or a constant.
int RandomProblem::LossParameter(double center) {
  if (Chance(0.3)) {
    for (size_t b = 0; b < blocks_.size(); ++b) {
      const RandomBlock& block = blocks_[b];
      if (block.role == RandomBlock::kUpper && block.kind == BlockKind::kPlain &&
          block.size() == 1 && std::abs(block.values[0]) < 3.0) {
        return static_cast<int>(b);
      }
    }
  }
  const bool is_constant = Chance(0.1);
  const int b = AddBlock(
      is_constant ? RandomBlock::kConstant : RandomBlock::kUpper, -1, BlockKind::kPlain, 1, 0.5);
  blocks_[b].values[0] = center + (is_far_ && Chance(0.3) ? 3.0 : 0.5) * Normal();
  if (!is_constant && Chance(0.3)) SetBounds(b);
  return b;
}

std::vector<int> RandomProblem::Upper() const {
  std::vector<int> result;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].role == RandomBlock::kUpper) result.push_back(static_cast<int>(b));
  }
  return result;
}

std::vector<int> RandomProblem::Lower(int scenario) const {
  std::vector<int> result;
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].role == RandomBlock::kLower && blocks_[b].scenario == scenario) {
      result.push_back(static_cast<int>(b));
    }
  }
  return result;
}

// ---- Terms.

RandomTerm RandomProblem::NewTerm(Level level,
                                  int scenario,
                                  std::vector<int> blocks,
                                  int num_residuals) {
  RandomTerm term;
  term.level = level;
  term.scenario = scenario;
  for (const int b : blocks) {
    term.function.residual.kinds.push_back(blocks_[b].kind);
    term.function.residual.sizes.push_back(blocks_[b].size());
  }
  term.blocks = std::move(blocks);
  term.function.residual.constants.assign(num_residuals, 0.0);
  term.form = Chance(0.15) ? RandomTerm::kCeres : RandomTerm::kExact;
  return term;
}

// Every coordinate near a random target: what makes minima isolated.
void RandomProblem::AddPrior(Level level, int scenario, int b, double weight) {
  const RandomBlock block = blocks_[b];
  const int target =
      AddBlock(block.role, block.scenario, block.kind, block.size(), Uniform(0.3, 2.0));
  double v[RandomResidual::kMaxCoordinates];
  const double* end = Coordinates(block.kind, block.size(), blocks_[target].values.data(), v);
  blocks_.pop_back();
  const int n = static_cast<int>(end - v);
  RandomTerm term = NewTerm(level, scenario, {b}, n);
  for (int i = 0; i < n; ++i) {
    const double w = weight * Uniform(0.5, 1.5);
    term.function.residual.constants[i] = -w * v[i];
    term.function.residual.features.push_back({Feature::kLinear, i, i, 0, w, 0.0, 0.0});
  }
  terms_.push_back(std::move(term));
}

// Every block takes part.
void RandomProblem::AddFeatures(RandomTerm* term, int count, double size) {
  RandomResidual& residual = term->function.residual;
  std::vector<int> first{0};
  for (size_t b = 0; b < residual.kinds.size(); ++b) {
    first.push_back(first.back() + NumCoordinates(residual.kinds[b], residual.sizes[b]));
  }
  const int num_blocks = static_cast<int>(residual.kinds.size());
  const auto coordinate = [&](int b) { return Integer(first[b], first[b + 1] - 1); };
  for (int k = 0; k < std::max(count, num_blocks); ++k) {
    Feature feature;
    const int b = k < num_blocks ? k : Integer(0, num_blocks - 1);
    feature.i = coordinate(b);
    feature.j = coordinate(Integer(0, num_blocks - 1));
    feature.residual = Integer(0, residual.num_residuals() - 1);
    const double kind = Uniform(0.0, 1.0);
    feature.type = kind < 0.5    ? Feature::kLinear
                   : kind < 0.75 ? Feature::kSine
                   : kind < 0.87 ? Feature::kProduct
                                 : Feature::kExponential;
    feature.factor = size * Normal() * (feature.type == Feature::kProduct ? 0.3 : 1.0);
    feature.frequency =
        feature.type == Feature::kExponential ? Uniform(-0.5, 0.5) : Uniform(0.3, 2.0);
    feature.phase = Uniform(0.0, 6.0);
    residual.features.push_back(feature);
  }
  for (double& c : residual.constants) c += Normal();
}

RandomLoss RandomProblem::MakeLoss(bool learn) {
  RandomLoss loss;
  loss.scale = std::exp(Uniform(-1.5, 1.5));
  if (!learn) {
    loss.shape = static_cast<RandomLoss::Shape>(Chance(0.1) ? 6 : Integer(1, 5));
    return loss;
  }
  loss.is_ours = true;
  const RandomLoss::Shape shapes[] = {RandomLoss::kNone,
                                      RandomLoss::kCauchy,
                                      RandomLoss::kHuber,
                                      RandomLoss::kTukey,
                                      RandomLoss::kGemanMcClure,
                                      RandomLoss::kWelsch,
                                      RandomLoss::kBarron};
  loss.shape = shapes[Integer(0, 6)];
  if (loss.shape == RandomLoss::kBarron) {
    loss.alpha = AddBlock(RandomBlock::kUpper, -1, BlockKind::kPlain, 1, 0.0);
    blocks_[loss.alpha].values[0] = Uniform(0.6, 1.4);
    blocks_[loss.alpha].lower[0] = 0.3;
    blocks_[loss.alpha].upper[0] = 1.7;
  }
  if (loss.shape == RandomLoss::kBarron || (loss.shape != RandomLoss::kNone && Chance(0.7))) {
    loss.log_scale = LossParameter(0.0);
  }
  if (loss.shape == RandomLoss::kNone || Chance(0.3)) {
    loss.wrapper = static_cast<RandomLoss::Wrapper>(Integer(1, 3));
    loss.wrapper_block = LossParameter(0.0);
  }
  return loss;
}

void RandomProblem::MakeLowerTerms(int s) {
  const std::vector<int> y = Lower(s);
  const bool strong = Chance(0.7);
  for (const int b : y) {
    if (Chance(0.95)) AddPrior(Level::kLower, s, b, strong ? 1.5 : 0.5);
  }
  const int count = Integer(2, 5);
  const std::vector<int> x = Upper();
  for (int k = 0; k < count; ++k) {
    std::vector<int> blocks{y[k % y.size()], x[Integer(0, static_cast<int>(x.size()) - 1)]};
    if (y.size() > 1 && Chance(0.4)) blocks.push_back(y[(k + 1) % y.size()]);
    for (size_t b = 0; b < blocks_.size(); ++b) {
      if (blocks_[b].role == RandomBlock::kConstant && blocks_[b].size() > 1 && Chance(0.3)) {
        blocks.push_back(static_cast<int>(b));
      }
    }
    RandomTerm term = NewTerm(Level::kLower, s, blocks, Integer(1, 3));
    AddFeatures(&term, Integer(3, 8), 0.6);
    const RandomBlock& of_x = blocks_[blocks[1]];
    RandomResidual& residual = term.function.residual;
    if (of_x.kind == BlockKind::kPlain && Chance(0.25)) {
      residual.log_weight =
          NumCoordinates(residual.kinds[0], residual.sizes[0]) + Integer(0, of_x.size() - 1);
    }
    if (Chance(0.2)) {
      term.form = RandomTerm::kObjective;
      term.function.sine = 0.3 * Normal();
    } else {
      if (Chance(0.45)) term.loss = MakeLoss(Chance(0.6));
      if (Chance(0.15)) term.log_sigmas = LossParameter(0.0);
      const auto& own = term.blocks;  // A residual block may not have a block twice.
      if (std::count(own.begin(), own.end(), term.log_sigmas) > 0) term.log_sigmas = -1;
    }
    terms_.push_back(std::move(term));
  }
}

void RandomProblem::MakeUpperTerms(int s) {
  const std::vector<int> y = Lower(s), x = Upper();
  const int count = Integer(1, 3);
  for (int k = 0; k < count; ++k) {
    const int b = y[Integer(0, static_cast<int>(y.size()) - 1)];
    if (Chance(0.5)) {
      AddPrior(Level::kUpper, s, b, 1.0);
      continue;
    }
    std::vector<int> blocks{b};
    if (Chance(0.3)) blocks.push_back(x[Integer(0, static_cast<int>(x.size()) - 1)]);
    RandomTerm term = NewTerm(Level::kUpper, s, blocks, Integer(1, 3));
    AddFeatures(&term, Integer(3, 6), 1.0);
    if (Chance(0.2)) {
      term.form = RandomTerm::kObjective;
      term.function.sine = 0.5 * Normal();
    } else if (Chance(0.2)) {
      term.loss = MakeLoss(Chance(0.3));
    }
    terms_.push_back(std::move(term));
  }
}

void RandomProblem::MakeTerms() {
  for (int s = 0; s < num_scenarios_; ++s) MakeLowerTerms(s);
  for (int s = 0; s < num_scenarios_; ++s) MakeUpperTerms(s);
  const bool regularized = Chance(0.7);
  for (const int b : Upper()) {
    bool is_used = false;
    for (const RandomTerm& t : terms_) {
      is_used = is_used || std::count(t.blocks.begin(), t.blocks.end(), b) > 0 ||
                t.log_sigmas == b || t.loss.log_scale == b || t.loss.alpha == b ||
                t.loss.wrapper_block == b;
    }
    if (regularized || !is_used) AddPrior(Level::kUpper, 0, b, std::exp(Uniform(-4.0, 0.0)));
  }
  if (Chance(0.2)) {  // An offset that only f has, on a block of its own that is constant.
    const int b = AddBlock(RandomBlock::kConstant, -1, BlockKind::kPlain, 1, 1.0);
    blocks_[b].values[0] = std::pow(10.0, Uniform(-2.0, 3.0));
    RandomTerm term = NewTerm(Level::kUpper, 0, {b}, 1);
    term.function.residual.features.push_back({Feature::kLinear, 0, 0, 0, 1.0, 0.0, 0.0});
    terms_.push_back(std::move(term));
  }
}

std::string RandomProblem::Describe() const {
  std::ostringstream out;
  out << "seed " << seed_ << ": " << num_scenarios_ << " scenario(s)" << (is_far_ ? ", far" : "");
  const char* kinds[] = {"", "subset", "quaternion", "eigen_quaternion", "sphere", "line", "pose"};
  for (const RandomBlock& block : blocks_) {
    bool bounded = false;
    for (int i = 0; i < block.size(); ++i) {
      bounded = bounded || block.lower[i] > -kInfinity || block.upper[i] < kInfinity;
    }
    out << ' ' << block.name << '[' << block.size() << ']' << kinds[static_cast<int>(block.kind)]
        << (bounded ? "|bounded|" : "");
  }
  out << "; terms";
  for (const RandomTerm& t : terms_) {
    out << ' ' << (t.level == Level::kUpper ? 'f' : 'g') << "EDO"[t.form] << '(';
    for (const int b : t.blocks) out << blocks_[b].name << (b == t.blocks.back() ? "" : ",");
    out << (t.function.residual.log_weight >= 0 ? ";w" : "")
        << (t.log_sigmas >= 0 ? ";" + blocks_[t.log_sigmas].name : "") << ')';
    if (!t.loss.IsTrivial()) out << 'L' << t.loss.shape << (t.loss.is_ours ? "'" : "");
    if (t.loss.log_scale >= 0) out << blocks_[t.loss.log_scale].name;
    if (t.loss.wrapper_block >= 0) out << '*' << blocks_[t.loss.wrapper_block].name;
  }
  return out.str();
}

}  // namespace bilevel
