#include "bilevel/lower_level/internal/supernodal_factor.h"

#include <algorithm>

namespace bilevel {
namespace {

constexpr int kPanel = 64;  // Columns.

}  // namespace

long SupernodalFactor::Append(int num_columns, const int* rows_begin, const int* rows_end) {
  const int height = static_cast<int>(rows_end - rows_begin);
  const int first_row = static_cast<int>(rows.size());
  const long first_value = num_values_;
  rows.insert(rows.end(), rows_begin, rows_end);
  for (int at = 0; at < num_columns; at += kPanel) {
    const int width = std::min(kPanel, num_columns - at);
    supernode_of.insert(supernode_of.end(), width, static_cast<int>(supernodes.size()));
    supernodes.push_back({rows_begin[at],
                          width,
                          first_row + at,
                          height - at,
                          first_value + at * (height + 1L),
                          height});
  }
  num_values_ += static_cast<long>(height) * num_columns;
  return first_value;
}

void SupernodalFactor::Gather(int size, const std::function<Column(int)>& column) {
  std::vector<int> own;
  for (int begin = 0, end; begin < size; begin = end) {
    // By the rules of fill, a column's rows but the first are among those of the column of that
    // number: they are the same where there are as many.
    Column last = column(begin);
    own.assign(1, begin);
    own.insert(own.end(), last.rows, last.rows + last.num_below);
    for (end = begin + 1; end < size; ++end) {
      if (last.num_below == 0 || last.rows[0] != end) break;
      const Column next = column(end);
      if (next.num_below != last.num_below - 1) break;
      last = next;
    }
    Append(end - begin, own.data(), own.data() + own.size());
  }
  Allocate();
  for (const Supernode& s : supernodes) {
    Block to = block(s);
    for (int j = 0; j < s.num_columns; ++j) {
      const Column from = column(s.first + j);
      to(j, j) = from.diagonal;
      for (int i = 0; i < from.num_below; ++i) to(j + 1 + i, j) = from.scale * from.values[i];
    }
  }
}

}  // namespace bilevel
