// SPDX-License-Identifier: MIT
#pragma once

#include <hmoe/core/macros_off.hpp>

#include <hmoe/core/error.hpp>
#include <hmoe/execution/probe.hpp>
#include <hmoe/io/file_writer.hpp>

#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hmoe::probes {

/// Writes the passes as a timeline, a row per worker, in the trace event format of Chrome, which ui.perfetto.dev opens:
/// context{backend, executor, probes::trace{"run.json"}}, then ctx.probe().write(), or the end of the context's life.
/// A path that cannot be written to is an hmoe::error at once; the file appears complete or not at all. Memory for
/// `events` events of each worker is taken when the context is made; later events are counted and left out.
class trace {
public:
  explicit trace(std::string path, std::size_t events = std::size_t{1} << 16U) : state_(std::make_unique<state>()) {
    require(events >= 1, "probes::trace with room for 0 events");
    static_cast<void>(io::file_writer(path)); // refuses what cannot be written
    state_->path = std::move(path);
    state_->most = events;
  }
  trace(trace&&) noexcept = default;
  trace& operator=(trace&& other) noexcept {
    if (this != &other) {
      finish();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  ~trace() { finish(); }

  void prepare(std::size_t workers) {
    state_->workers.clear();
    state_->workers.resize(workers);
    for (of_worker& own : state_->workers)
      own.done.reserve(state_->most);
    state_->start = clock::now();
  }
  void begin(const event& e) noexcept {
    of_worker& own = state_->workers[e.worker];
    if (own.depth < own.open.size())
      own.open[own.depth] = clock::now();
    ++own.depth;
  }
  void end(const event& e) noexcept {
    const clock::time_point now = clock::now();
    of_worker& own = state_->workers[e.worker];
    if (--own.depth >= own.open.size() || own.done.size() == own.done.capacity()) {
      ++own.left_out;
      return;
    }
    own.done.push_back({e, own.open[own.depth], now});
    state_->written.store(false, std::memory_order_relaxed);
  }

  /// Events that were kept, and those for which there was no room.
  [[nodiscard]] std::size_t kept() const noexcept {
    std::size_t count = 0;
    for (const of_worker& own : state_->workers)
      count += own.done.size();
    return count;
  }
  [[nodiscard]] std::size_t left_out() const noexcept {
    std::size_t count = 0;
    for (const of_worker& own : state_->workers)
      count += own.left_out;
    return count;
  }

  /// Writes all events so far, in the place of an earlier file; between passes.
  void write() {
    io::file_writer file(state_->path);
    const auto put = [&](std::string_view text) { file.write(std::as_bytes(std::span(text.data(), text.size()))); };
    put("{\"displayTimeUnit\": \"ms\", \"otherData\": {\"events left out\": " + std::to_string(left_out()) +
        "}, \"traceEvents\": [\n" +
        R"({"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "hmoe"}})");
    for (std::size_t w = 0; w < state_->workers.size(); ++w) {
      const std::string number = std::to_string(w);
      put(",\n{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": 1, \"tid\": ");
      put(number);
      put(", \"args\": {\"name\": \"worker ");
      put(number);
      put("\"}}");
      for (const span_of& s : state_->workers[w].done)
        put(text_of(s, number));
    }
    put("\n]}\n");
    file.commit();
    state_->written = true;
  }

private:
  using clock = std::chrono::steady_clock;
  struct span_of {
    probes::event event;
    clock::time_point begin, end;
  };
  struct alignas(64) of_worker {
    std::vector<span_of> done;
    std::array<clock::time_point, 32> open{};
    std::size_t depth = 0, left_out = 0;
  };
  struct state {
    std::string path;
    std::size_t most = 0;
    std::vector<of_worker> workers;
    clock::time_point start;
    std::atomic<bool> written = true;
  };

  /// In any locale.
  static std::string number(double value, int digits) {
    char text[64];
    const auto done = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, digits);
    return {text, done.ptr};
  }
  [[nodiscard]] std::string text_of(const span_of& s, const std::string& worker) const {
    const auto microseconds = [](clock::duration d) {
      return number(std::chrono::duration<double, std::micro>(d).count(), 3);
    };
    const event& e = s.event;
    std::string text = std::string(",\n{\"name\": \"") + name_of(e.stage) + "\", \"cat\": \"" +
                       (e.direction == direction::forward ? "forward" : "backward") +
                       "\", \"ph\": \"X\", \"pid\": 1, \"tid\": " + worker +
                       ", \"ts\": " + microseconds(s.begin - state_->start) +
                       ", \"dur\": " + microseconds(s.end - s.begin) + ", \"args\": {";
    if (e.expert != no_expert)
      text += "\"expert\": " + std::to_string(e.expert) + ", ";
    return text + "\"rows\": " + std::to_string(e.rows) + ", \"bytes\": " + number(e.bytes, 0) +
           ", \"flops\": " + number(e.flops, 0) + "}}";
  }
  /// The last chance to write; whoever wants to know of errors calls write().
  void finish() noexcept {
    if (state_ != nullptr && !state_->written)
      static_cast<void>(exception_of([this] { write(); }));
  }

  std::unique_ptr<state> state_;
};

} // namespace hmoe::probes

#include <hmoe/core/macros_on.hpp>
