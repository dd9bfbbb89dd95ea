// SPDX-License-Identifier: MIT
#include <hmoe/probes/nesting.hpp>

#include <doctest/doctest.h>

using open_stages = hmoe::probes::nesting<long>;

TEST_CASE("a stage has what the stages inside it do not have") {
  open_stages open;
  open.begin(100);
  open.begin(110);
  open.begin(111);
  CHECK(open.end(114) == 3);
  CHECK(open.end(120) == 7); // 10 without 3
  open.begin(130);
  CHECK(open.end(135) == 5);
  CHECK(open.depth() == 1);
  CHECK(open.end(150) == 35); // 50 without 10 and 5
  CHECK(open.depth() == 0);
}

TEST_CASE("stages deeper than it has room for count in the one that contains them, and an end too many is nothing") {
  open_stages open;
  long now = 0, sum = 0;
  for (int i = 0; i < 40; ++i)
    open.begin(now++);
  for (int i = 0; i < 40; ++i)
    sum += open.end(now++);
  CHECK(sum == 79); // from the first begin to the last end
  CHECK(open.end(now) == 0);
  CHECK(open.depth() == 0);
}
