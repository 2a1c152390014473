#ifndef BILEVEL_TESTS_CAMPAIGN_FAULTS_H_
#define BILEVEL_TESTS_CAMPAIGN_FAULTS_H_

#include <atomic>
#include <string>
#include <vector>

namespace bilevel {

// One call of a user's code goes wrong, or all from there on.
struct FaultPoint {
  enum Site {
    kLowerFunctor,
    kLowerCost,
    kUpperFunctor,
    kUpperCost,
    kLoss,
    kManifold,
    kEvaluationCallback,
    kIterationCallback,
    kNumSites
  };
  enum Fault { kFalse, kNaN, kInfinity, kException, kNotStandard, kBadAlloc, kNumFaults };

  std::string method;
  Site site = kLowerCost;
  Fault fault = kFalse;
  long call = 0;  // Of the site's.
  bool for_ever = false;
  int num_threads = 1, num_ceres_threads = 1;

  std::string Name() const;
};

// What became of a solve with it.
struct FaultOutcome {
  bool is_reached = false;  // Whether there was such a call.
  std::string violation;    // Empty: none.
  bool must_name = false;   // The solve failed by it, so that its message has to name it.
  bool is_named = false;
  std::string message;
};
FaultOutcome RunWithFault(const FaultPoint& point);

// How often a solve by this method calls each site without a fault.
std::vector<long> CountCalls(const std::string& method);

}  // namespace bilevel

#endif  // BILEVEL_TESTS_CAMPAIGN_FAULTS_H_
