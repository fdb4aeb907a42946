/// @file
/// Rules with numbers of rows and columns in stores: resident keys, other element types, states, and memory.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace update = pushpull::update;
using strings = std::vector<std::string>;

std::vector<pp::shape> const shapes{{37, 53}, {129}, {0, 3}, {2, 5, 11}, {1, 2000}, {}, {1500, 2}};
strings const names{"a", "b", "c", "d", "e", "f", "g"};

/// Eighths, which all element types have.
template <class T>
std::vector<T> numbers(std::size_t size, int seed) {
  std::vector<T> result(size);
  for (std::size_t i = 0; i < size; ++i)
    result[i] = pp::convert<T>(static_cast<float>((i * 37 + static_cast<std::size_t>(seed) * 11) % 29) / 8 - 1.5F);
  return result;
}
template <class T>
auto view(std::vector<T>& x, pp::shape const& s) {
  return pp::tensor_view<T, pp::cpu_device<>>(x.data(), s, pp::cpu_device<>());
}
template <class T>
std::vector<std::vector<T>> tensors(int seed) {
  std::vector<std::vector<T>> result;
  for (auto const& s : shapes) result.push_back(numbers<T>(s.size(), seed++));
  return result;
}
template <class T>
auto views(std::vector<std::vector<T>>& all) {
  std::vector<pp::tensor_view<T, pp::cpu_device<>>> result;
  for (std::size_t k = 0; k < all.size(); ++k) result.push_back(view(all[k], shapes[k]));
  return result;
}

template <class Store>
void init(Store& store) {
  auto weights = tensors<float>(1);
  store.init(names, views(weights));
}
template <class T, class Store>
void push(Store& store, int seed) {
  auto gradients = tensors<T>(seed);
  store.push(names, views(gradients));
}
template <class Store>
std::vector<std::vector<float>> pulled(Store& store) {
  auto result = tensors<float>(0);
  store.pull(names, views(result));
  return result;
}

template <class T, class Rule, class... Policies>
using synchronous_store = pp::kv_store<T, pp::cpu_device<>, Rule, pp::synchronous, Policies...>;

/// The same steps in a resident model and by lists.
template <class Rule>
void compare_resident(Rule const& rule) {
  for (int const devices : {1, 2, 4}) {
    synchronous_store<float, Rule> listed{pp::cpu_devices(1), rule};
    init(listed);
    pp::kv_store<float, pp::cpu_device<>, Rule> store{pp::cpu_devices(devices), rule};
    pp::parameter_store parameters{store};
    auto weights = tensors<float>(1);
    for (std::size_t k = 0; k < names.size(); ++k) parameters.add(names[k], view(weights[k], shapes[k]));
    for (int t = 0; t < 5; ++t) {
      std::vector<std::vector<std::vector<float>>> sources(names.size());
      std::vector<std::vector<pp::tensor_view<float, pp::cpu_device<>>>> given(names.size());
      for (std::size_t k = 0; k < names.size(); ++k) {
        for (int n = 0; n < devices; ++n) {
          sources[k].push_back(numbers<float>(shapes[k].size(), 3 * t + n));
          auto const grad = parameters.grad(names[k], static_cast<std::size_t>(n));
          std::copy(sources[k].back().begin(), sources[k].back().end(), grad.data());
        }
        for (auto& x : sources[k]) given[k].push_back(view(x, shapes[k]));
      }
      parameters.update_all();
      listed.push(names, given);
    }
    auto const expected = pulled(listed);
    for (std::size_t k = 0; k < names.size(); ++k) {
      for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n)
        REQUIRE(pp::to_vector(parameters.value(names[k], n)) == expected[k]);
      for (auto const& state : store.state_names())
        REQUIRE(store.state(names[k], state) == listed.state(names[k], state));
    }
  }
}

}  // namespace

TEST_CASE("a resident model has the numbers of rows that lists have", "[rows]") {
  compare_resident(update::group_adagrad{});
  compare_resident(update::clip_global_norm(1) | update::centralize{} | update::adafactor{} | update::ema(0.5));
}

TEST_CASE("states of rows and columns have their shapes and can be set", "[rows]") {
  synchronous_store<float, update::adafactor> store{pp::cpu_devices(3), {}};
  init(store);
  REQUIRE(store.state_names() == strings{"row_var", "col_var"});
  REQUIRE(store.state("a", "row_var") == std::vector<float>(37));
  REQUIRE(store.state_shape("a", "col_var") == pp::shape{53});
  REQUIRE(store.state_shape("b", "row_var") == pp::shape{129});
  REQUIRE(store.state_shape("b", "col_var") == pp::shape{0});
  REQUIRE(store.state_shape("c", "row_var") == pp::shape{0});
  REQUIRE(store.state_shape("d", "row_var") == pp::shape{10});
  REQUIRE(store.state_shape("d", "col_var") == pp::shape{22});
  REQUIRE(store.state_shape("f", "row_var") == pp::shape{1});
  auto const columns = numbers<float>(53, 1);
  store.set_state("a", "col_var", columns);
  REQUIRE(store.state("a", "col_var") == columns);
  REQUIRE(store.state("a", "row_var") == std::vector<float>(37));
  REQUIRE_THROWS_AS(store.set_state("a", "row_var", columns), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.swap("row_var"), pp::invalid_argument);
}

TEST_CASE("states of rows and columns go through a file", "[rows]") {
  auto const rule = update::trace(0.5) | update::centralize{} | update::adafactor{};
  using store_type = synchronous_store<float, std::remove_const_t<decltype(rule)>>;
  pp::test::temporary_folder const folder;
  store_type trained{pp::cpu_devices(2), rule};
  init(trained);
  for (int t = 0; t < 4; ++t) push<float>(trained, t);
  cp::save_optimizer_states(trained, folder.file("states"));
  auto weights = pulled(trained);
  push<float>(trained, 9);
  for (int const devices : {1, 3}) {
    store_type store{pp::cpu_devices(devices), rule};
    store.init(names, views(weights));
    cp::load_optimizer_states(store, folder.file("states"));
    push<float>(store, 9);
    REQUIRE(pulled(store) == pulled(trained));
    for (auto const& state : store.state_names())
      for (auto const& key : names) REQUIRE(store.state(key, state) == trained.state(key, state));
  }
  synchronous_store<float, std::remove_const_t<decltype(rule)>> other{pp::cpu_devices(1), rule};
  auto transposed = numbers<float>(37 * 53, 1);
  other.init("a", view(transposed, {53, 37}));
  REQUIRE_THROWS_AS(cp::load_optimizer_states(other, folder.file("states")), pp::file_error);
}

TEST_CASE("MXNet's forms of group_adagrad differ in where epsilon stands", "[rows]") {
  auto const step = [](auto const& rule) {
    pp::kv_store store{pp::cpu_devices(1), rule, pp::synchronous{}};
    std::vector<float> w(4, 1.0F), g{1, 2, -8, 0};
    store.init("w", view(w, {2, 2}));
    store.push("w", view(g, {2, 2}));
    store.pull("w", view(w, {2, 2}));
    return w;
  };
  // Halved and clipped: rows (0.5, 1) and (-2, 0), means of squares 0.625 and 2.
  auto const one = step(
      pp::compat::mxnet1::group_adagrad({.learning_rate = 0.1, .eps = 0.5, .rescale_grad = 0.5, .clip_gradient = 2}));
  auto const two = step(pp::compat::mxnet2::group_adagrad(
      {.learning_rate = 0.1, .epsilon = 0.5, .rescale_grad = 0.5, .clip_gradient = 2}));
  double const gradients[] = {0.5, 1, -2, 0}, histories[] = {0.625, 0.625, 2, 2};
  for (std::size_t i = 0; i < 4; ++i) {
    REQUIRE(std::abs(one[i] - (1 - 0.1 * gradients[i] / std::sqrt(histories[i] + 0.5))) < 1e-6);
    REQUIRE(std::abs(two[i] - (1 - 0.1 * gradients[i] / (std::sqrt(histories[i]) + 0.5))) < 1e-6);
  }
}

TEST_CASE("adafactor keeps a number per row and column", "[rows]") {
  constexpr std::int64_t rows = 1000, columns = 3000;
  synchronous_store<float, update::adafactor> store{pp::cpu_devices(1), {}};
  auto w = numbers<float>(rows * columns, 1), g = numbers<float>(rows * columns, 2);
  store.init("w", view(w, {rows, columns}));
  store.push("w", view(g, {rows, columns}));
  std::size_t const matrix = rows * columns * sizeof(float);
  REQUIRE(store.bytes(0) >= matrix + (rows + columns) * sizeof(float));
  REQUIRE(store.bytes(0) < matrix + (rows + columns) * sizeof(float) + 10000);
}

TEST_CASE("gradients in 16 bits and compressed ones have the numbers of the same in float", "[rows]") {
  update::adafactor const rule{.learning_rate = 0.05};
  synchronous_store<float, update::adafactor> plain{pp::cpu_devices(1), rule};
  init(plain);
  for (int t = 0; t < 5; ++t) push<float>(plain, t);
  auto const expected = pulled(plain);
  for (int const devices : {1, 4}) {
    synchronous_store<pp::bfloat16, update::adafactor, pp::element::master<float>> narrow{pp::cpu_devices(devices),
                                                                                          rule};
    init(narrow);
    for (int t = 0; t < 5; ++t) push<pp::bfloat16>(narrow, t);
    REQUIRE(pulled(narrow) == expected);
    synchronous_store<float, update::adafactor, pp::compress::cast<pp::half>> compressed{pp::cpu_devices(devices),
                                                                                         rule};
    init(compressed);
    for (int t = 0; t < 5; ++t) push<float>(compressed, t);
    REQUIRE(pulled(compressed) == expected);
  }
}

TEST_CASE("the numbers of rows are those of all micro-batches", "[rows]") {
  auto const rule = update::centralize{} | update::group_adagrad{0.1};
  using rule_type = std::remove_const_t<decltype(rule)>;
  synchronous_store<float, rule_type> plain{pp::cpu_devices(1), rule};
  synchronous_store<float, rule_type, pp::accumulate> store{pp::cpu_devices(3), rule, pp::accumulate{2}};
  init(plain);
  init(store);
  for (int t = 0; t < 4; ++t) {
    push<float>(store, 2 * t);
    push<float>(store, 2 * t + 1);
    auto one = tensors<float>(2 * t), two = tensors<float>(2 * t + 1);
    std::vector<std::vector<pp::tensor_view<float, pp::cpu_device<>>>> both;
    for (std::size_t k = 0; k < names.size(); ++k) both.push_back({view(one[k], shapes[k]), view(two[k], shapes[k])});
    plain.push(names, both);
  }
  REQUIRE(pulled(store) == pulled(plain));
}

TEST_CASE("a step that is left out leaves the numbers of rows and columns", "[rows]") {
  auto const rule = update::dynamic_loss_scale{.initial = 1} | update::centralize{} | update::group_adagrad{0.1};
  using rule_type = std::remove_const_t<decltype(rule)>;
  for (int const devices : {1, 2}) {
    synchronous_store<float, rule_type> store{pp::cpu_devices(devices), rule}, clean{pp::cpu_devices(1), rule};
    for (auto* s : {&store, &clean}) init(*s);
    for (auto* s : {&store, &clean}) push<float>(*s, 1);
    auto bad = tensors<float>(2);
    bad[0][7] = std::numeric_limits<float>::infinity();
    store.push(names, views(bad));
    store.set_carried_numbers(clean.carried_numbers());
    REQUIRE(store.state("a", "history") == clean.state("a", "history"));
    REQUIRE(store.state("d", "history")[1] > 0);
    for (auto* s : {&store, &clean}) push<float>(*s, 3);
    REQUIRE(pulled(store) == pulled(clean));
    REQUIRE(store.steps("a") == 2);
  }
}
