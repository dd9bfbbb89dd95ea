// SPDX-License-Identifier: MIT
#include <hmoe/experts/expert_set.hpp>
#include <hmoe/experts/identity.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/parallel/checkpoint.hpp>
#include <hmoe/parallel/expert_parallel.hpp>
#include <hmoe/parallel/placement.hpp>
#include <hmoe/parallel/threads.hpp>
#include <hmoe/routing/router.hpp>

#include "parallel/shard_layer.hpp"
#include "support/counting_resource.hpp"
#include "support/error_of.hpp"
#include "support/scratch_folder.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
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
/// f(rank, its layer) on two ranks; what each has afterwards, and the texts of their errors.
template <class F> std::vector<shard_values> on_two_ranks(std::vector<std::string>& texts, const F& f) {
  std::vector<shard_values> values(2);
  texts.resize(2);
  hmoe::communicators::threads(2).run([&](const shard_rank& self) {
    shard_layer<shard_rank> shard(self);
    texts[self.rank()] = support::error_of([&] { f(self, shard); });
    values[self.rank()] = shard.values(self.rank());
  });
  return values;
}
template <class Shard> void save_shard(const shard_rank& self, Shard& shard, const std::string& folder) {
  hmoe::parallel::save_checkpoint(self, shard.layer, hmoe::parallel::optimizer_of{shard.list, *shard.optimizer}, folder,
                                  "l.");
}
template <class Shard> void load_shard(const shard_rank& self, Shard& shard, const std::string& folder) {
  hmoe::parallel::load_checkpoint(self, shard.layer, hmoe::parallel::optimizer_of{shard.list, *shard.optimizer}, folder,
                                  "l.");
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

TEST_CASE("experts without tensors that are alone on their ranks come back") {
  const support::scratch_folder folder;
  // Rank 1 has an expert of width 0 without biases, rank 2 an identity: their files have no tensor.
  const hmoe::expert_placement placed(3, {{{0, 1.0}}, {{1, 1.0}}, {{2, 1.0}}});
  std::vector<std::string> texts(3);
  std::vector<double> loaded(3);
  hmoe::communicators::threads(3).run([&](const shard_rank& self) {
    using identity = hmoe::experts::identity_bank<double>;
    hmoe::moe_layer layer{
        hmoe::expert_set{support::shard_bank(shard_d, {self.rank() == 0 ? 4U : 0U, 0}), identity(shard_d)},
        hmoe::routing::top_k_router<double>(shard_d, 3, 1), hmoe::dispatch::expert_parallel<shard_rank>{self, placed}};
    texts[self.rank()] = support::error_of([&] {
      layer.router().score().weight()(2, 1) = 7;
      hmoe::parallel::save_checkpoint(self, layer, folder.path().string());
      layer.router().score().weight()(2, 1) = 0;
      hmoe::parallel::load_checkpoint(self, layer, folder.path().string());
    });
    loaded[self.rank()] = layer.router().score().weight()(2, 1);
  });
  CHECK(texts == std::vector<std::string>(3, "no error"));
  CHECK(loaded == std::vector<double>(3, 7));
}

TEST_CASE("a save that fails on the way leaves the checkpoint before it as it was") {
  const support::scratch_folder folder;
  const std::string path = folder.path().string();
  std::vector<std::string> texts;
  const auto save = [&](std::uint64_t seed, bool complete) {
    return on_two_ranks(texts, [&](const shard_rank& self, auto& shard) {
      shard.layer.initialize(hmoe::seed{seed});
      shard.optimizer->set_steps(seed);
      save_shard(self, shard, self.rank() == 0 || complete ? path : path + "/nowhere");
    });
  };
  const auto load = [&](std::uint64_t steps) {
    return on_two_ranks(texts, [&](const shard_rank& self, auto& shard) {
      load_shard(self, shard, path);
      hmoe::require(shard.optimizer->steps() == steps, "the steps are of another save");
    });
  };
  const auto first = save(1, true);
  save(2, false); // rank 0 has written its file, rank 1 has not
  CHECK(texts[0].starts_with("hmoe: save_checkpoint: rank 1 has failed: "));
  CHECK(load(1) == first);
  CHECK(texts[0] == "no error");
  for (const std::uint64_t seed : {3U, 4U, 5U}) {
    const auto later = save(seed, true);
    CHECK(load(seed) == later);
    CHECK(texts[0] == "no error");
    CHECK(folder.entries() == 3); // two files and the index: the files of the saves before are gone
  }
}

TEST_CASE("a folder that has another layer is refused, and keeps it") {
  const support::scratch_folder folder;
  const std::string path = folder.path().string();
  std::vector<std::string> texts;
  const auto first = on_two_ranks(texts, [&](const shard_rank& self, auto& shard) { save_shard(self, shard, path); });
  on_two_ranks(texts, [&](const shard_rank& self, auto& shard) {
    shard.layer.initialize(hmoe::seed{6});
    hmoe::parallel::save_checkpoint(self, shard.layer, path, "m.");
  });
  const std::string why =
      path + " has a checkpoint of something else than the layer \"m.\": save this layer into a folder of its own";
  CHECK(texts == std::vector<std::string>{"hmoe: " + why, "hmoe: save_checkpoint: rank 0 has failed: " + why});
  CHECK(on_two_ranks(texts, [&](const shard_rank& self, auto& shard) { load_shard(self, shard, path); }) == first);
}

TEST_CASE("a number of steps that is none, or differs between files, is refused before anything is read") {
  const support::scratch_folder folder;
  const std::string path = folder.path().string(), steps = "12345678901234567890";
  std::vector<std::string> texts;
  on_two_ranks(texts, [&](const shard_rank& self, auto& shard) {
    shard.layer.initialize(hmoe::seed{7});
    shard.optimizer->set_steps(12345678901234567890U);
    save_shard(self, shard, path);
  });
  const auto put = [&](std::size_t shard, const std::string& was, std::string text) {
    const std::filesystem::path file = folder / hmoe::io::shard_name(shard, 2);
    std::string bytes = support::contents_of(file);
    text += '"' + std::string(steps.size() - text.size(), ' '); // as many bytes
    bytes.replace(bytes.find(was + '"'), text.size(), text);
    support::set_contents(file, bytes);
  };
  const auto load = [&] {
    return on_two_ranks(texts, [&](const shard_rank& self, auto& shard) { load_shard(self, shard, path); });
  };
  const auto untouched = on_two_ranks(texts, [](const shard_rank&, auto&) {});
  for (const std::string text : {"98765432109876543210", "1234567890123456789x", "-1"}) {
    const std::string kept[]{support::contents_of(folder / hmoe::io::shard_name(0, 2)),
                             support::contents_of(folder / hmoe::io::shard_name(1, 2))};
    put(0, steps, text);
    put(1, steps, text);
    CHECK(load() == untouched);
    CHECK(texts[0].find("is no number of steps") != std::string::npos);
    CHECK(texts[0].find(text) != std::string::npos);
    for (std::size_t s = 0; s < 2; ++s)
      support::set_contents(folder / hmoe::io::shard_name(s, 2), kept[s]);
  }
  put(1, steps, "2");
  CHECK(load() == untouched);
  CHECK(texts[0].find("optimizer_steps is \"2\" in ") != std::string::npos);
  CHECK(texts[0].find(", \"" + steps + "\" in a file before: the files are of different saves") != std::string::npos);
  put(0, steps, "");
  CHECK(load() == untouched);
  CHECK(texts[0].find("\"\" is no number of steps") != std::string::npos);
}
