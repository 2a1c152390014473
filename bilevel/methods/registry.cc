#include "bilevel/methods/registry.h"

#include <functional>
#include <utility>

#include "bilevel/methods/auto.h"
#include "bilevel/methods/baselines/bsg1.h"
#include "bilevel/methods/baselines/optimistic_gd.h"
#include "bilevel/methods/hyper_objective/bda.h"
#include "bilevel/methods/hyper_objective/bgs.h"
#include "bilevel/methods/hyper_objective/gradient_method.h"
#include "bilevel/methods/hyper_objective/gradient_sampling.h"
#include "bilevel/methods/hyper_objective/ia_gm.h"
#include "bilevel/methods/hyper_objective/levenberg_marquardt.h"
#include "bilevel/methods/hyper_objective/line_search.h"
#include "bilevel/methods/hyper_objective/newton.h"
#include "bilevel/methods/hyper_objective/optimistic.h"
#include "bilevel/methods/hyper_objective/projected_lbfgs.h"
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
#include "bilevel/methods/value_function/bome.h"
#include "bilevel/methods/value_function/bvfsm.h"
#include "bilevel/methods/value_function/penalty.h"
#include "bilevel/methods/zeroth_order/igfm.h"
#include "bilevel/methods/zeroth_order/pattern_search.h"

namespace bilevel {
namespace {

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
      {"auto", [] { return std::make_unique<Auto>(); }},
      {"levenberg_marquardt", [] { return std::make_unique<LevenbergMarquardt>(); }},
      {"lbfgs", [] { return std::make_unique<LineSearch>(ceres::LBFGS); }},
      {"bfgs", [] { return std::make_unique<LineSearch>(ceres::BFGS); }},
      {"ncg", [] { return std::make_unique<LineSearch>(ceres::NONLINEAR_CONJUGATE_GRADIENT); }},
      {"steepest_descent", [] { return std::make_unique<LineSearch>(ceres::STEEPEST_DESCENT); }},
      {"projected_lbfgs", [] { return std::make_unique<ProjectedLbfgs>(); }},
      {"newton", [] { return std::make_unique<Newton>(); }},
      {"gradient_sampling", [] { return std::make_unique<GradientSampling>(); }},
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
      {"fsla", [] { return std::make_unique<Fsla>(); }},
      {"alset", [] { return std::make_unique<Alset>(); }},
      {"f2sa", [] { return std::make_unique<F2sa>(); }},
      {"f2sa_2",
       [] {
         F2sa::Options options;
         options.order = 2;
         return std::make_unique<F2sa>(options);
       }},
      {"f3sa",
       [] {
         F2sa::Options options;
         options.momentum = true;
         return std::make_unique<F2sa>(options);
       }},
      {"adambo", [] { return std::make_unique<AdamBo>(); }},
      {"vr_adambo",
       [] {
         AdamBo::Options options;
         options.variance_reduction = true;
         return std::make_unique<AdamBo>(options);
       }},
      {"sustain", [] { return std::make_unique<Sustain>(); }},
      {"mrbo", [] { return std::make_unique<Mrbo>(); }},
      {"vrbo", [] { return std::make_unique<Vrbo>(); }},
      {"svrb", [] { return std::make_unique<Svrb>(); }},
      {"srba", [] { return std::make_unique<Srba>(); }},
      {"spaba", [] { return std::make_unique<Spaba>(); }},
      {"pnpbo", [] { return std::make_unique<PnpBo>(); }},
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
