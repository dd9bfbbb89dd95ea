// SPDX-License-Identifier: MIT
// Importance against numpy: see generate_importance.py.
#include <hmoe/backends/reference.hpp>
#include <hmoe/compress/calibration.hpp>
#include <hmoe/compress/importance.hpp>
#include <hmoe/experts/glu.hpp>
#include <hmoe/layer/moe_layer.hpp>
#include <hmoe/routing/router.hpp>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

namespace compress = hmoe::compress;
using nlohmann::json;

namespace {
void read_rows(const json& from, hmoe::matrix_view<double> to) {
  REQUIRE(from.size() == to.rows());
  for (std::size_t r = 0; r < to.rows(); ++r)
    for (std::size_t c = 0; c < to.cols(); ++c)
      to(r, c) = from.at(r).at(c).get<double>();
}
void check_neurons(const json& expected, const compress::neuron_values& got) {
  REQUIRE(got.size() == expected.size());
  for (std::size_t e = 0; e < got.size(); ++e) {
    REQUIRE(got[e].size() == expected[e].size());
    for (std::size_t j = 0; j < got[e].size(); ++j)
      CHECK(got[e][j] == doctest::Approx(expected[e][j].get<double>()).epsilon(1e-12));
  }
}
} // namespace

TEST_CASE("importance of experts and neurons is what numpy computes from the formulas") {
  const std::string path = std::string(HMOE_GOLDEN_DIRECTORY) + "/importance.json";
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), "cannot open ", path);
  const json golden = json::parse(file);
  const std::size_t tokens = golden.at("x").size(), d = golden.at("x").at(0).size();
  const auto widths = golden.at("widths").get<std::vector<std::size_t>>();
  hmoe::moe_layer layer{hmoe::expert_set{hmoe::experts::glu_bank<double, hmoe::experts::silu>(d, widths)},
                        hmoe::routing::top_k_router<double>(d, widths.size(), 2)};
  layer.visit_parameters([&](const hmoe::parameter_info& info, hmoe::matrix_view<double> view) {
    read_rows(golden.at("parameters").at(info.full_name()), view);
  });
  hmoe::matrix<double> x(tokens, d), dy(tokens, d), y(tokens, d);
  read_rows(golden.at("x"), x.view());
  read_rows(golden.at("dy"), dy.view());

  const hmoe::context ctx{hmoe::backends::reference{}};
  auto tape = layer.make_tape(tokens);
  layer.forward(ctx, x, y, tape);
  compress::calibration sums{layer};
  sums.add(layer, tape);
  sums.add_gradient(ctx, layer, tape, dy);
  const auto reap = compress::reap(sums);
  for (std::size_t e = 0; e < widths.size(); ++e)
    CHECK(reap[e] == doctest::Approx(golden.at("reap").at(e).get<double>()).epsilon(1e-12));
  check_neurons(golden.at("magnitude_times_activation"), compress::magnitude_times_activation(layer, sums));
  check_neurons(golden.at("squared_contribution"), compress::squared_contribution(layer, sums));
  check_neurons(golden.at("heapr"), compress::heapr(layer, sums));
  check_neurons(golden.at("heapr_per_token"), compress::heapr(layer, sums, compress::fisher::per_token));
}
