#include "bilevel/methods/registry.h"

#include <functional>
#include <utility>

#include "bilevel/methods/baselines/bsg1.h"
#include "bilevel/methods/baselines/optimistic_gd.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/bgs.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "bilevel/methods/hyper_objective/line_search.h"
#include "bilevel/methods/hyper_objective/optimistic.h"
#include "bilevel/methods/stochastic/alset.h"
#include "bilevel/methods/stochastic/amigo.h"
#include "bilevel/methods/stochastic/bo_rep.h"
#include "bilevel/methods/stochastic/bsa.h"
#include "bilevel/methods/stochastic/f2sa.h"
#include "bilevel/methods/stochastic/ma_soba.h"
#include "bilevel/methods/stochastic/saba.h"
#include "bilevel/methods/stochastic/slip.h"
#include "bilevel/methods/stochastic/soba.h"
#include "bilevel/methods/stochastic/srba.h"
#include "bilevel/methods/stochastic/stocbio.h"
#include "bilevel/methods/stochastic/sustain.h"
#include "bilevel/methods/stochastic/ttsa.h"
#include "bilevel/methods/stochastic/vrbo.h"
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/value_function/bvfsm.h"
#include "bilevel/methods/value_function/penalty.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "bilevel/methods/zeroth_order/pattern_search.h"

namespace bilevel {
namespace {

// Up to here all of dy*/dx is worth having.
constexpr int kShortX = 200;
// And up to here a search without derivatives.
constexpr int kVeryShortX = 20;

// Takes the method that fits the problem, and its name. Where that is stuck at a kink or a jump,
// where no gradient helps, a search without derivatives goes on; where y*(x) is a set, f's choice
// among it.
class Auto final : public Method {
 public:
  /// optimistic goes on where y*(x) is a set; may be nullptr.
  explicit Auto(std::unique_ptr<Method> optimistic = nullptr)
      : optimistic_(std::move(optimistic)) {}

  std::string name() const override { return "auto (" + chosen_->name() + ")"; }
  std::string Check(const Oracle& oracle) override {
    // Residuals of x alone, a prior beside a general term, have little to linearise; bounds on x
    // are honoured by levenberg_marquardt alone, whose secant learns all of a general f.
    const bool takes_lm = oracle.program().x.tangent_size() <= kShortX &&
                          (oracle.f.IsLeastSquares() || oracle.f.ResidualsUseY() ||
                           oracle.program().x.has_bounds()) &&
                          lm_.Check(oracle).empty();
    chosen_ = takes_lm ? static_cast<Method*>(&lm_) : &lbfgs_;
    return chosen_->Check(oracle);
  }
  Outcome Minimize(Oracle& oracle, State& state, Monitor* monitor, std::string* message) override {
    polishes_ = false;
    goes_on_ = nullptr;
    const Outcome outcome = chosen_->Minimize(oracle, state, monitor, message);
    // Where y*(x) is a set on which f has a choice, there is no derivative but along that choice.
    const bool is_refused =
        outcome == Outcome::kFailure || (chosen_ == &lbfgs_ && lbfgs_.is_refused());
    if (is_refused && MayChooseAmongSolutions(oracle, state)) {
      const std::string why = chosen_->name() + " found no derivative (" + *message + ")";
      goes_on_ = optimistic_.get();
      const Outcome chosen = goes_on_->Minimize(oracle, state, monitor, message);
      *message = why + "; with f's choice of y: " + *message;
      return chosen;
    }
    // At a weakly active bound of y the gradient sees one side of a kink.
    const bool is_at_kink =
        outcome == Outcome::kConverged && !oracle.lower().Report().weakly_active.empty();
    const bool is_stuck = is_at_kink || (chosen_ == &lm_ ? lm_.is_stuck() : lbfgs_.is_stuck());
    if (!is_stuck || state.x.dim() > kVeryShortX) return outcome;
    polishes_ = true;
    const std::string why = chosen_->name() + " is at a kink or a jump of phi (" + *message + ")";
    const Outcome polished = polish_.Minimize(oracle, state, monitor, message);
    *message = why + "; from there pattern_search: " + *message;
    return polished;
  }
  void Finish(Oracle& oracle, const State& state, Assessment* assessment) override {
    if (goes_on_) {
      assessment->notes.push_back("y*(x) is a set; x and y were found by " + goes_on_->name());
      return goes_on_->Finish(oracle, state, assessment);
    }
    chosen_->Finish(oracle, state, assessment);
    if (!polishes_) return;
    assessment->uncertainty = Uncertainty();  // There are no derivatives here.
    if (assessment->notes.empty()) polish_.Finish(oracle, state, assessment);
    assessment->notes.push_back("x was found by pattern_search, without derivatives, from where " +
                                chosen_->name() + " found no step that decreases phi");
  }

 private:
  // Whether the lower level leaves directions free, and may: kRefuse wants no such choice.
  bool MayChooseAmongSolutions(Oracle& oracle, const State& state) {
    Point y = state.y;
    return optimistic_ && oracle.Solve(state.x, &y) && oracle.Differentiate(state.x, y) &&
           oracle.lower().Report().num_free_directions > 0 && optimistic_->Check(oracle).empty();
  }

  LevenbergMarquardt lm_;
  LineSearch lbfgs_{ceres::LBFGS};
  PatternSearch polish_;
  std::unique_ptr<Method> optimistic_;
  Method* chosen_ = &lm_;
  Method* goes_on_ = nullptr;  // From where the chosen one had to give up.
  bool polishes_ = false;
};

std::unique_ptr<Method> Exact(const char* name, StepRule::Kind kind) {
  StepRule rule;
  rule.kind = kind;
  return std::make_unique<GradientMethod>(name, std::make_unique<ExactHypergradient>(), rule);
}

std::unique_ptr<Method> Aid(const char* name, AdjointSteps::Kind kind) {
  AidHypergradient::Options options;
  options.kind = kind;
  return std::make_unique<GradientMethod>(
      name, std::make_unique<AidHypergradient>(options), StepRule());
}

std::unique_ptr<Method> Unrolled(const char* name, int num_reverse_steps, double momentum) {
  UnrolledHypergradient::Options options;
  options.momentum = momentum;
  options.num_reverse_steps = num_reverse_steps;
  return std::make_unique<GradientMethod>(
      name, std::make_unique<UnrolledHypergradient>(options), StepRule());
}

StepRule Steps(StepRule::Kind kind, double step) {
  StepRule rule;
  rule.kind = kind;
  rule.step = step;
  return rule;
}

// By an estimator with its defaults.
template <typename Estimator>
std::unique_ptr<Method> Estimated(const char* name, const StepRule& rule) {
  return std::make_unique<GradientMethod>(
      name, std::make_unique<Estimator>(typename Estimator::Options()), rule);
}

std::unique_ptr<Method> IapttGm() {
  IaGm::Options options;
  options.truncate_pessimistically = true;
  return std::make_unique<IaGm>(options);
}

std::unique_ptr<Method> DetachedBvfsm() {
  BvfsmHypergradient::Options options;
  options.barrier = BvfsmHypergradient::kDetached;
  return std::make_unique<GradientMethod>("bvfsm_detached",
                                          std::make_unique<BvfsmHypergradient>(options),
                                          Steps(StepRule::kAdam, 0.01));
}

using Factory = std::function<std::unique_ptr<Method>()>;

const std::vector<std::pair<std::string, Factory>>& Methods() {
  static const auto* methods = new std::vector<std::pair<std::string, Factory>>{
      {"auto",
       [] {
         return std::make_unique<Auto>(std::make_unique<Optimistic>(std::make_unique<Auto>()));
       }},
      {"levenberg_marquardt", [] { return std::make_unique<LevenbergMarquardt>(); }},
      {"lbfgs", [] { return std::make_unique<LineSearch>(ceres::LBFGS); }},
      {"bfgs", [] { return std::make_unique<LineSearch>(ceres::BFGS); }},
      {"ncg", [] { return std::make_unique<LineSearch>(ceres::NONLINEAR_CONJUGATE_GRADIENT); }},
      {"steepest_descent", [] { return std::make_unique<LineSearch>(ceres::STEEPEST_DESCENT); }},
      {"optimistic", [] { return std::make_unique<Optimistic>(std::make_unique<Auto>()); }},
      {"gradient_descent", [] { return Exact("gradient_descent", StepRule::kGradient); }},
      {"momentum", [] { return Exact("momentum", StepRule::kMomentum); }},
      {"normalized", [] { return Exact("normalized", StepRule::kNormalized); }},
      {"adam", [] { return Exact("adam", StepRule::kAdam); }},
      {"hoag", [] { return Estimated<HoagHypergradient>("hoag", StepRule()); }},
      {"aid_cg", [] { return Aid("aid_cg", AdjointSteps::kConjugateGradients); }},
      {"aid_minres", [] { return Aid("aid_minres", AdjointSteps::kMinimalResidual); }},
      {"aid_fp", [] { return Aid("aid_fp", AdjointSteps::kFixedPoint); }},
      {"aid_neumann", [] { return Aid("aid_neumann", AdjointSteps::kNeumann); }},
      {"itd", [] { return Unrolled("itd", 0, 0.0); }},
      {"truncated_itd", [] { return Unrolled("truncated_itd", 5, 0.0); }},
      {"itd_momentum", [] { return Unrolled("itd_momentum", 0, 0.9); }},
      {"truncated_itd_momentum", [] { return Unrolled("truncated_itd_momentum", 5, 0.9); }},
      {"bgs", [] { return Estimated<BgsHypergradient>("bgs", StepRule()); }},
      {"bda", [] { return Estimated<BdaHypergradient>("bda", StepRule()); }},
      {"ia_gm", [] { return std::make_unique<IaGm>(); }},
      {"iaptt_gm", [] { return IapttGm(); }},
      {"bome", [] { return std::make_unique<Bome>(); }},
      {"bvfsm",
       [] { return Estimated<BvfsmHypergradient>("bvfsm", Steps(StepRule::kAdam, 0.01)); }},
      {"bvfsm_detached", [] { return DetachedBvfsm(); }},
      {"penalty", [] { return std::make_unique<Penalty>(); }},
      {"bsg1",
       [] { return Estimated<Bsg1Hypergradient>("bsg1", Steps(StepRule::kGradient, 0.05)); }},
      {"optimistic_gd", [] { return std::make_unique<OptimisticGd>(); }},
      {"igfm", [] { return std::make_unique<Igfm>(); }},
      {"pattern_search", [] { return std::make_unique<PatternSearch>(); }},
      {"slip", [] { return std::make_unique<Slip>(); }},
      {"bo_rep", [] { return std::make_unique<BoRep>(); }},
      {"soba", [] { return std::make_unique<Soba>(); }},
      {"saba", [] { return std::make_unique<Saba>(); }},
      {"ma_soba", [] { return std::make_unique<MaSoba>(); }},
      {"bsa", [] { return std::make_unique<Bsa>(); }},
      {"ttsa", [] { return std::make_unique<Ttsa>(); }},
      {"stocbio", [] { return std::make_unique<StocBiO>(); }},
      {"amigo", [] { return std::make_unique<Amigo>(); }},
      {"alset", [] { return std::make_unique<Alset>(); }},
      {"f2sa", [] { return std::make_unique<F2sa>(); }},
      {"f3sa",
       [] {
         F2sa::Options options;
         options.momentum = true;
         return std::make_unique<F2sa>(options);
       }},
      {"sustain", [] { return std::make_unique<Sustain>(); }},
      {"mrbo", [] { return std::make_unique<Mrbo>(); }},
      {"vrbo", [] { return std::make_unique<Vrbo>(); }},
      {"svrb", [] { return std::make_unique<Svrb>(); }},
      {"srba", [] { return std::make_unique<Srba>(); }},
  };
  return *methods;
}

}  // namespace

std::unique_ptr<Method> CreateMethod(const std::string& name) {
  for (const auto& [known, make] : Methods()) {
    if (known == name) return make();
  }
  return nullptr;
}

std::vector<std::string> ListMethods() {
  std::vector<std::string> names;
  for (const auto& entry : Methods()) names.push_back(entry.first);
  return names;
}

}  // namespace bilevel
