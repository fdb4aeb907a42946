/// @file
/// What MXNet promises of row-sparse gradients and pulls of rows, where row_sparse_test.cpp does not say it.
#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::shape;
using strings = std::vector<std::string>;
using integers = std::vector<std::int64_t>;
using floats = std::vector<float>;
using view = pp::tensor_view<float>;
using rows = pp::row_sparse<float>;

/// Rows of one value each.
rows rows_of(shape const& whole, integers const& ids, float value) {
  rows result(pp::cpu_device<>(), whole, static_cast<std::int64_t>(ids.size()));
  std::copy(ids.begin(), ids.end(), result.row_ids());
  std::fill_n(result.values(), result.rows() * result.row_length(), value);
  return result;
}

floats values_of(rows const& r) { return {r.values(), r.values() + r.rows() * r.row_length()}; }
integers ids_of(rows const& r) { return {r.row_ids(), r.row_ids() + r.rows()}; }

/// Two pushes of one row each to a (3, 2) key, the first as `first` says; weights and the rule's first state after them.
template <class Rule>
std::pair<floats, floats> two_rows(Rule const& rule, pp::row_updates first) {
  pp::kv_store store{pp::cpu_devices(2), rule, pp::synchronous{}};
  store.init("w", rows_of({3, 2}, {0, 1, 2}, 3.0F));
  store.push("w", rows_of({3, 2}, {1}, 0.5F), first);
  store.push("w", rows_of({3, 2}, {0}, 0.5F));
  floats w(6);
  store.pull("w", view(w.data(), shape{3, 2}));
  return {w, store.state("w", Rule::state_names[0])};
}

}  // namespace

TEST_CASE("the first lazy push starts the states of all rows, of rules that start them", "[row_sparse]") {
  auto const adagrad = update::clip_value(1e9) | (update::adagrad{.learning_rate = 1, .initial_accumulator_value = 2} |
                                                  update::learning_rate(pp::lr_schedule::constant{1}));
  auto const [w, sum] = two_rows(adagrad, pp::row_updates::lazy);
  REQUIRE(sum == floats{2.25F, 2.25F, 2.25F, 2.25F, 2, 2});
  REQUIRE(w[0] == Approx(3 - 0.5 / 1.5));
  REQUIRE(w[2] == w[0]);
  REQUIRE(w[4] == 3);

  auto const slow = update::sgd{1.0} | update::lookahead(4, 0.5);
  REQUIRE(two_rows(slow, pp::row_updates::lazy) == std::pair(floats{2.5F, 2.5F, 2.5F, 2.5F, 3, 3}, floats(6, 3.0F)));

  // What starts no state leaves the other rows alone from the first push on.
  auto const plain = update::weight_decay(0.5) | update::momentum{.learning_rate = 1, .dampening = 0.5};
  REQUIRE(two_rows(plain, pp::row_updates::lazy).first[4] == 3);
  REQUIRE(two_rows(plain, pp::row_updates::standard).first[4] == 1.5F);
}

TEST_CASE("an initial value of rows is no update", "[row_sparse]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0} | update::lookahead(4, 0.5), pp::synchronous{}};
  store.init("w", rows_of({3, 2}, {0}, 3.0F));
  store.init("none", rows_of({0, 2}, {}, 0.0F));
  REQUIRE(store.steps("w") == 0);
  REQUIRE(store.steps("none") == 0);
  store.swap("slow");  // there are none yet
  floats w(6);
  store.pull("w", view(w.data(), shape{3, 2}));
  REQUIRE(w == floats{3, 3, 0, 0, 0, 0});
}

TEST_CASE("rules say whether they start states, and what is composed of them does", "[row_sparse]") {
  using pp::detail::starts_states;
  STATIC_REQUIRE(starts_states(update::dcasgd{}));
  STATIC_REQUIRE(starts_states(update::ema{update::sgd{}, 0.9}));
  STATIC_REQUIRE(!starts_states(update::adam{}));
  STATIC_REQUIRE(!starts_states(update::adagrad{}));
  STATIC_REQUIRE(starts_states(update::decoupled_decay{update::adagrad{.initial_accumulator_value = 0.1}, 0.1}));
  REQUIRE(starts_states(update::rescale(2) | (update::delay_compensation{} | update::sgd{})));
  REQUIRE_FALSE(starts_states(update::rescale(2) | update::clip_weights{update::momentum{}, 1}));
}

TEMPLATE_TEST_CASE("dense and row-sparse gradients of several sources take turns, and what is stored stays dense",
                   "[kv_store][row_sparse]", pp::no_updater, update::sgd) {
  constexpr bool replaces = std::is_same_v<TestType, pp::no_updater>;
  shape const whole{9, 4};
  pp::kv_store store{pp::cpu_devices(2), TestType{}};
  floats w(36, 1.0F), dense(36, 0.25F), expected(36);
  store.init("w", view(w.data(), whole));
  float const rate = replaces ? -1 : static_cast<float>(update::sgd{}.learning_rate);
  auto const add = [&](std::size_t first, std::size_t last, float g) {
    for (std::size_t i = first; i < last; ++i) w[i] = w[i] - rate * g;
  };
  for (int turn = 0; turn < 2; ++turn) {
    std::vector<rows> sparse;
    sparse.push_back(rows_of(whole, {5, 2}, 0.5F));
    sparse.push_back(rows_of(whole, {5}, 0.5F));
    store.push("w", sparse).wait();
    if (replaces) w.assign(36, 0.0F);
    add(8, 12, 0.5F);
    add(20, 24, 1.0F);
    store.pull("w", view(expected.data(), whole)).wait();
    REQUIRE(expected == w);
    store.push("w", std::vector(2, view(dense.data(), whole))).wait();
    if (replaces) w.assign(36, 0.0F);
    add(0, 36, 0.5F);
    store.pull("w", view(expected.data(), whole)).wait();
    REQUIRE(expected == w);
  }
}

TEST_CASE("a row that no push named is pulled as zeros where pushes replace", "[kv_store][row_sparse]") {
  shape const whole{6, 2};
  pp::kv_store store{pp::cpu_devices(2)};
  floats const w(12, 7.0F);
  store.init("w", pp::tensor_view(w.data(), whole));
  auto const gradient = rows_of(whole, {4}, 3.0F);
  store.push("w", gradient).wait();
  rows out(pp::cpu_device<>(), whole);
  store.row_sparse_pull("w", out, integers{5, 4}).wait();
  REQUIRE(floats(out.values(), out.values() + 4) == floats{3, 3, 0, 0});
}

TEST_CASE("a row whose gradients add up to zero was named: decay reaches it", "[kv_store][row_sparse]") {
  shape const whole{3, 2};
  pp::kv_store store{pp::cpu_devices(2), update::weight_decay(0.5) | update::sgd{1.0}};
  floats const w(6, 1.0F);
  store.init("w", pp::tensor_view(w.data(), whole));
  std::vector<rows> gradients;
  gradients.push_back(rows_of(whole, {1}, 3.0F));
  gradients.push_back(rows_of(whole, {1}, -3.0F));
  store.push("w", gradients).wait();
  rows out(pp::cpu_device<>(), whole);
  store.row_sparse_pull("w", out, integers{0, 1, 2}).wait();
  REQUIRE(floats(out.values(), out.values() + 6) == floats{1, 1, 0.5F, 0.5F, 1, 1});
}

TEST_CASE("sources without rows add nothing, and where no source has rows none is updated", "[kv_store][row_sparse]") {
  shape const whole{5, 2};
  pp::kv_store store{pp::cpu_devices(2), update::momentum{.learning_rate = 1.0}};
  floats const w(10, 4.0F);
  floats out(10);
  store.init("w", pp::tensor_view(w.data(), whole));
  std::vector<rows> gradients;
  for (integers const& ids : {integers{}, integers{3}, integers{}}) gradients.push_back(rows_of(whole, ids, 1.0F));
  store.push("w", gradients);
  store.pull("w", view(out.data(), whole)).wait();
  REQUIRE(out == floats{4, 4, 4, 4, 4, 4, 3, 3, 4, 4});
  gradients.erase(gradients.begin() + 1);
  store.push("w", gradients);
  store.pull("w", view(out.data(), whole)).wait();
  REQUIRE(out == floats{4, 4, 4, 4, 4, 4, 3, 3, 4, 4});  // momentum too rests
  REQUIRE(store.steps("w") == 2);
}

TEST_CASE("a list of keys takes a list of sources per key, and gives each of a list of outputs its own rows",
          "[kv_store][row_sparse]") {
  shape const tall{8, 2}, flat{3, 3};
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}};
  floats const w(16, 1.0F), v(9, 1.0F);
  store.init("w", pp::tensor_view(w.data(), tall));
  store.init("v", pp::tensor_view(v.data(), flat));
  strings const keys{"v", "w"};
  std::vector<std::vector<rows>> gradients(2), outputs(2);
  gradients[0].push_back(rows_of(flat, {2}, 1.0F));
  for (integers const& ids : {integers{7, 0}, integers{7}, integers{7, 7}})
    gradients[1].push_back(rows_of(tall, ids, 1.0F));
  store.push(keys, gradients);
  outputs[0].emplace_back(pp::cpu_device<>(), flat);
  for (int i = 0; i < 2; ++i) outputs[1].emplace_back(pp::cpu_device<>(), tall);
  std::vector<std::vector<integers>> const ids{{{1, 2}}, {{7}, {6, 0, 6}}};
  store.row_sparse_pull(keys, outputs, ids).wait();
  REQUIRE(values_of(outputs[0][0]) == floats{1, 1, 1, 0, 0, 0});
  REQUIRE(values_of(outputs[1][0]) == floats{-3, -3});
  REQUIRE(ids_of(outputs[1][1]) == integers{0, 6});
  REQUIRE(values_of(outputs[1][1]) == floats{0, 0, 1, 1});
}

TEST_CASE("row-sparse gradients do not change with a push, nor does the store with them", "[kv_store][row_sparse]") {
  shape const whole{4, 2};
  pp::kv_store store{pp::cpu_devices(2)};
  floats const w(8);
  floats out(8);
  store.init("w", pp::tensor_view(w.data(), whole));
  auto gradient = rows_of(whole, {3, 1, 3}, 1.0F);
  store.push("w", gradient).wait();
  REQUIRE(ids_of(gradient) == integers{3, 1, 3});
  REQUIRE(values_of(gradient) == floats(6, 1.0F));
  std::fill_n(gradient.values(), 6, 9.0F);
  store.pull("w", view(out.data(), whole)).wait();
  REQUIRE(out == floats{0, 0, 1, 1, 0, 0, 2, 2});
}
