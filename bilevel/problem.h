#ifndef BILEVEL_PROBLEM_H_
#define BILEVEL_PROBLEM_H_

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bilevel/terms/convex_set.h"
#include "bilevel/terms/objective.h"
#include "bilevel/types.h"
#include "ceres/cost_function.h"
#include "ceres/evaluation_callback.h"
#include "ceres/first_order_function.h"
#include "ceres/loss_function.h"
#include "ceres/manifold.h"
#include "ceres/problem.h"

namespace bilevel {

class Program;
class Ranks;

/// One recording: its own lower and upper ceres::Problem, sharing x with the others.
class Scenario {
 public:
  ~Scenario();
  Scenario(const Scenario&) = delete;
  Scenario& operator=(const Scenario&) = delete;

  ceres::Problem* lower() { return lower_; }
  ceres::Problem* upper() { return upper_; }
  const std::string& name() const { return name_; }
  double weight() const { return weight_; }
  /// 0: the scenario is left out, but for what its problems say of x's bounds and manifolds.
  void set_weight(double weight) { weight_ = weight; }
  /// Whether that level's ceres::Problem is the user's own.
  bool is_wrapped(Level level) const { return level == Level::kUpper ? !own_upper_ : !own_lower_; }

  int num_terms(Level level) const {
    return static_cast<int>((level == Level::kUpper ? upper_terms_ : lower_terms_).size());
  }

  /// A general term over existing or new blocks {values, size}; see bilevel::Objective. Blocks in
  /// no residual block and not declared upper are the lower level's.
  struct TermBlock {
    double* values;
    int size;
  };
  void AddTerm(Level level, std::unique_ptr<Objective> term, std::vector<TermBlock> blocks);

  /// A ceres::FirstOrderFunction of its single parameter vector. Its value is not halved, its
  /// second derivatives are differenced.
  void AddTerm(Level level, std::unique_ptr<ceres::FirstOrderFunction> term, double* values);

  /// Constraints of the lower level: y in argmin { g(x, y) : h(x, y) = 0, c(x, y) <= 0 }, every row
  /// of a ceres::CostFunction being one, over blocks of y, x and constants as in AddResidualBlock.
  /// What is in no residual block and not declared upper is a block of y here too. Second
  /// derivatives are exact by bilevel::AutoDiffCostFunction, else differenced. Owned by the
  /// problem. Messages number them by kind, from 0, in the order of these calls.
  void AddLowerEquality(ceres::CostFunction* h, const std::vector<double*>& blocks);
  void AddLowerInequality(ceres::CostFunction* c, const std::vector<double*>& blocks);
  template <typename... Blocks>
  void AddLowerEquality(ceres::CostFunction* h, double* block, Blocks*... blocks) {
    AddLowerEquality(h, std::vector<double*>{block, blocks...});
  }
  template <typename... Blocks>
  void AddLowerInequality(ceres::CostFunction* c, double* block, Blocks*... blocks) {
    AddLowerInequality(c, std::vector<double*>{block, blocks...});
  }
  /// A closed convex set that a block of y, without manifold and bounds, is to lie in. The methods
  /// that project do so after each of their steps; for all others it is the constraints of
  /// ConvexSet::NewConstraints. A start outside is moved to the nearest point. A later call for the
  /// block replaces an earlier one, nullptr takes the set away.
  void SetLowerSet(double* y, std::unique_ptr<ConvexSet> set);
  /// Sets counted with them.
  int num_lower_constraints() const {
    return static_cast<int>(lower_constraints_.size() + lower_sets_.size());
  }

  /// Ceres 2.1 cannot be asked for a problem's callback: name it here too. Evaluation of that
  /// level is then serial and writes through to the user's memory, which is restored afterwards.
  /// Not owned.
  void SetEvaluationCallback(Level level, ceres::EvaluationCallback* callback);

  /// How often minibatches draw a residual block of either level, relative to the others, which
  /// have 1; estimates stay unbiased. kInEveryBatch is for priors, regularisers and gauge terms.
  void SetSamplingWeight(ceres::ResidualBlockId residual_block, double weight);
  static constexpr double kInEveryBatch = std::numeric_limits<double>::infinity();

 private:
  friend class Problem;
  friend class ProblemCompiler;
  Scenario(std::string name, double weight, ceres::Problem* upper, ceres::Problem* lower);

  struct Term {
    std::unique_ptr<Objective> objective;
    std::vector<TermBlock> blocks;
  };
  std::string name_;
  double weight_;
  std::unique_ptr<ceres::Problem> own_upper_, own_lower_;
  ceres::Problem* upper_;
  ceres::Problem* lower_;
  struct Constraint {
    ceres::CostFunction* cost;
    std::vector<double*> blocks;
    bool is_inequality;
  };
  std::vector<Term> upper_terms_, lower_terms_;
  std::vector<Constraint> lower_constraints_;
  std::vector<std::pair<double*, std::unique_ptr<ConvexSet>>> lower_sets_;
  std::unordered_map<ceres::ResidualBlockId, double> sampling_weights_;
  ceres::EvaluationCallback* upper_callback_ = nullptr;
  ceres::EvaluationCallback* lower_callback_ = nullptr;
};

/// min over x of f(x, y)  subject to  y in argmin over y of g(x, y).
///
/// f is the cost of the upper ceres::Problem and g that of the lower one, each 1/2 sum rho(|r|^2)
/// plus its general terms. Blocks declared with AddUpperParameterBlock are x; every other block
/// that is variable in the lower problem is y; the rest are constants. A block may stand in both
/// problems. Whether a block of x is constant or variable inside the ceres::Problems makes no
/// difference to us; a learned loss's parameters stand in no residual block at all.
///
/// Ownership: cost functions, losses and manifolds of the problems made here (not of the user's
/// own, wrapped ones) are deleted once by this class, even when both levels use them. What is
/// removed from a problem again before that is the caller's, unless it is adopted (Adopt).
class Problem {
 public:
  Problem();
  /// Around existing problems, not owned, which must outlive this.
  Problem(ceres::Problem* upper, ceres::Problem* lower);
  ~Problem();
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  /// The first scenario's problems; with one recording there is nothing else to know.
  ceres::Problem* upper() { return scenarios_[0]->upper(); }
  ceres::Problem* lower() { return scenarios_[0]->lower(); }

  /// Another recording: f = sum over scenarios of weight * f_s, each y_s minimises its own g_s.
  /// Owned by the problem. A scenario without residuals and terms (the first, say) is ignored, and
  /// so is one of weight 0.
  Scenario* AddScenario(const std::string& name, double weight = 1.0);
  Scenario* AddScenario(const std::string& name,
                        ceres::Problem* upper,
                        ceres::Problem* lower,
                        double weight = 1.0);
  Scenario* scenario(int i) { return scenarios_[i].get(); }
  int num_scenarios() const { return static_cast<int>(scenarios_.size()); }

  /// The problem is shared: all ranks add the same scenarios, by name and weight, declare the same
  /// x, and give residual blocks and terms to those scenarios only that are theirs, each of which
  /// is on one rank. Solve, IsValid and Compile then are calls of all ranks with the same options;
  /// each is left the same x and its own scenarios' y. Not owned; nullptr: none.
  void SetRanks(Ranks* ranks) { ranks_ = ranks; }
  Ranks* ranks() const { return ranks_; }

  /// Declares a block of x. The manifold is owned by this problem; without one, the manifold the
  /// block has in a ceres::Problem (if any) is used.
  void AddUpperParameterBlock(double* values, int size, ceres::Manifold* manifold = nullptr);
  /// Bounds on one coordinate of x, as ceres::Problem's. Bounds set in a ceres::Problem count too.
  void SetParameterLowerBound(const double* values, int index, double bound);
  void SetParameterUpperBound(const double* values, int index, double bound);
  /// A name for messages and tables ("log_sigma").
  void SetParameterName(const double* values, const std::string& name);

  /// To the first scenario; see Scenario.
  void AddTerm(Level level,
               std::unique_ptr<Objective> term,
               std::vector<Scenario::TermBlock> blocks);
  void AddTerm(Level level, std::unique_ptr<ceres::FirstOrderFunction> term, double* values);

  /// Of the first scenario; see Scenario.
  void AddLowerEquality(ceres::CostFunction* h, const std::vector<double*>& blocks) {
    scenarios_[0]->AddLowerEquality(h, blocks);
  }
  void AddLowerInequality(ceres::CostFunction* c, const std::vector<double*>& blocks) {
    scenarios_[0]->AddLowerInequality(c, blocks);
  }
  template <typename... Blocks>
  void AddLowerEquality(ceres::CostFunction* h, double* block, Blocks*... blocks) {
    scenarios_[0]->AddLowerEquality(h, block, blocks...);
  }
  template <typename... Blocks>
  void AddLowerInequality(ceres::CostFunction* c, double* block, Blocks*... blocks) {
    scenarios_[0]->AddLowerInequality(c, block, blocks...);
  }

  /// Of the first scenario; see Scenario.
  void SetLowerSet(double* y, std::unique_ptr<ConvexSet> set) {
    scenarios_[0]->SetLowerSet(y, std::move(set));
  }

  /// Of the first scenario; see Scenario.
  void SetSamplingWeight(ceres::ResidualBlockId residual_block, double weight) {
    scenarios_[0]->SetSamplingWeight(residual_block, weight);
  }

  bool IsUpperParameterBlock(const double* values) const { return FindUpper(values) != nullptr; }
  /// The name in quotes, or `otherwise`.
  std::string NameOf(const double* values, const std::string& otherwise) const;

  /// Keeps functions alive that are being removed from a problem made here; either may be nullptr
  /// or be adopted, owned or used by other residual blocks already.
  void Adopt(const ceres::CostFunction* cost, const ceres::LossFunction* loss);

  /// Keeps anything alive as long as this problem, for instance a LearnableLoss.
  template <typename T>
  T* Own(std::unique_ptr<T> object) {
    T* raw = object.get();
    if constexpr (std::is_convertible_v<T*, const ceres::LossFunction*>) own_losses_.push_back(raw);
    if constexpr (std::is_convertible_v<T*, const ceres::CostFunction*>) own_costs_.push_back(raw);
    if constexpr (std::is_convertible_v<T*, const ceres::Manifold*>) own_manifolds_.push_back(raw);
    owned_.emplace_back(std::move(object));
    return raw;
  }

  /// Whether the statement makes sense; if not, *error names the culprit. Evaluates both levels
  /// once at the current values, without changing them.
  bool IsValid(std::string* error) const;

  /// What builds upon the levels as they are can say what it misses where they were changed since:
  /// a sentence, or nothing. Asked by every Compile. For the library's own use.
  void AddCheck(std::function<std::string(const Program&)> check) {
    checks_.push_back(std::move(check));
  }

  struct CompileOptions {
    int num_threads = 1;
    /// Losses to use below instead of the residual blocks' own. Not owned.
    std::unordered_map<ceres::ResidualBlockId, const ceres::LossFunction*> lower_losses;
    /// Scalars of x beside the declared ones, parameters of those losses.
    std::vector<double*> more_upper;
    /// False: a missing upper level is no error.
    bool need_f = true;
    /// False: nor is it where there is no x.
    bool need_x = true;
  };
  /// Everything a solver needs, laid out once (program/program.h); nullptr with *error set where
  /// the problem is not valid. For the library's own use and for tools built on it.
  std::unique_ptr<Program> Compile(const CompileOptions& options, std::string* error) const;

 private:
  struct UpperBlock {
    double* values;
    int size;
    ceres::Manifold* manifold;
    std::vector<std::pair<double, double>> bounds;
  };
  friend class ProblemCompiler;
  const UpperBlock* FindUpper(const double* values) const;
  void SetBound(const double* values, int index, double bound, bool lower);

  std::vector<std::unique_ptr<Scenario>> scenarios_;
  std::vector<UpperBlock> upper_blocks_;
  std::unordered_map<const double*, size_t> upper_index_;  // Of them, by their values.
  std::vector<ceres::Manifold*> rejected_manifolds_;       // Ours to delete all the same.
  std::unordered_map<const double*, std::string> names_;
  std::vector<std::shared_ptr<void>> owned_;
  std::vector<const ceres::LossFunction*> own_losses_;
  std::vector<const ceres::CostFunction*> own_costs_;
  std::vector<const ceres::Manifold*> own_manifolds_;
  std::vector<std::pair<const ceres::CostFunction*, const ceres::LossFunction*>> adopted_;
  std::vector<std::function<std::string(const Program&)>> checks_;
  Ranks* ranks_ = nullptr;
  std::string first_error_;  // Of a call that returns nothing; reported by IsValid.
};

}  // namespace bilevel

#endif  // BILEVEL_PROBLEM_H_
