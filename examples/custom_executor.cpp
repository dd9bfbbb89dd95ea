// SPDX-License-Identifier: MIT
// An executor of your own: who runs the independent tasks of a pass. Here a thread for each worker and pass; a server
// would hand the tasks to its own pool in the same way.
#include <hmoe/hmoe.hpp>
#include <hmoe/testing/executor_laws.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <iostream>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

using namespace hmoe;

/// Workers take the next task until none is left. An exception of a task is rethrown when all have ended, that of the
/// lowest task if there are several.
class threads {
public:
  explicit threads(std::size_t count) : count_(count) { require(count >= 1, "an executor of 0 threads"); }

  [[nodiscard]] std::size_t concurrency() const { return count_; }
  template <class Task> void for_each(std::size_t tasks, Task&& task) const {
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    std::exception_ptr problem;
    std::size_t problem_task = std::numeric_limits<std::size_t>::max();
    const auto work = [&](std::size_t worker) {
      for (std::size_t i = next++; i < tasks; i = next++)
        if (const std::exception_ptr thrown = exception_of([&] { task(i, worker); })) {
          const std::lock_guard lock(mutex);
          if (i < problem_task) {
            problem = thrown;
            problem_task = i;
          }
        }
    };
    {
      std::vector<std::jthread> others; // which join when they go
      for (std::size_t worker = 1; worker < std::min(count_, tasks); ++worker)
        others.emplace_back(work, worker);
      work(0);
    }
    if (problem)
      std::rethrow_exception(problem);
  }

private:
  std::size_t count_;
};

int main() {
  const testing::report laws = testing::check_executor(threads{3});
  std::cout << "laws: " << (laws.ok() ? "all kept\n" : "\n" + laws.text());

  moe_layer layer{expert_set{experts::glu_bank<float, experts::silu>{32, {16, 32, 48, 64}}},
                  routing::top_k_router<float>{32, 4, 2}};
  layer.initialize(seed{1}, {.router_stddev = 0.5});
  matrix<float> x(300, 32), y(300, 32), expected(300, 32);
  fill_normal(vector_view<float>(x.data(), x.size()), 1.0, seed{2}, 0);
  layer.forward(context{backends::reference{}, executors::serial{}}, x, expected);

  // The number of workers does not show in a bit.
  std::size_t different = 0;
  for (const std::size_t count : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
    layer.forward(context{backends::reference{}, threads{count}}, x, y);
    for (std::size_t i = 0; i < y.size(); ++i)
      different += y.data()[i] != expected.data()[i];
  }
  std::cout << different << " of " << 3 * y.size() << " values differ from those of one thread\n";
  return laws.ok() && different == 0 ? 0 : 1;
}
