#ifndef BILEVEL_UPPER_LEVEL_INTERNAL_GAIN_BY_CHANCE_H_
#define BILEVEL_UPPER_LEVEL_INTERNAL_GAIN_BY_CHANCE_H_

namespace bilevel {

/// What n / 2 log(f_0 / f) exceeds by chance in one case of ten, if k coordinates are fitted to n
/// normal errors of an unknown scale: f / f_0 is Beta((n - k) / 2, k / 2) then, for a linear model.
/// Infinite for n <= k.
double GainByChance(double n, int k);

}  // namespace bilevel

#endif  // BILEVEL_UPPER_LEVEL_INTERNAL_GAIN_BY_CHANCE_H_
