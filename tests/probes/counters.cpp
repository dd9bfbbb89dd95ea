// SPDX-License-Identifier: MIT
#include <hmoe/probes/counters.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace hmoe::probes;

TEST_CASE("counters count where the machine lets them, and say why they do not where it does not") {
  counters probe;
  const auto found = hmoe::testing::check_probe(probe);
  CHECK_MESSAGE(found.ok(), found.text());
  const counts down = probe.total(stage::down, direction::forward);
  CHECK(probe.available() == probe.why_not().empty());
  CHECK(probe.available() == (down.cycles != 0));
  CHECK(probe.available() == (down.instructions != 0));
  if (probe.available()) {
    CHECK(probe.table().find("gate/up") != std::string::npos);
    CHECK(down.instructions > 2 * 4 * 150 * 6); // at least one for each multiply-add
  } else {
    CHECK(probe.table() == probe.why_not() + "\n");
    CHECK(probe.why_not().find("counters") != std::string::npos);
  }
}

TEST_CASE("counts are added up and subtracted each for itself") {
  counts a{10, 20, 3};
  a += counts{1, 2, 3};
  const counts b = a - counts{4, 5, 6};
  CHECK(b.cycles == 7);
  CHECK(b.instructions == 17);
  CHECK(b.cache_misses == 0);
}
