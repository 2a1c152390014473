#ifndef BILEVEL_TESTS_CAMPAIGN_RANDOM_PROBLEMS_H_
#define BILEVEL_TESTS_CAMPAIGN_RANDOM_PROBLEMS_H_

// Random bilevel problems: each is a function of its seed alone.

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "campaign/random_terms.h"
#include "ceres/ceres.h"

namespace bilevel {

struct RandomBlock {
  enum Role { kUpper, kLower, kConstant };
  Role role = kLower;
  int scenario = -1;  // -1: all.
  BlockKind kind = BlockKind::kPlain;
  std::vector<double> values;                 // The user's memory.
  std::vector<double> lower, upper;           // Bounds, infinite where there are none.
  std::shared_ptr<ceres::Manifold> manifold;  // nullptr: Euclidean. The check's own.
  std::string name;

  int size() const { return static_cast<int>(values.size()); }
  int tangent_size() const { return manifold ? manifold->TangentSize() : size(); }
};

struct RandomTerm {
  enum Form { kExact, kCeres, kObjective };
  Level level = Level::kLower;
  int scenario = 0;
  std::vector<int> blocks;
  Form form = kExact;
  RandomFunction function;
  RandomLoss loss;
  int log_sigmas = -1;  // A block of noise levels, one for each residual or one for all.
};

using BlockValues = std::vector<std::vector<double>>;

class RandomProblem {
 public:
  explicit RandomProblem(unsigned seed);
  RandomProblem(const RandomProblem&) = delete;
  RandomProblem& operator=(const RandomProblem&) = delete;

  Problem* problem() { return problem_.get(); }
  const std::vector<RandomBlock>& blocks() const { return blocks_; }
  int num_scenarios() const { return num_scenarios_; }
  double weight(int scenario) const { return weights_[scenario]; }
  // What it is made of, in a line.
  std::string Describe() const;
  BlockValues Values() const;

  // The blocks of x, or of a scenario's y.
  std::vector<int> Upper() const;
  std::vector<int> Lower(int scenario) const;

  // Independent of the library. Sum of the absolute values of the terms in *size, for rounding.
  double Evaluate(Level level, int scenario, const BlockValues& values, double* size) const;
  double F(const BlockValues& values, double* size = nullptr) const;
  // Of the residuals of a term, before noise and loss.
  double LargestSquare(const BlockValues& values) const;
  // Tangent gradient by ceres::Jet, over the given blocks.
  std::vector<double> Gradient(Level level,
                               int scenario,
                               const std::vector<int>& blocks,
                               const BlockValues& values) const;

 private:
  double Uniform(double a, double b) { return std::uniform_real_distribution<double>(a, b)(rng_); }
  double Normal() { return std::normal_distribution<double>()(rng_); }
  bool Chance(double p) { return Uniform(0.0, 1.0) < p; }
  int Integer(int a, int b) { return std::uniform_int_distribution<int>(a, b)(rng_); }

  void MakeBlocks();
  void MakeUpperBlocks();
  int AddBlock(RandomBlock::Role role, int scenario, BlockKind kind, int size, double spread);
  BlockKind RandomManifold(double chance);
  void SetBounds(int block);
  int LossParameter(double center);

  void MakeTerms();
  void MakeLowerTerms(int scenario);
  void MakeUpperTerms(int scenario);
  RandomTerm NewTerm(Level level, int scenario, std::vector<int> blocks, int num_residuals);
  void AddPrior(Level level, int scenario, int block, double weight);
  void AddFeatures(RandomTerm* term, int count, double size);
  RandomLoss MakeLoss(bool learn);
  template <typename T>
  T Value(const RandomTerm& term, const std::vector<std::vector<T>>& values) const;

  void BuildProblem();
  void DeclareBlocks();
  void AddTerm(const RandomTerm& term);
  ceres::CostFunction* MakeCost(const RandomTerm& term);
  ceres::LossFunction* BuildLoss(const RandomLoss& loss);
  ceres::LossFunction* BuildShape(const RandomLoss& loss);
  void AddObjective(const RandomTerm& term);

  const unsigned seed_;
  std::mt19937 rng_;
  int num_scenarios_ = 1;
  bool is_far_ = false;
  std::vector<double> weights_;
  std::vector<RandomBlock> blocks_;
  std::vector<RandomTerm> terms_;
  std::vector<Scenario*> scenarios_;
  std::unique_ptr<Problem> problem_;
};

// A new manifold of that kind; nullptr for a plain block.
ceres::Manifold* MakeManifold(BlockKind kind, int size);

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CAMPAIGN_RANDOM_PROBLEMS_H_
