// SPDX-License-Identifier: MIT
#include "variant.hpp"

#include <hmoe/core/error.hpp>
#include <hmoe/experts/widths.hpp>

#include "errors.hpp"
#include "policies.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <string_view>
#include <type_traits>

namespace language_model {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0;;) {
    const std::size_t end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos)
      return parts;
    begin = end + 1;
  }
}

template <class Number> Number parse_number(const std::string& text, const std::string& what) {
  Number value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  hmoe::require(status == std::errc{} && end == text.data() + text.size(), what, " should be a number, not '", text,
                "'");
  if constexpr (std::is_floating_point_v<Number>)
    hmoe::require(std::isfinite(value), what, " should be a finite number, not '", text, "'");
  return value;
}

/// More than this nobody means: sums stay far below what a number can hold, and the distances between all pairs of
/// experts that results tell stay a file.
constexpr std::size_t most_experts = 1024;
constexpr std::size_t largest_width = 1'000'000'000;
constexpr double largest_coefficient = 1e6;

/// "64/128/256"
std::vector<std::size_t> parse_widths(const std::string& text, const std::string& what) {
  std::vector<std::size_t> widths;
  for (const auto& width : split(text, '/')) {
    widths.push_back(parse_number<std::size_t>(width, what));
    hmoe::require(widths.back() <= largest_width, what, ": a width of ", widths.back(), " is too large, at most ",
                  largest_width);
  }
  return widths;
}

/// `sizes` is a strategy and its numbers, "arithmetic:9:23" say.
std::vector<std::size_t> make_widths(const std::string& sizes, std::size_t experts, std::size_t total) {
  const auto parts = split(sizes, ':');
  const auto number = [&](std::size_t i, double otherwise) {
    return i < parts.size() ? parse_number<double>(parts[i], "sizes=" + sizes) : otherwise;
  };
  const std::string& strategy = parts[0];
  if (strategy == "list") {
    hmoe::require(parts.size() == 2, "sizes=list needs the widths, like sizes=list:64/128/256");
    return parse_widths(parts[1], "sizes=" + sizes);
  }
  if (strategy == "dense")
    return {total};
  if (strategy == "uniform")
    return hmoe::widths::uniform{.count = experts, .total = total};
  if (strategy == "arithmetic") {
    return hmoe::widths::arithmetic{.count = experts, .total = total, .first = number(1, 9), .last = number(2, 23)};
  }
  if (strategy == "geometric") {
    return hmoe::widths::geometric{.count = experts, .total = total, .ratio = number(1, 2)};
  }
  if (strategy == "hybrid")
    return hmoe::widths::hybrid{.count = experts, .total = total};
  throw hmoe::error("sizes=" + sizes + " is unknown; there are uniform, arithmetic[:first:last], " +
                    "geometric[:ratio], hybrid, list:w/w/… and dense");
}

router_choice parse_router(const std::string& text) {
  const auto parts = split(text, ':');
  const policy_kind* kind = find_kind(router_kinds(), parts[0]);
  hmoe::require(kind != nullptr, "router=", text, " is unknown; there are ", usage(router_kinds()));
  hmoe::require(parts.size() > kind->least && parts.size() <= kind->most + 1, "router=", text,
                " should read router=", kind->name, kind->values);
  router_choice choice{parts[0], {}};
  for (std::size_t i = 1; i < parts.size(); ++i)
    choice.values.push_back(parse_number<double>(parts[i], "router=" + text));
  return choice;
}

loss_choice parse_loss(const std::string& text) {
  const auto parts = split(text, ':');
  hmoe::require(find_kind(loss_kinds(), parts[0]) != nullptr && (parts.size() == 2 || parts.size() == 3), "loss=", text,
                " is unknown; there are none, ", usage(loss_kinds()));
  return {parts[0], parse_number<double>(parts[1], "loss=" + text), parts.size() == 3 ? parts[2] : ""};
}

shared_choice parse_shared(const std::string& text) {
  if (text == "none")
    return {};
  const auto parts = split(text, ':');
  hmoe::require(find_kind(shared_kinds(), parts[0]) != nullptr && parts.size() == 2, "shared=", text,
                " is unknown; there are none, ", usage(shared_kinds()));
  return {parts[0], parse_widths(parts[1], "shared=" + text)};
}

const router_choice the_only_expert{"top-k", {1.0}};

void validate(const variant& v) {
  const double experts = static_cast<double>(v.widths.size());
  const auto in_file_names = [](char c) { return static_cast<unsigned char>(c) > ' ' && c != '\x7F'; };
  hmoe::require(!v.name.empty() && v.name.size() <= 100 && v.name.find_first_of("/\\\"'") == std::string::npos &&
                    std::ranges::all_of(v.name, in_file_names),
                "'", v.name, "' is no name for a variant: it becomes part of file names, so at most 100 bytes without ",
                "spaces, slashes and quotes");
  hmoe::require(!v.widths.empty() && std::ranges::min(v.widths) > 0, "variant ", v.name,
                " needs at least one expert, and widths of at least 1");
  hmoe::require(!v.dense() || v.router == the_only_expert, "variant ", v.name, ": a dense layer has one expert, which ",
                "every token gets: there is nothing to route, so leave out router=", v.router.kind);
  const policy_kind* kind = find_kind(router_kinds(), v.router.kind);
  hmoe::require(kind != nullptr && v.router.values.size() >= kind->least && v.router.values.size() <= kind->most,
                "variant ", v.name, ": router ", v.router.kind, " with ", v.router.values.size(),
                " values is unknown; there are ", usage(router_kinds()));
  // The most usual two are checked here, the others by the library when the layers are made.
  const double value = v.router.value();
  if (v.router.kind == "top-k") {
    hmoe::require(value >= 1 && value <= experts && value == std::floor(value), "variant ", v.name,
                  ": top-k needs a whole k from 1 to its ", experts, " experts, not ", value);
  } else if (v.router.kind == "top-p") {
    hmoe::require(value > 0 && value <= 1, "variant ", v.name, ": top-p needs p above 0 and at most 1, not ", value);
  }
  hmoe::require(v.shared.kind.empty() ? v.shared.widths.empty()
                                      : find_kind(shared_kinds(), v.shared.kind) != nullptr &&
                                            !v.shared.widths.empty() && std::ranges::min(v.shared.widths) > 0,
                "variant ", v.name, ": shared experts of kind '", v.shared.kind,
                "' need widths of at least 1; there are ", usage(shared_kinds()));
  hmoe::require(v.shared.kind.empty() || !v.dense(), "variant ", v.name,
                ": a dense layer has no shared experts; add their width to total");
  hmoe::require(v.all_widths().size() <= most_experts && std::ranges::max(v.all_widths()) <= largest_width, "variant ",
                v.name, ": a layer has at most ", most_experts, " experts of a width of at most ", largest_width);
  for (const auto& loss : v.losses) {
    hmoe::require(std::abs(loss.coefficient) <= largest_coefficient, "variant ", v.name, ": loss=", loss.name, ":",
                  loss.coefficient, " is too large: at most ", largest_coefficient, ", and less than 1 is usual");
    const policy_kind* loss_kind = find_kind(loss_kinds(), loss.name);
    hmoe::require(loss_kind != nullptr, "variant ", v.name, ": loss ", loss.name, " is unknown; there are ",
                  usage(loss_kinds()));
    hmoe::require(v.find_loss(loss.name) == &loss, "variant ", v.name, ": loss ", loss.name, " is given twice");
    const auto options = split(loss_kind->options, '|');
    hmoe::require(loss.option.empty() || std::ranges::find(options, loss.option) != options.end(), "variant ", v.name,
                  ": loss ", loss.name, " has no option '", loss.option, "'; there are ", usage(loss_kinds()));
    hmoe::require(loss.name != "noisy-load" || v.router.kind == "noisy-top-k", "variant ", v.name,
                  ": loss=noisy-load reads the noise of router=noisy-top-k; take loss=load with another router");
    hmoe::require(loss.name != "adaptive-l1" || v.router.kind == "relu", "variant ", v.name,
                  ": loss=adaptive-l1 needs scores that can be 0, those of router=relu");
  }
}

variant make(const std::string& title, const std::string& description, std::size_t runs,
             const std::string& control_of = {}) {
  variant v = parse_variant(description);
  v.title = title;
  v.runs = runs;
  v.control_of = control_of;
  return v;
}

} // namespace

bool variant::homogeneous() const {
  return !dense() && std::ranges::all_of(widths, [&](std::size_t w) { return w == widths.front(); });
}

double variant::mean_width() const {
  return static_cast<double>(std::reduce(widths.begin(), widths.end())) / static_cast<double>(widths.size());
}

std::size_t variant::shared_width() const { return std::reduce(shared.widths.begin(), shared.widths.end()); }

std::vector<std::size_t> variant::all_widths() const {
  std::vector<std::size_t> all = widths;
  all.insert(all.end(), shared.widths.begin(), shared.widths.end());
  return all;
}

const loss_choice* variant::find_loss(const std::string& loss) const {
  const auto found = std::ranges::find(losses, loss, &loss_choice::name);
  return found == losses.end() ? nullptr : &*found;
}

double variant::coefficient(const std::string& loss) const {
  const loss_choice* choice = find_loss(loss);
  return choice == nullptr ? 0.0 : choice->coefficient;
}

variant parse_variant(const std::string& text) {
  variant v;
  v.name = "variant";
  std::string sizes = "arithmetic";
  std::size_t experts = 8;
  std::size_t total = 1024;
  bool router_given = false;
  for (const auto& item : split(text, ',')) {
    const std::size_t equals = item.find('=');
    hmoe::require(equals != std::string::npos, "'", item, "' in a variant should read key=value");
    const std::string key = item.substr(0, equals);
    const std::string value = item.substr(equals + 1);
    if (key == "name")
      v.name = value;
    else if (key == "title")
      v.title = value;
    else if (key == "experts")
      experts = parse_number<std::size_t>(value, "experts");
    else if (key == "sizes")
      sizes = value;
    else if (key == "total")
      total = parse_number<std::size_t>(value, "total");
    else if (key == "router") {
      v.router = parse_router(value);
      router_given = true;
    } else if (key == "shared")
      v.shared = parse_shared(value);
    else if (key == "loss" && value == "none")
      v.losses.clear();
    else if (key == "loss")
      v.losses.push_back(parse_loss(value));
    else if (key == "control-of")
      v.control_of = value;
    else
      throw hmoe::error("'" + key + "' is unknown in a variant; there are name, title, experts, sizes, total, " +
                        "router, shared, loss and control-of");
  }
  hmoe::require(experts >= 1 && experts <= most_experts, "experts=", experts, ": a layer has 1 to ", most_experts,
                " experts");
  hmoe::require(total >= 1 && total <= largest_width, "total=", total, ": widths sum to at least 1 and at most ",
                largest_width);
  try {
    v.widths = make_widths(sizes, experts, total);
  } catch (const hmoe::error& e) {
    throw hmoe::error("sizes=" + sizes + ",experts=" + std::to_string(experts) + ",total=" + std::to_string(total) +
                      " cannot be: " + reason(e));
  }
  if (v.dense() && !router_given)
    v.router = the_only_expert;
  if (v.title.empty())
    v.title = v.name;
  validate(v);
  return v;
}

void validate(const std::vector<variant>& together) {
  std::string names;
  for (const auto& v : together) {
    hmoe::require(std::ranges::count(together, v.name, &variant::name) == 1, "two variants are named ", v.name);
    names += (names.empty() ? "" : ", ") + v.name;
  }
  for (const auto& v : together) {
    const bool known = std::ranges::find(together, v.control_of, &variant::name) != together.end();
    hmoe::require(v.control_of.empty() || (known && v.control_of != v.name), "variant ", v.name,
                  ": control-of=", v.control_of, " is no other variant of this comparison; there are ", names);
  }
}

variant homogeneous_control(const variant& of, double width) {
  const std::size_t experts = of.dense() ? 8 : of.widths.size();
  const auto each = static_cast<std::size_t>(std::max(1.0, std::round(width / 2.0)));
  variant v;
  v.name = "homogeneous-" + std::to_string(experts) + "x" + std::to_string(each);
  v.title = "homogeneous " + std::to_string(experts) + "×" + std::to_string(each) + ", load balance 1e-2";
  v.widths.assign(experts, each);
  v.losses = {{"load-balance", 1e-2, {}}};
  v.control_of = of.name;
  v.runs = of.runs;
  return v;
}

std::vector<std::string> list_names() { return {"smoke", "demo", "full"}; }

double named_list_budget(const std::string& name) {
  if (name == "smoke")
    return 2e10;
  return name == "full" ? 8e12 : 3e12;
}

std::vector<variant> named_list(const std::string& name) {
  const auto main_three = [](std::size_t runs) {
    return std::vector<variant>{
        make("homogeneous 8×128, load balance 1e-2", "name=homogeneous,sizes=uniform,loss=load-balance:0.01", runs),
        make("HMoE arithmetic 9…23, parameter penalty 0.1", "name=hmoe,loss=parameter-penalty:0.1", runs),
        make("homogeneous 8×117, HMoE's activated width",
             "name=homogeneous-8x117,sizes=uniform,total=936," + std::string("loss=load-balance:0.01"), runs, "hmoe")};
  };
  if (name == "smoke" || name == "demo")
    return main_three(1);
  hmoe::require(name == "full", "there is no list '", name, "'; there are smoke, demo and full");

  auto list = main_three(4);
  list.push_back(make("homogeneous 8×128, no auxiliary loss", "name=homogeneous-no-loss,sizes=uniform", 2));
  list.push_back(make("arithmetic, no auxiliary loss", "name=arithmetic-no-loss", 2));
  list.push_back(make("arithmetic, load balance 1e-2", "name=arithmetic-load-balance,loss=load-balance:0.01", 2));
  list.push_back(make("geometric 1…128, penalty 0.1", "name=geometric,sizes=geometric,loss=parameter-penalty:0.1", 2));
  list.push_back(make("hybrid 1,1,1,1,2,2,4,4, penalty 0.1", "name=hybrid,sizes=hybrid,loss=parameter-penalty:0.1", 2));
  list.push_back(make("arithmetic, top-p 0.6, penalty 0.1, entropy 3e-3",
                      "name=top-p-gentle,router=top-p:0.6,loss=parameter-penalty:0.1,loss=router-entropy:0.003", 2));
  list.push_back(make("arithmetic, top-p 0.6, penalty 0.1, entropy 3e-2 (the paper's)",
                      "name=top-p,router=top-p:0.6,loss=parameter-penalty:0.1,loss=router-entropy:0.03", 2));
  list.push_back(make("hybrid 1,1,1,1,2,2,4,4, top-p 0.6, penalty 0.1, entropy 3e-2",
                      "name=hybrid-top-p,sizes=hybrid,router=top-p:0.6,loss=parameter-penalty:0.1,"
                      "loss=router-entropy:0.03",
                      2));
  // Top-p without unequal experts, and more and narrower equal experts instead of unequal ones.
  list.push_back(make("homogeneous 8×128, top-p 0.6, load balance 0.1, entropy 3e-2",
                      "name=homogeneous-top-p,sizes=uniform,router=top-p:0.6,loss=load-balance:0.1,"
                      "loss=router-entropy:0.03",
                      2));
  list.push_back(make("homogeneous 13×79, k = 1, raw weights, load balance 1e-2",
                      "name=homogeneous-13x79,experts=13,sizes=uniform,total=1027,router=raw-top-k:1,"
                      "loss=load-balance:0.01",
                      2));
  list.push_back(make("dense, all parameters active", "name=dense,sizes=dense", 2));
  list.push_back(make("dense of the activated width 256", "name=dense-256,sizes=dense,total=256", 2));
  return list;
}

std::vector<double> predicted_shares(const variant& v) {
  std::vector<double> shares;
  shares.reserve(v.widths.size());
  for (const std::size_t width : v.widths)
    shares.push_back(1.0 / static_cast<double>(width));
  const double sum = std::reduce(shares.begin(), shares.end());
  for (double& share : shares)
    share /= sum;
  return shares;
}

std::optional<double> predicted_activated_width(const variant& v) {
  if (v.dense())
    return v.mean_width();
  if (v.router.kind != "top-k")
    return std::nullopt;
  if (v.homogeneous())
    return v.router.value() * v.mean_width() + static_cast<double>(v.shared_width());
  const auto shares = predicted_shares(v);
  if (v.coefficient("parameter-penalty") == 0.0 || v.losses.size() != 1)
    return std::nullopt;
  if (v.router.value() * std::ranges::max(shares) > 1.0)
    return std::nullopt;
  double width = 0.0;
  for (std::size_t e = 0; e < shares.size(); ++e)
    width += shares[e] * static_cast<double>(v.widths[e]);
  return v.router.value() * width + static_cast<double>(v.shared_width());
}

nlohmann::json to_json(const variant& v) {
  nlohmann::json terms = nlohmann::json::array();
  for (const auto& loss : v.losses) {
    terms.push_back({{"name", loss.name}, {"coefficient", loss.coefficient}});
    if (!loss.option.empty())
      terms.back()["option"] = loss.option;
  }
  nlohmann::json json{
      {"name", v.name},
      {"title", v.title},
      {"control_of", v.control_of.empty() ? nlohmann::json(nullptr) : nlohmann::json(v.control_of)},
      {"dense", v.dense()},
      {"widths", v.widths},
      {"router", v.router.kind},
      {"router_value", v.router.values.empty() ? nlohmann::json(nullptr) : nlohmann::json(v.router.values[0])},
      {"losses", terms}};
  if (v.router.values.size() > 1)
    json["router_values"] = v.router.values;
  if (!v.shared.kind.empty())
    json["shared"] = {{"kind", v.shared.kind}, {"widths", v.shared.widths}};
  return json;
}

variant variant_from_json(const nlohmann::json& json) {
  variant v;
  v.name = json.at("name");
  v.title = json.value("title", v.name);
  v.widths = json.at("widths").get<std::vector<std::size_t>>();
  v.router = {json.at("router"), {}};
  if (json.contains("router_values"))
    v.router.values = json.at("router_values").get<std::vector<double>>();
  else if (!json.at("router_value").is_null())
    v.router.values = {json.at("router_value").get<double>()};
  for (const auto& loss : json.at("losses"))
    v.losses.push_back({loss.at("name"), loss.at("coefficient"), loss.value("option", "")});
  if (json.contains("shared"))
    v.shared = {json.at("shared").at("kind"), json.at("shared").at("widths").get<std::vector<std::size_t>>()};
  validate(v);
  return v;
}

} // namespace language_model
