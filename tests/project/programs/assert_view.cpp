// SPDX-License-Identifier: MIT
// Each of these views is impossible, or used beyond its end.
// flags: -DHMOE_TRY=1
// flags: -DHMOE_TRY=2
// flags: -DHMOE_TRY=3
// flags: -DHMOE_TRY=4
// flags: -DHMOE_TRY=5
// flags: -DHMOE_TRY=6
// aborts
// prints: hmoe: (a view of 5 x 8 values|rows?|column|value)
// prints: null pointer|out of range: there are [58]|7 apart: they overlap
#include <hmoe/core/matrix.hpp>

int main() {
  hmoe::matrix<float> m(5, 8);
  const hmoe::matrix_view<float> view = m;
  float* nothing = nullptr;
  const hmoe::matrix_view<const float> folded(m.data(), 5, 8, 7); // to read through, rows may share values
  switch (HMOE_TRY + folded.rows() - 5) {
  case 1:
    return hmoe::matrix_view<float>(nothing, 5, 8)(0, 0) == 0;
  case 2:
    return hmoe::matrix_view<float>(m.data(), 5, 8, 7).rows() == 5;
  case 3:
    return view(5, 0) == 0;
  case 4:
    return m(0, 8) == 0;
  case 5:
    return view.row_block(3, 3).rows() == 3;
  case 6:
    return view.row(4)[8] == 0;
  default:
    return 0;
  }
}
