// SPDX-License-Identifier: MIT
// The simulated machines, for smpirun -platform. Environment: HMOE_SCALE_RANKS, HMOE_SCALE_PLATFORM:
//   ethernet  a machine for each rank, with 100 Gb/s each way and 5 µs to a switch that never blocks
//   gpus      nodes of 8 ranks: 450 GB/s each way and 1 µs between those of a node; 8 × 400 Gb/s and 5 µs for a node
#include <simgrid/s4u.hpp>

#include <cstdlib>
#include <string>

namespace sg4 = simgrid::s4u;

namespace {

using direction = sg4::LinkInRoute::Direction;

/// A host with a link to the switch of its zone.
void add_host(sg4::NetZone* zone, const std::string& name, double bytes_per_second, double latency) {
  const auto* host = zone->create_host(name, 1e9)->seal();
  auto* link = zone->create_split_duplex_link("link-" + name, bytes_per_second)->set_latency(latency)->seal();
  zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, {{link, direction::UP}}, true);
}

} // namespace

extern "C" void load_platform(const sg4::Engine&) {
  const std::size_t ranks = std::stoul(std::getenv("HMOE_SCALE_RANKS"));
  const bool gpus = std::string(std::getenv("HMOE_SCALE_PLATFORM")) == "gpus";
  auto* root = sg4::create_star_zone("cluster");
  for (std::size_t r = 0; r < ranks; ++r) {
    if (!gpus) {
      add_host(root, "rank-" + std::to_string(r), 12.5e9, 5e-6);
      continue;
    }
    if (r % 8 != 0)
      continue;
    const std::string name = "node-" + std::to_string(r / 8);
    auto* node = sg4::create_star_zone(name);
    node->set_parent(root);
    auto* gateway = node->create_router(name + "-switch");
    for (std::size_t i = r; i < r + 8 && i < ranks; ++i)
      add_host(node, "rank-" + std::to_string(i), 450e9, 1e-6);
    node->add_route(gateway, nullptr, nullptr, nullptr, std::vector<sg4::LinkInRoute>{}, true);
    node->seal();
    auto* link = root->create_split_duplex_link("link-" + name, 8 * 50e9)->set_latency(5e-6)->seal();
    root->add_route(node->get_netpoint(), nullptr, gateway, nullptr, {{link, direction::UP}}, true);
  }
  root->seal();
}
