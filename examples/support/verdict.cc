#include "examples/support/verdict.h"

#include <cstdio>

namespace examples {

using bilevel::Verdict;

void Print(const Verdict& verdict) { std::printf("\nVERDICT. %s\n", verdict.ToString().c_str()); }

int ExitCode(bool ok, const Verdict& verdict) {
  if (!ok) return 1;
  switch (verdict.kind) {
    case Verdict::kUseLearned:
      return 0;
    case Verdict::kKeepYours:
      return 3;
    default:
      return 4;
  }
}

const char* Word(const Verdict& verdict) {
  return verdict.high < 0.0 ? "better" : verdict.low > 0.0 ? "worse" : "not told apart";
}

Json ToJson(const Verdict& verdict) {
  static const char* const kWords[] = {"use", "keep", "not enough data"};
  return Json()
      .Add("verdict", kWords[verdict.kind])
      .Add("before", verdict.before)
      .Add("learned", verdict.learned)
      .Add("low", verdict.low)
      .Add("high", verdict.high);
}

}  // namespace examples
