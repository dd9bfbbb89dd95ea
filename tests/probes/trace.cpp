// SPDX-License-Identifier: MIT
#include <hmoe/probes/trace.hpp>
#include <hmoe/testing/probe_laws.hpp>

#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#if __has_include(<nlohmann/json.hpp>)
#include <hmoe/io/json.hpp>
#endif

using namespace hmoe::probes;

#if __has_include(<nlohmann/json.hpp>)
TEST_CASE("the file is valid in the trace event format: a row per worker, stages inside their passes, forward and "
          "backward") {
  const support::scratch_folder folder;
  const std::string path = folder.path() / "run.json";
  trace probe(path);
  const auto found = hmoe::testing::check_probe(probe);
  CHECK_MESSAGE(found.ok(), found.text());
  const std::size_t kept = probe.kept();
  CHECK(probe.left_out() == 0);
  probe.write();
  const auto json = hmoe::io::parse_json(support::contents_of(path), path);
  struct span {
    double begin, end;
  };
  std::map<std::uint64_t, std::vector<span>> of_worker; // the order in which stages end
  std::map<std::uint64_t, std::string> names;
  std::size_t events = 0, passes = 0, backward = 0, with_expert = 0;
  for (const auto& e : json.at("traceEvents", path).elements("events")) {
    const std::string kind = e.at("ph", path).text("ph");
    const std::uint64_t worker = e.at("tid", path).natural("tid");
    CHECK(e.at("pid", path).natural("pid") == 1);
    if (kind == "M") {
      if (e.at("name", path).text("name") == "thread_name")
        names[worker] = e.at("args", path).at("name", path).text("name");
      continue;
    }
    REQUIRE(kind == "X");
    ++events;
    const double begin = e.at("ts", path).number("ts"), duration = e.at("dur", path).number("dur");
    CHECK(begin >= 0);
    CHECK(duration >= 0);
    of_worker[worker].push_back({begin, begin + duration});
    passes += e.at("name", path).text("name") == "pass" ? 1 : 0;
    backward += e.at("cat", path).text("cat") == "backward" ? 1 : 0;
    const auto& numbers = e.at("args", path);
    CHECK(numbers.at("flops", path).number("flops") >= 0);
    CHECK(numbers.at("bytes", path).number("bytes") >= 0);
    static_cast<void>(numbers.at("rows", path).natural("rows"));
    with_expert += numbers.find("expert") != nullptr ? 1 : 0;
  }
  CHECK(events == kept);
  CHECK(passes == 4); // two runs, forward and backward
  CHECK(backward > 10);
  CHECK(with_expert > 10);
  CHECK(names == std::map<std::uint64_t, std::string>{{0, "worker 0"}, {1, "worker 1"}, {2, "worker 2"}});
  // Of a worker, spans nest or lie apart (rounded to a nanosecond).
  for (const auto& [worker, spans] : of_worker)
    for (std::size_t i = 1; i < spans.size(); ++i) {
      const span &inner = spans[i - 1], &next = spans[i];
      CHECK((next.begin >= inner.end - 2e-3 || next.begin <= inner.begin + 2e-3));
    }
}
#endif

TEST_CASE("a path that cannot be written to is refused before any pass") {
  const support::scratch_folder folder;
  CHECK(support::error_of([&] { trace probe(folder.path() / "none" / "run.json"); }).find("cannot write") !=
        std::string::npos);
  CHECK(support::error_of([&] { trace probe(folder.path()); }).find("it is a folder") != std::string::npos);
  CHECK(support::error_of([] { trace probe(""); }).find("not the name of a file") != std::string::npos);
  CHECK(support::error_of([&] { trace probe(folder.path() / "run.json", 0); }) ==
        "hmoe: probes::trace with room for 0 events");
  CHECK(folder.entries() == 0);
}

TEST_CASE("what finds no room is counted, and the end of its life writes the file once") {
  const support::scratch_folder folder;
  const std::string path = folder.path() / "run.json";
  {
    trace probe(path, 3);
    probe.prepare(1);
    const event e(stage::down, direction::forward, 1);
    for (int i = 0; i < 5; ++i) {
      probe.begin(e);
      probe.end(e);
    }
    CHECK(probe.kept() == 3);
    CHECK(probe.left_out() == 2);
    trace moved = std::move(probe);
    CHECK(moved.kept() == 3);
  }
  CHECK(support::contents_of(path).find("\"events left out\": 2") != std::string::npos);
  CHECK(folder.entries() == 1);
  {
    trace unused(folder.path() / "other.json");
    unused.prepare(1);
  }
  CHECK(folder.entries() == 1); // no event: no file
}
