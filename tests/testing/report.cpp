// SPDX-License-Identifier: MIT
#include <hmoe/testing/report.hpp>

#include <doctest/doctest.h>

#include <stdexcept>

TEST_CASE("a report has one sentence per broken law: the first case that broke it") {
  hmoe::testing::report found;
  CHECK(found.ok());
  CHECK(found.text() == "");
  CHECK(found.expect(true, "kept", "never said"));
  CHECK(!found.expect(false, "weights are positive", "expert ", 3, " has ", -0.5));
  CHECK(!found.expect(false, "weights are positive", "expert ", 4, " has ", -1));
  CHECK(!found.expect(false, "weights", "another law whose name begins the same"));
  found.expect_no_throw("runs", [] { throw std::runtime_error("no memory"); });
  found.expect_no_throw("runs too", [] {});
  CHECK(!found.ok());
  CHECK(found.sentences().size() == 3);
  CHECK(found.text() == "weights are positive: expert 3 has -0.5\n"
                        "weights: another law whose name begins the same\n"
                        "runs: an exception was thrown: no memory\n");
  CHECK(found.mentions("expert 3"));
  CHECK(!found.mentions("expert 4"));
}
