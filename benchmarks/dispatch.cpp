// SPDX-License-Identifier: MIT
// Dispatch strategies side by side: all that strategies.cpp lists or a file of one's own registers (registration.hpp),
// and dispatch::automatic by the cost model (`automatic`) and by a table (`tuned`), on the points of dispatch/grid.hpp,
// in cells named
//   dispatch/SHAPE/FORMAT/STRATEGY/tokens:T/LOAD/PHASE/threads:N
// Strategies of a point take turns, since on a shared machine minutes differ more than strategies do; a benchmark
// library that measures one after the other cannot tell them apart. Weights are cold: copies of them take turns, too.
// The assignment is given, so times are those of plan, experts and combine, without a router. Results are JSON lines,
// appended to --out when a point is complete; what stands there is not measured again.
#include <hmoe/dispatch/automatic.hpp>
#include <hmoe/dispatch/capacity.hpp>
#include <hmoe/io/tuned_table.hpp>

#include "dispatch/any_strategy.hpp"
#include "dispatch/grid.hpp"
#include "dispatch/loads.hpp"
#include "dispatch/measure.hpp"
#include "dispatch/options.hpp"
#include "dispatch/results.hpp"
#include "dispatch/workshop.hpp"
#include "support/machine.hpp"

#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace benchmarks;
namespace dispatch = hmoe::dispatch;

multiplier kind_of(const std::string& format) {
  if (format == "bf16")
    return multiplier::bf16;
  return format == "q8" || format == "q4" ? multiplier::int8 : multiplier::f32;
}

/// The limits of the machine by which `automatic` picks and the model predicts, for one form of weights.
std::string limits_line(const dispatch_point& at, const dispatch::machine_limits& machine) {
  return line_of({{"machine", at.shape->name + "/" + at.format + "/threads:" + std::to_string(at.threads)},
                  {"shape", at.shape->name},
                  {"format", at.format},
                  {"threads", at.threads},
                  {"flops", machine.flops},
                  {"first_read", machine.first_read},
                  {"next_read", machine.next_read},
                  {"read_by_token", machine.read_by_token},
                  {"not_hidden", machine.not_hidden},
                  {"scattered_read", machine.scattered_read},
                  {"scattered_row", machine.scattered_row},
                  {"cache_bytes", machine.cache_bytes},
                  {"row_copy", machine.row_copy},
                  {"wait_seconds", machine.wait_seconds},
                  {"task_seconds", machine.task_seconds},
                  {"loop_seconds", machine.loop_seconds},
                  {"plan_seconds", machine.plan_seconds}});
}

std::vector<std::size_t> widths_of(const dispatch_shape& shape) {
  std::vector<std::size_t> all = shape.widths;
  all.insert(all.end(), shape.mlp_widths.begin(), shape.mlp_widths.end());
  all.insert(all.end(), shape.identities, 0);
  return all;
}

/// What capacities do to a load, without any time: shares of dropped entries, of spare rows and of their FLOPs where
/// experts are padded, and the largest FLOPs of an expert ÷ the mean. An expert of the width h costs h a row.
std::string capacity_lines(const dispatch_shape& shape, const std::string& load,
                           const hmoe::assignment<float>& assigned) {
  const std::vector<std::size_t> widths = widths_of(shape);
  std::vector<std::size_t> rows(widths.size()), most(widths.size());
  for (const hmoe::index_t e : assigned.experts())
    ++rows[e];
  const hmoe::capacity::demand demand{assigned.tokens(), assigned.size(),
                                      hmoe::vector_view<const std::size_t>(widths.data(), widths.size()),
                                      hmoe::vector_view<const std::size_t>(rows.data(), rows.size())};
  std::string text;
  for (const double factor : {1.0, 1.25, 1.5, 2.0, 4.0})
    for (const bool by_width : {false, true}) {
      const hmoe::vector_view<std::size_t> limits(most.data(), most.size());
      if (by_width)
        hmoe::capacity::by_width{.factor = factor}.limits(demand, limits);
      else
        hmoe::capacity::by_factor{.factor = factor}.limits(demand, limits);
      double dropped = 0, run = 0, spare = 0, work = 0, wasted = 0, heaviest = 0, useful = 0;
      for (std::size_t e = 0; e < widths.size(); ++e) {
        const bool open = most[e] == hmoe::capacity::unlimited;
        const double limit = static_cast<double>(open ? rows[e] : std::min(most[e], assigned.tokens()));
        const double demanded = static_cast<double>(rows[e]), kept = std::min(demanded, limit);
        const auto h = static_cast<double>(widths[e]);
        dropped += demanded - kept;
        run += limit;
        spare += limit - kept;
        work += limit * h;
        wasted += (limit - kept) * h;
        useful += kept * h;
        heaviest = std::max(heaviest, kept * h);
      }
      text += line_of({{"capacity", by_width ? "by_width" : "by_factor"},
                       {"shape", shape.name},
                       {"load", load},
                       {"tokens", assigned.tokens()},
                       {"factor", factor},
                       {"dropped", dropped / static_cast<double>(assigned.size())},
                       {"padding", run > 0 ? spare / run : 0.0},
                       {"wasted_flops", work > 0 ? wasted / work : 0.0},
                       {"imbalance", useful > 0 ? heaviest * static_cast<double>(widths.size()) / useful : 1.0}});
    }
  return text;
}

/// FLOPs and bytes of weights of a pass: three times as many FLOPs in training, and weights read twice and their
/// gradients read and written.
struct pass_cost {
  double flops = 0, bytes = 0, imbalance = 1;
};
pass_cost cost_of(const dispatch::dispatch_load& load) {
  pass_cost cost;
  double heaviest = 0;
  for (const dispatch::expert_work& e : load.experts) {
    const double flops = static_cast<double>(e.rows) * e.flops_per_row;
    cost.flops += flops;
    heaviest = std::max(heaviest, flops);
    cost.bytes += e.rows != 0 ? e.bytes : 0;
  }
  cost.imbalance = cost.flops > 0 ? heaviest * static_cast<double>(load.experts.size()) / cost.flops : 1;
  cost.flops *= load.training ? 3 : 1;
  cost.bytes *= load.training ? 4 : 1;
  return cost;
}

/// The loads of a point's assignments, which passes take in turn.
class point_loads {
public:
  point_loads(const any_experts& experts, const std::vector<hmoe::assignment<float>>& assigned,
              const dispatch_point& at)
      : work_(assigned.size(), std::vector<dispatch::expert_work>(experts.size())) {
    const dispatch_context ctx({}, hmoe::executors::openmp{at.threads}, switched_stages{});
    for (std::size_t i = 0; i < assigned.size(); ++i)
      loads_.push_back(dispatch::load_of(ctx, experts, assigned[i], at.training,
                                         hmoe::vector_view<dispatch::expert_work>(work_[i].data(), work_[i].size())));
  }
  [[nodiscard]] const dispatch::dispatch_load& first() const { return loads_.front(); }
  /// What another model needs to be tried on the times of a point.
  [[nodiscard]] std::string line(const dispatch_point& at) const {
    json line{{"batch", at.name("*")},
              {"row_bytes", first().row_bytes},
              {"phases", first().phases},
              {"scatter_copies", first().scatter_copies}};
    for (const dispatch::expert_work& e : first().experts) {
      line["flops_per_row"].push_back(e.flops_per_row);
      line["bytes"].push_back(e.bytes);
    }
    for (const dispatch::dispatch_load& load : loads_) {
      json rows;
      for (const dispatch::expert_work& e : load.experts)
        rows.push_back(e.rows);
      line["rows"].push_back(std::move(rows));
    }
    return line_of(line);
  }
  /// The mean of what the model predicts, each with the strategy that which(load) takes.
  template <class F> [[nodiscard]] double predicted(const dispatch::machine_limits& machine, const F& which) const {
    double sum = 0;
    for (const dispatch::dispatch_load& load : loads_)
      sum += dispatch::predict(which(load), load, machine).total();
    return sum / static_cast<double>(loads_.size());
  }

private:
  std::vector<std::vector<dispatch::expert_work>> work_;
  std::vector<dispatch::dispatch_load> loads_;
};

std::string cell_line(const dispatch_point& at, const cell_result& cell, const point_loads& loads,
                      const dispatch::machine_limits& machine, const dispatch::tuned_table& table,
                      const limits& limit) {
  json line;
  line["name"] = at.name(cell.strategy);
  line["shape"] = at.shape->name;
  line["format"] = at.format;
  line["strategy"] = cell.strategy;
  line["tokens"] = at.tokens;
  line["load"] = at.load;
  line["phase"] = at.training ? "training" : "forward";
  line["threads"] = at.threads;
  line["held_out"] = held_out(at);
  line["drops"] = cell.drops;
  if (!cell.error.empty()) {
    line["error"] = cell.error;
    return line_of(line);
  }
  const double median = quantile(cell.seconds, 0.5);
  line["seconds"] = median;
  line["q25"] = quantile(cell.seconds, 0.25);
  line["q75"] = quantile(cell.seconds, 0.75);
  line["runs"] = cell.seconds.size();
  if (!cell.shares.empty()) {
    line["share_of_even_rounds"] = quantile(every_second(cell.shares, 0), 0.5);
    line["share_of_odd_rounds"] = quantile(every_second(cell.shares, 1), 0.5);
  }
  if (at.tokens <= 16)
    line["p99"] = quantile(cell.seconds, 0.99);
  const auto quickest = [&](const dispatch::dispatch_load& load) { return dispatch::quickest(load, machine); };
  if (cell.strategy == "automatic") {
    line["predicted"] = loads.predicted(machine, quickest);
    line["picked"] = std::string(dispatch::name_of(quickest(loads.first())));
  }
  if (cell.strategy == "tuned")
    line["picked"] = std::string(
        dispatch::name_of(table.pick(at.tokens, dispatch::effective_experts(loads.first()), loads.first().training)));
  for (std::size_t i = 0; i < dispatch::strategy_count; ++i)
    if (const auto s = static_cast<dispatch::strategy>(i); cell.strategy == dispatch::name_of(s))
      line["predicted"] = loads.predicted(machine, [&](const auto&) { return s; });
  const pass_cost cost = cost_of(loads.first());
  line["flops"] = cost.flops;
  line["bytes"] = cost.bytes;
  line["imbalance"] = cost.imbalance;
  line["peak"] = limit.peak;
  line["dram"] = limit.dram;
  line["efficiency"] = std::max(cost.flops / limit.peak, cost.bytes / limit.dram) / median;
  line["rows"] = cell.rows;
  line["padding"] = cell.padding;
  line["dropped"] = cell.dropped;
  line["workspace"] = cell.workspace;
  for (std::size_t i = 0; i < cell.stages.size(); ++i)
    if (cell.stages[i] > 0) {
      const auto s = static_cast<hmoe::probes::stage>(i % hmoe::probes::stage_count);
      line[(i < hmoe::probes::stage_count ? "stage " : "stage backward ") + std::string(hmoe::probes::name_of(s))] =
          cell.stages[i];
    }
  return line_of(line);
}

/// The strategies that keep the laws; the others are told, and get no cell.
std::vector<named_strategy> lawful(results_file& out) {
  std::vector<named_strategy> kept;
  for (const named_strategy& s : strategies()) {
    hmoe::require(std::regex_match(s.name, std::regex("[A-Za-z0-9_.]+")) && s.name != "automatic" && s.name != "tuned",
                  "a dispatch strategy is called \"", s.name, "\": give a name of letters, digits, _ and .");
    for (const named_strategy& other : kept)
      hmoe::require(other.name != s.name, "two dispatch strategies are called ", s.name);
    const std::string broken = s.laws ? s.laws() : "";
    if (broken.empty())
      kept.push_back(s);
    else {
      std::cerr << s.name << " breaks the laws of dispatch and is not measured:\n" << broken << "\n";
      out.write(line_of({{"refused", s.name}, {"reason", broken}}));
    }
  }
  return kept;
}

std::string minutes(double seconds) {
  return seconds < 90 ? std::to_string(static_cast<int>(std::ceil(seconds))) + " s"
                      : std::to_string(static_cast<int>(std::ceil(seconds / 60))) + " min";
}

/// How long a point takes, in units of one with few tokens.
double expected_effort(const dispatch_point& p) {
  return 1 + static_cast<double>(p.tokens) / 400 * (p.training ? 3 : 1);
}

void run(const dispatch_options& chosen) {
  const std::size_t cores = hmoe::executors::openmp{}.concurrency();
  const std::regex filter(chosen.filter);
  const auto log = chosen.log.empty() ? std::vector<hmoe::io::routing_log_record<float>>{} : read_log(chosen.log);
  const auto in_log = [&](const dispatch_shape& shape) {
    return std::ranges::any_of(log, [&](const auto& record) { return record.experts == shape.experts(); });
  };
  std::vector<dispatch_point> points;
  for (const dispatch_point& p : whole_grid(cores))
    if ((p.load != "recorded" || in_log(*p.shape)) &&
        (!chosen.filter.empty() || in_default_grid(p, chosen.quick, cores)))
      points.push_back(p);
  const auto wanted = [&](const std::string& name) { return chosen.filter.empty() || std::regex_search(name, filter); };

  if (chosen.list) {
    for (const dispatch_point& p : points) {
      for (const named_strategy& s : strategies())
        if (wanted(p.name(s.name)))
          std::cout << p.name(s.name) << "\n";
      for (const std::string_view picks : {"automatic", "tuned"})
        if (wanted(p.name(std::string(picks))))
          std::cout << p.name(std::string(picks)) << "\n";
    }
    return;
  }

  results_file out(chosen.out);
  const std::vector<named_strategy> all = lawful(out);
  // A point is measured as a whole, so that its times are of the same minutes.
  const auto missing = [&](const dispatch_point& p) {
    const auto lacks = [&](const std::string& name) { return wanted(p.name(name)) && !out.has(p.name(name)); };
    return lacks("automatic") || lacks("tuned") ||
           std::ranges::any_of(all, [&](const named_strategy& s) { return lacks(s.name); });
  };
  std::erase_if(points, [&](const dispatch_point& p) { return !missing(p); });
  out.write(line_of({{"run", hmoe::io::cpu_name()},
                     {"threads", cores},
                     {"compiler", HMOE_BENCHMARKS_COMPILER},
                     {"seconds", chosen.seconds},
                     {"points", points.size()}}));

  double effort = 0, done = 0;
  for (const dispatch_point& p : points)
    effort += expected_effort(p);
  const auto start = benchmarks::clock::now();
  dispatch_workshop shop(chosen.seconds);
  std::set<std::string> told;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const dispatch_point& at = points[i];
    const auto& copies = shop.take(*at.shape, at.format);
    const dispatch::machine_limits& machine = shop.limits(at.threads);
    std::string lines;
    if (told.insert(at.shape->name).second)
      lines += line_of({{"described", at.shape->name},
                        {"d_model", at.shape->d_model},
                        {"k", at.shape->k},
                        {"widths", widths_of(*at.shape)}});
    const auto load_of_size = [&](std::size_t tokens, std::uint64_t stream) {
      return at.load == "recorded" ? recorded_load(log, tokens, at.shape->experts(), stream)
                                   : make_load(at.load, tokens, at.shape->experts(), at.shape->k, stream);
    };
    if (told.insert(at.shape->name + "/" + at.load).second)
      lines += capacity_lines(*at.shape, at.load, load_of_size(1024, 0));
    std::vector<hmoe::assignment<float>> assigned;
    for (std::uint64_t variant = 0; variant < (at.tokens <= 64 ? 4 : 1); ++variant)
      assigned.push_back(load_of_size(at.tokens, variant));

    std::vector<named_strategy> racing;
    for (const named_strategy& s : all) // the first one is the oracle
      if (racing.empty() || wanted(at.name(s.name)))
        racing.push_back(s);
    if (wanted(at.name("automatic")))
      racing.push_back(make_strategy("automatic", dispatch::automatic{machine}));
    const dispatch::automatic tuned{shop.table(at.threads, at.training), machine};
    if (wanted(at.name("tuned")))
      racing.push_back(make_strategy("tuned", tuned));
    const limits limit = limits_now(kind_of(at.format), at.threads);
    const auto results =
        measure_point(racing, {copies, assigned, at.tokens, at.threads, at.training}, {.seconds = chosen.seconds});

    const point_loads loads(*copies[0], assigned, at);
    lines += limits_line(at, machine) + loads.line(at);
    std::string best;
    double least = 1e30;
    for (const cell_result& cell : results) {
      if (wanted(at.name(cell.strategy)))
        lines += cell_line(at, cell, loads, machine, tuned.table(), limit);
      if (!cell.drops && cell.strategy != "automatic" && cell.strategy != "tuned" && cell.error.empty() &&
          quantile(cell.seconds, 0.5) < least) {
        least = quantile(cell.seconds, 0.5);
        best = cell.strategy;
      }
    }
    out.write(lines);
    done += expected_effort(at);
    const double passed = seconds(benchmarks::clock::now() - start).count();
    std::fprintf(stderr, "[%zu/%zu] %s: %s, %.3f ms; about %s left\n", i + 1, points.size(), at.name("*").c_str(),
                 best.c_str(), 1e3 * least, minutes(passed * (effort - done) / done).c_str());
  }
  out.write(line_of({{"end", points.size()}}));
}

} // namespace

int main(int count, char** values) {
  try {
    run(parse_options(count, values));
  } catch (const std::regex_error&) {
    std::cerr << "dispatch: --filter needs a regular expression\n";
    return 1;
  } catch (const std::exception& reason) {
    std::cerr << "dispatch: " << reason.what() << "\n";
    return 1;
  }
}
