// A few of the points of fault_campaign, in this process: what goes wrong in a user's code ends no
// process, leaves x, y and phi what the summary says of them, and is named.
#include "campaign/faults.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace bilevel {
namespace {

TEST(Faults, EndInASentenceThatNamesThem) {
  long num_reached = 0, must_name = 0, named = 0;
  for (const char* method : {"auto", "levenberg_marquardt", "lbfgs", "adam", "igfm"}) {
    const std::vector<long> calls = CountCalls(method);
    for (int site = 0; site < FaultPoint::kNumSites; ++site) {
      const bool has_result = site != FaultPoint::kEvaluationCallback;
      for (int fault = has_result ? 0 : FaultPoint::kException; fault < FaultPoint::kNumFaults;
           ++fault) {
        for (const long call : {0L, calls[site] / 2}) {
          for (const bool for_ever : {false, true}) {
            const FaultPoint point{method,
                                   static_cast<FaultPoint::Site>(site),
                                   static_cast<FaultPoint::Fault>(fault),
                                   call,
                                   for_ever,
                                   1 + static_cast<int>(num_reached % 2),
                                   1};
            const FaultOutcome outcome = RunWithFault(point);
            num_reached += outcome.is_reached;
            must_name += outcome.must_name;
            named += outcome.must_name && outcome.is_named;
            EXPECT_EQ(outcome.violation, "") << point.Name() << "\n" << outcome.message;
          }
        }
      }
    }
  }
  EXPECT_GT(num_reached, 500);
  EXPECT_GE(named, 0.99 * must_name) << named << " of " << must_name;
}

}  // namespace
}  // namespace bilevel
