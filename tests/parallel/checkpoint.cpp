// SPDX-License-Identifier: MIT
#include <hmoe/parallel/checkpoint.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/threads.hpp>

#include "parallel/shard_layer.hpp"
#include "support/counting_resource.hpp"
#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <vector>

namespace {
using support::shard_d, support::shard_layer, support::shard_placement, support::shard_rank, support::shard_values,
    support::shard_widths;

/// What the ranks have together; replicas must have the same.
shard_values together(const std::vector<shard_values>& ranks) {
  shard_values all;
  for (const shard_values& own : ranks)
    for (const auto& [name, values] : own)
      if (const auto [at, added] = all.try_emplace(name, values); !added)
        CHECK(at->second == values);
  return all;
}
} // namespace

TEST_CASE("a rank has the memory of its own experts only, and the bits of one that has all") {
  constexpr std::size_t ranks = 3;
  std::vector<std::vector<double>> own(ranks), whole(ranks);
  std::vector<std::size_t> bytes(ranks), expected(ranks, 0), gradients(ranks);
  std::size_t all = 0;
  const auto placed = shard_placement(ranks);
  // gate and up, down, and their biases; each expert's tensors are rounded up to whole cache lines
  const auto bytes_of = [](std::size_t h) { return 8 * (3 * shard_d * h + 2 * h + shard_d); };
  for (std::size_t e = 0; e < shard_widths.size(); ++e) {
    all += bytes_of(shard_widths[e]);
    for (std::size_t r = 0; r < ranks; ++r)
      expected[r] += bytes_of(placed.has(r, e) ? shard_widths[e] : 0);
  }
  hmoe::communicators::threads(ranks).run([&](const shard_rank& self) {
    support::counting_resource memory;
    {
      shard_layer<shard_rank> shard(self, true, &memory);
      shard.layer.initialize(hmoe::seed{4});
      own[self.rank()] = shard.train(self, 3);
      bytes[self.rank()] = memory.peak_bytes;
      for (const auto& p : shard.list)
        gradients[self.rank()] += p.expert != hmoe::parameter_info::no_expert ? p.gradient.size_bytes() : 0;
    }
    shard_layer<shard_rank> full(self, false);
    full.layer.initialize(hmoe::seed{4});
    whole[self.rank()] = full.train(self, 3);
  });
  for (std::size_t r = 0; r < ranks; ++r) {
    CAPTURE(r);
    CHECK(own[r] == whole[r]);
    CHECK(gradients[r] == expected[r]);
    CHECK(bytes[r] >= expected[r]);
    CHECK(bytes[r] < expected[r] + 2048); // four arrays of tensors, each rounded up
    CHECK(bytes[r] < all * 7 / 8);
  }
}

TEST_CASE("what n ranks have saved m ranks load, bit for bit, with the optimiser's state") {
  const support::scratch_folder folder;
  std::vector<shard_values> saved(3);
  hmoe::communicators::threads(3).run([&](const shard_rank& self) {
    shard_layer<shard_rank> shard(self);
    shard.layer.initialize(hmoe::seed{5});
    shard.train(self, 2);
    saved[self.rank()] = shard.values(self.rank());
    hmoe::parallel::save_checkpoint(self, shard.layer, hmoe::parallel::optimizer_of{shard.list, *shard.optimizer},
                                    folder.path().string(), "l.");
  });
  const shard_values before = together(saved);
  CHECK(before.size() == 3 * (5 * 6 + 1));
  CHECK(folder.entries() == 4); // three files and the index
  for (const std::size_t ranks : {1U, 2U, 4U}) {
    CAPTURE(ranks);
    std::vector<shard_values> loaded(ranks);
    hmoe::communicators::threads(ranks).run([&](const shard_rank& self) {
      shard_layer<shard_rank> shard(self, ranks != 4);
      hmoe::parallel::load_checkpoint(self, shard.layer, hmoe::parallel::optimizer_of{shard.list, *shard.optimizer},
                                      folder.path().string(), "l.");
      loaded[self.rank()] = shard.values(self.rank());
      hmoe::require(shard.optimizer->steps() == 2, "steps are lost");
    });
    CHECK(together(loaded) == before);
  }
  // And each of its tensors is in the files once, for any program.
  const hmoe::io::sharded_safetensors files(folder.path().string());
  CHECK(files.tensors().size() == before.size());
  CHECK(hmoe::io::read_ragged_shards(files, "l.").widths() == shard_widths);
}

TEST_CASE("what goes wrong with a checkpoint on one rank is an error on all") {
  const support::scratch_folder folder;
  std::vector<std::string> texts(2);
  const auto run = [&](const auto& f) {
    hmoe::communicators::threads(2).run([&](const shard_rank& self) {
      shard_layer<shard_rank> shard(self);
      texts[self.rank()] = support::error_of([&] { f(self, shard); });
    });
  };
  run([&](const shard_rank& self, auto& shard) {
    hmoe::parallel::save_checkpoint(self, shard.layer, (folder / (self.rank() == 1 ? "nowhere" : "")).string());
  });
  CHECK(texts[1].find("nowhere") != std::string::npos);
  CHECK(texts[0].starts_with("hmoe: save_checkpoint: rank 1 has failed: "));
  run([&](const shard_rank& self, auto& shard) {
    hmoe::parallel::save_checkpoint(self, shard.layer, folder.path().string());
    hmoe::parallel::load_checkpoint(self, shard.layer, folder.path().string());
  });
  CHECK(texts[0] == "no error");
  // Without a state of an optimiser.
  run([&](const shard_rank& self, auto& shard) {
    hmoe::parallel::load_checkpoint(self, shard.layer, hmoe::parallel::optimizer_of{shard.list, *shard.optimizer},
                                    folder.path().string());
  });
  CHECK(texts[0].find("has no tensor \"optimizer.first_moment.l.") != std::string::npos);
}
