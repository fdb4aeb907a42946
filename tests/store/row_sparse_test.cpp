/// @file
/// Row-sparse gradients and pulls of rows: what each call does, against double references, and what it refuses.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/deviation.hpp"
#include "support/sanitized.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::bfloat16;
using pp::half;
using pp::row_updates;
using pp::shape;
using ids = std::vector<std::int64_t>;

/// Rows with the given ids, element j of row i being first + 100 i + j.
template <class T = float>
pp::row_sparse<T> rows_of(shape const& whole, ids const& which, double first = 1) {
  pp::row_sparse<T> rows(pp::cpu_device<>(), whole, static_cast<std::int64_t>(which.size()));
  std::copy(which.begin(), which.end(), rows.row_ids());
  for (std::int64_t i = 0; i < rows.rows(); ++i)
    for (std::int64_t j = 0; j < rows.row_length(); ++j)
      rows.values()[i * rows.row_length() + j] = pp::convert<T>(first + static_cast<double>(100 * i + j));
  return rows;
}

template <class T = float>
pp::tensor<T> filled(shape const& whole, double value) {
  pp::tensor<T> t(pp::cpu_device<>(), whole);
  std::fill_n(t.data(), t.size(), pp::convert<T>(value));
  return t;
}

template <class T>
std::vector<double> elements(T const* from, std::int64_t count) {
  std::vector<double> result(static_cast<std::size_t>(count));
  std::transform(from, from + count, result.begin(), [](T x) { return pp::convert<double>(x); });
  return result;
}

/// The stored value, by a dense pull.
std::vector<double> stored(auto& store, std::string const& key) {
  auto out = filled<double>(store.shape(key), -1);
  store.pull(key, out).wait();
  return elements(out.data(), static_cast<std::int64_t>(out.size()));
}

/// Rounding may differ near ties, by a unit in some steps.
constexpr double most_units = 3;

struct scalar {
  double w = 0, a = 0, b = 0;
};
using formula = std::function<void(scalar&, double g, int t)>;
formula const sgd = [](scalar& x, double g, int) { x.w -= 0.1 * g; };
formula const momentum = [](scalar& x, double g, int t) {
  x.a = t == 1 ? g : 0.9 * x.a + 0.5 * g;
  x.w -= 0.1 * x.a;
};
formula const nesterov = [](scalar& x, double g, int) {
  x.a = 0.9 * x.a + g;
  x.w -= 0.1 * (g + 0.9 * x.a);
};
formula const adam = [](scalar& x, double g, int t) {
  x.a = 0.9 * x.a + 0.1 * g;
  x.b = 0.999 * x.b + 0.001 * g * g;
  x.w -= 0.01 * (x.a / (1 - std::pow(0.9, t))) / (std::sqrt(x.b / (1 - std::pow(0.999, t))) + 1e-3);
};
formula const adamw = [](scalar& x, double g, int t) {
  x.w *= 1 - 0.01 * 0.1;
  adam(x, g, t);
};

/// Six pushes of `sources` random row-sparse gradients with repeated, unsorted ids; the stored values after them. The
/// weights and pulled rows are compared with `expected`, whose results are rounded as the store's are.
template <class T, class Updater, class Reduction = pp::reduce::sum, class Element = pp::element::uniform>
std::vector<double> train(Updater const& updater, formula const& expected, std::int64_t rows, std::int64_t length,
                          std::size_t sources, int devices, row_updates which) {
  using stored_type = typename Element::template master_type<T>;
  shape const whole{rows, length};
  pp::kv_store<T, pp::cpu_device<>, Updater, Reduction, Element> store{pp::cpu_devices(devices), updater};
  std::mt19937 random(static_cast<unsigned>(1000 * rows + 10 * length) + static_cast<unsigned>(sources));
  std::uniform_real_distribution<double> uniform(-1, 1);
  auto weight = filled<T>(whole, 0);
  std::vector<scalar> reference(weight.size());
  for (std::size_t i = 0; i < weight.size(); ++i) {
    weight.data()[i] = pp::convert<T>(uniform(random));
    reference[i].w = pp::convert<double>(weight.data()[i]);
  }
  store.init("w", weight);
  for (int t = 1; t <= 6; ++t) {
    std::vector<pp::row_sparse<T>> gradients;
    std::map<std::int64_t, std::vector<double>> sums;
    for (std::size_t k = 0; k < sources; ++k) {
      auto const count = static_cast<std::int64_t>(random() % static_cast<unsigned>(rows));  // sometimes none
      ids which_rows;
      for (std::int64_t i = 0; i < count; ++i)
        which_rows.push_back(static_cast<std::int64_t>(random() % static_cast<unsigned>(rows)));
      gradients.push_back(rows_of<T>(whole, which_rows));
      for (std::int64_t i = 0; i < count; ++i) {
        auto& sum = sums[which_rows[static_cast<std::size_t>(i)]];
        sum.resize(static_cast<std::size_t>(length));
        for (std::int64_t j = 0; j < length; ++j) {
          T const g = pp::convert<T>(uniform(random) / 4);
          gradients.back().values()[i * length + j] = g;
          sum[static_cast<std::size_t>(j)] += pp::convert<double>(g);
        }
      }
    }
    store.push("w", gradients, which).wait();
    double const divisor = std::is_same_v<Reduction, pp::reduce::mean> ? static_cast<double>(sources) : 1;
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const found = sums.find(r);
      if (found == sums.end() && which == row_updates::lazy) continue;
      for (std::int64_t j = 0; j < length; ++j) {
        double const g = found == sums.end() ? 0 : found->second[static_cast<std::size_t>(j)] / divisor;
        auto& x = reference[static_cast<std::size_t>(r * length + j)];
        expected(x, g, t);
        x = {pp::test::rounded<stored_type>(x.w), pp::test::rounded<stored_type>(x.a),
             pp::test::rounded<stored_type>(x.b)};
      }
    }
  }
  auto const result = stored(store, "w");
  double worst = 0;
  for (std::size_t i = 0; i < result.size(); ++i)
    worst = pp::test::larger_deviation(worst, pp::test::deviation<stored_type>(result[i], reference[i].w));
  INFO(rows << " x " << length << ", " << sources << " sources, " << devices << " devices: off by " << worst
            << " units");
  REQUIRE(worst <= most_units);
  REQUIRE(store.steps("w") == 6);
  return result;
}

template <class T, class Element = pp::element::uniform, class Updater>
void train_everywhere(Updater const& updater, formula const& expected, std::int64_t length, std::size_t sources) {
  for (auto const which : {row_updates::lazy, row_updates::standard}) {
    std::int64_t const rows = length == 1 ? 4099 : 97;
    auto const one = train<T, Updater, pp::reduce::sum, Element>(updater, expected, rows, length, sources, 1, which);
    REQUIRE(train<T, Updater, pp::reduce::sum, Element>(updater, expected, rows, length, sources, 2, which) == one);
    REQUIRE(train<T, Updater, pp::reduce::sum, Element>(updater, expected, rows, length, sources, 3, which) == one);
  }
}

using element_types = pp::test::first_if_sanitized<bfloat16, float, double, half>;

}  // namespace

TEMPLATE_LIST_TEST_CASE(
    "push of row-sparse gradients equals the rules in double, lazy and standard, bit for bit on 1 to 3 devices",
    "[row_sparse]", element_types) {
  using T = TestType;
  std::size_t sources = 1;
  for (std::int64_t const length : {1, 3, 64, 65, 1500}) {
    train_everywhere<T>(update::sgd{.learning_rate = 0.1}, sgd, length, sources);
    // Squares of small gradients are below what 16 bits hold.
    using states = std::conditional_t<sizeof(T) == 2, pp::element::master<float>, pp::element::uniform>;
    train_everywhere<T, states>(update::adam{.learning_rate = 0.01, .epsilon = 1e-3}, adam, length, sources);
    sources = sources % 5 + 1;
  }
}

TEST_CASE("every rule updates rows", "[row_sparse]") {
  for (std::size_t sources = 1; sources <= 5; ++sources) {
    train_everywhere<float>(update::momentum{.learning_rate = 0.1, .dampening = 0.5}, momentum, 64, sources);
#if !PUSHPULL_TEST_SANITIZED
    train_everywhere<float>(update::nesterov{.learning_rate = 0.1}, nesterov, 65, sources);
    train_everywhere<float>(update::adamw{.learning_rate = 0.01, .epsilon = 1e-3, .weight_decay = 0.1}, adamw, 3,
                            sources);
#endif
  }
}

TEST_CASE("a rule that tells elements apart sees the same elements in rows and in whole tensors", "[row_sparse]") {
  for (std::int64_t const length : {1, 7, 64, 130})
    for (int const devices : {1, 3}) {
      shape const whole{300, length};
      pp::kv_store rows{pp::cpu_devices(devices), pp::update::sgld{.learning_rate = 0.1}, pp::synchronous{}};
      pp::kv_store dense{pp::cpu_devices(1), pp::update::sgld{.learning_rate = 0.1}, pp::synchronous{}};
      for (auto* const store : {&rows, &dense}) {
        store->init("before", filled<float>(shape{17}, 0));
        store->init("w", filled<float>(whole, 1));
      }
      auto gradient = filled<float>(whole, 0);
      std::fill_n(gradient.data() + 299 * length, length, 2.0F);
      auto row = rows_of(whole, {299});
      std::fill_n(row.values(), length, 2.0F);
      rows.push("w", row, row_updates::standard);
      dense.push("w", gradient);
      REQUIRE(stored(rows, "w") == stored(dense, "w"));
      auto const before = stored(dense, "w");
      rows.push("w", row);
      dense.push("w", gradient);
      auto const expected = stored(dense, "w"), got = stored(rows, "w");
      for (std::size_t i = 0; i < got.size(); ++i)
        REQUIRE(got[i] == (static_cast<std::int64_t>(i) < 299 * length ? before[i] : expected[i]));
    }
}

TEST_CASE("rows of a list of keys: repeated keys are grouped, ranges are of one length, all or nothing",
          "[row_sparse]") {
  pp::kv_store store{pp::cpu_devices(2), pp::update::sgd{.learning_rate = 1.0}};
  store.init("a", filled<float>(shape{4, 2}, 10));
  store.init("b", filled<float>(shape{9, 3}, 20));
  std::vector<std::string> const keys{"b", "a", "b"}, both{"a", "b"};
  std::vector<pp::row_sparse<float>> gradients;
  gradients.push_back(rows_of(shape{9, 3}, {7}, 1));
  gradients.push_back(rows_of(shape{4, 2}, {0}, 2));
  gradients.push_back(rows_of(shape{9, 3}, {7, 1}, 3));
  store.push(keys, gradients).wait();
  REQUIRE(store.steps("b") == 1);
  auto const b = stored(store, "b");
  REQUIRE(b[7 * 3] == 20 - 1 - 3);
  REQUIRE(b[3] == 20 - 103);
  REQUIRE(stored(store, "a")[1] == 10 - 3);

  std::vector<pp::row_sparse<float>> out;
  out.emplace_back(pp::cpu_device<>(), shape{4, 2});
  out.emplace_back(pp::cpu_device<>(), shape{9, 3});
  std::vector<ids> const which{{3, 0, 3}, {7}};
  auto const handle = store.row_sparse_pull(both, out, which);
  handle.wait();
  REQUIRE(handle.ready());
  REQUIRE(out[0].rows() == 2);
  REQUIRE(out[0].values()[0] == 8);
  REQUIRE(out[1].values()[0] == 16);

  std::vector<std::string> const unknown{"a", "c", "b"};
  REQUIRE_THROWS_AS(store.push(unknown, gradients), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push(both, gradients), pp::shape_mismatch);
  gradients[2] = rows_of(shape{9, 3}, {9}, 3);
  REQUIRE_THROWS_AS(store.push(keys, gradients), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.row_sparse_pull(keys, out, which), pp::shape_mismatch);
  std::vector<ids> const beyond{{1}, {9}};
  REQUIRE_THROWS_AS(store.row_sparse_pull(both, out, beyond), pp::invalid_argument);
  REQUIRE(out[0].rows() == 2);
  store.wait();
  REQUIRE(stored(store, "b") == b);
  REQUIRE(store.steps("a") == 1);
}

TEST_CASE("a mean divides rows by the number of sources, also by those that do not list them", "[row_sparse]") {
  for (auto const which : {row_updates::lazy, row_updates::standard})
    train<float, update::sgd, pp::reduce::mean>({.learning_rate = 0.1}, sgd, 31, 5, 3, 2, which);
}

TEST_CASE("rows are added in the order of sources, and of positions within a source", "[row_sparse]") {
  shape const whole{3, 1};
  float const large = 0x1p25F;
  std::vector<float> const first{large, 5, 1, -large}, second{large, 1}, third{5, -large};
  ids const first_ids{1, 0, 1, 1}, second_ids{2, 2}, third_ids{0, 2};
  using view = pp::row_sparse_view<float const>;
  std::vector const gradients{view(first.data(), first_ids.data(), 4, whole),
                              view(second.data(), second_ids.data(), 2, whole),
                              view(third.data(), third_ids.data(), 2, whole)};
  pp::kv_store<float, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(1)};
  store.init("w", filled(whole, 0));
  store.push("w", gradients);
  REQUIRE(stored(store, "w") == std::vector<double>{10, 0, 0});  // large + 1 is large
  std::vector const other{gradients[2], gradients[1]};
  store.push("w", other);
  REQUIRE(stored(store, "w") == std::vector<double>{5, 0, 1});
}

TEST_CASE("a row that stands more often than a run has places for pointers is added whole", "[row_sparse]") {
  shape const whole{9, 70};
  pp::kv_store<double, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(2)};
  store.init("w", filled<double>(whole, 0));
  store.push("w", rows_of<double>(whole, ids(40, 7)));
  auto const value = stored(store, "w");
  for (std::size_t j = 0; j < 70; ++j) REQUIRE(value[490 + j] == 40.0 * (1 + static_cast<double>(j)) + 100 * 780);
  REQUIRE(value[489] == 0);
  REQUIRE(value[560] == 0);
}

TEST_CASE("a lazy push leaves absent rows, their states and nothing else alone", "[row_sparse]") {
  shape const whole{5, 3};
  pp::kv_store store{pp::cpu_devices(1), update::momentum{.learning_rate = 1.0, .momentum = 0.5}, pp::synchronous{}};
  store.init("w", filled(whole, 0));
  store.push("w", rows_of(whole, {1, 3}, 1));
  store.push("w", rows_of(whole, {3}, 0));
  REQUIRE(store.steps("w") == 2);
  REQUIRE(store.state("w", "momentum_buffer") ==
          std::vector<float>{0, 0, 0, 1, 2, 3, 0, 0, 0, 50.5F, 52, 53.5F, 0, 0, 0});
  store.push("w", rows_of(whole, {}), row_updates::standard);
  REQUIRE(store.state("w", "momentum_buffer")[3] == 0.5F);
  REQUIRE(store.steps("w") == 3);
}

TEST_CASE("a row of zeros that is listed counts as present", "[row_sparse]") {
  shape const whole{2, 2};
  pp::kv_store store{pp::cpu_devices(1), update::momentum{.learning_rate = 1.0, .momentum = 0.5}, pp::synchronous{}};
  store.init("w", filled(whole, 0));
  store.push("w", rows_of(whole, {0, 1}));
  std::vector<float> const zero(2);
  std::int64_t const id = 1;
  store.push("w", pp::row_sparse_view(zero.data(), &id, 1, whole));
  REQUIRE(store.state("w", "momentum_buffer") == std::vector<float>{1, 2, 50.5F, 51});
}

TEST_CASE("without a rule the stored value becomes the merged rows, and zero elsewhere", "[row_sparse]") {
  shape const whole{4, 2};
  for (int const devices : {1, 3}) {
    pp::kv_store<float, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(devices)};
    store.init("w", filled(whole, 7));
    auto const a = rows_of(whole, {2, 0, 2}), b = rows_of(whole, {}), c = rows_of(whole, {2}, 1000);
    store.push("w", std::vector<pp::row_sparse_view<float const>>{a, b, c});
    REQUIRE(stored(store, "w") == std::vector<double>{101, 102, 0, 0, 1202, 1205, 0, 0});
    store.push("w", b);
    REQUIRE(stored(store, "w") == std::vector<double>(8));
    store.push("w", filled(whole, 3));  // dense and row-sparse pushes take turns as they like
    REQUIRE(stored(store, "w") == std::vector<double>(8, 3));
  }
}

TEST_CASE("init with a row-sparse value stores a dense one, all of it or nothing", "[row_sparse]") {
  shape const whole{700, 2};
  pp::kv_store<bfloat16, pp::cpu_device<>, update::sgd, pp::element::master<float>, pp::synchronous> store{
      pp::cpu_devices(2), update::sgd{1.0}};
  store.init("w", rows_of<bfloat16>(whole, {699, 2, 699}, 0));
  auto const value = stored(store, "w");
  REQUIRE(value[1398] == 200);
  REQUIRE(value[1399] == 202);
  REQUIRE(value[4] == 100);
  REQUIRE(std::count(value.begin(), value.end(), 0.0) == 1396);
  REQUIRE(store.steps("w") == 0);
  REQUIRE_THROWS_AS(store.init("w", rows_of<bfloat16>(whole, {1})), pp::duplicate_key);
  REQUIRE_THROWS_AS(store.init("v", rows_of<bfloat16>(whole, {700})), pp::invalid_argument);
  REQUIRE_FALSE(store.contains("v"));
  store.init("v", rows_of<bfloat16>(whole, {}));
  store.push("v", rows_of<bfloat16>(whole, {1}, 8));
  REQUIRE(stored(store, "v")[2] == -8);
  REQUIRE(store.steps("v") == 1);
}

TEST_CASE("keys without rows, or with empty rows, take empty pushes and pulls", "[row_sparse]") {
  pp::kv_store<float, pp::cpu_device<>, update::adam, pp::synchronous> store{pp::cpu_devices(2), update::adam{}};
  for (shape const& whole : {shape{0, 5}, shape{3, 0}}) {
    std::string const key = pp::to_string(whole);
    store.init(key, filled(whole, 0));
    store.push(key, rows_of(whole, {}));
    store.push(key, rows_of(whole, {}), row_updates::standard);
    REQUIRE(store.steps(key) == 2);
    auto out = rows_of(whole, {});
    store.row_sparse_pull(key, out, ids{});
    REQUIRE(out.rows() == 0);
  }
  auto out = rows_of(shape{3, 0}, {});
  store.push("(3, 0)", rows_of(shape{3, 0}, {2, 2}));
  store.row_sparse_pull("(3, 0)", out, ids{2, 1});
  REQUIRE(ids(out.row_ids(), out.row_ids() + out.rows()) == ids{1, 2});
  store.init("rows", rows_of(shape{4, 0}, {3}));
  store.push("rows", rows_of(shape{4, 0}, {3, 0}), row_updates::standard);
  auto whole = filled(shape{4, 0}, 0);
  store.pushpull("rows", rows_of(shape{4, 0}, {1}), whole);
  REQUIRE(store.steps("rows") == 2);
}

TEST_CASE("more rows than a call can count are refused before one is read", "[row_sparse]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{}};
  store.init("w", filled(shape{4, 1}, 1));
  std::vector<float> const value(4);
  ids const four{0, 1, 2, 3};
  pp::row_sparse_view const good(value.data(), four.data(), 4, shape{4, 1}),
      many(value.data(), four.data(), std::int64_t{1} << 40, shape{4, 1});
  std::vector const both{good, many};
  for (auto const& push :
       std::vector<std::function<void()>>{[&] { store.push("w", many); }, [&] { store.push("w", both); }}) {
    try {
      push();
      FAIL("no exception");
    } catch (pp::invalid_argument const& e) {
      REQUIRE_THAT(e.what(), Catch::Matchers::Contains("fewer than 2^31 - 1 rows"));
    }
  }
  REQUIRE(stored(store, "w") == std::vector<double>(4, 1));
}

TEST_CASE("integers, and tensors of other ranks, have rows too", "[row_sparse]") {
  pp::kv_store<std::int32_t, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(2)};
  shape const cube{600, 2, 2}, line{3};
  store.init("cube", filled<std::int32_t>(cube, 1));
  store.init("line", filled<std::int32_t>(line, 1));
  store.push("cube", rows_of<std::int32_t>(cube, {599}));
  store.push("line", rows_of<std::int32_t>(line, {1, 1}, 5));
  REQUIRE(stored(store, "line") == std::vector<double>{0, 110, 0});
  auto const all = stored(store, "cube");
  REQUIRE(std::vector<double>(all.end() - 5, all.end()) == std::vector<double>{0, 1, 2, 3, 4});
}

TEST_CASE("row_sparse_pull gives sorted unique rows, and drops what the output held", "[row_sparse]") {
  shape const whole{1200, 3};
  for (int const devices : {1, 2, 3}) {
    pp::kv_store store{pp::cpu_devices(devices), update::sgd{1.0}};
    auto value = filled(whole, 0);
    for (std::size_t i = 0; i < value.size(); ++i) value.data()[i] = static_cast<float>(i);
    store.init("w", value);
    auto out = rows_of(whole, {7, 8, 9, 10});
    ids wanted{1199, 5, 682, 5, 0, 682, 341};
    store.row_sparse_pull("w", out, wanted).wait();
    REQUIRE(out.rows() == 5);
    REQUIRE(ids(out.row_ids(), out.row_ids() + 5) == ids{0, 5, 341, 682, 1199});
    std::vector<double> expected;
    for (int const id : {0, 5, 341, 682, 1199})
      for (int j = 0; j < 3; ++j) expected.push_back(3 * id + j);
    REQUIRE(elements(out.values(), 15) == expected);
    store.row_sparse_pull("w", out, ids{}).wait();
    REQUIRE(out.rows() == 0);
  }
}

TEST_CASE("row ids have any shape and any type of numbers, and may change when the call returns", "[row_sparse]") {
  shape const whole{10, 65};
  pp::kv_store<float, pp::cpu_device<>> store{pp::cpu_devices(2)};
  store.init("w", filled(whole, 2));
  pp::row_sparse<float> out(pp::cpu_device<>(), whole);
  std::vector<float> floats{3, 1, 3, 2};
  auto const done = store.row_sparse_pull("w", out, pp::tensor_view(floats.data(), shape{2, 2}));
  floats.assign(4, 9);
  done.wait();
  REQUIRE(ids(out.row_ids(), out.row_ids() + out.rows()) == ids{1, 2, 3});
  store.row_sparse_pull("w", out, std::vector<std::uint8_t>{9}).wait();
  REQUIRE(ids(out.row_ids(), out.row_ids() + out.rows()) == ids{9});
  REQUIRE(out.values()[64] == 2);
}

TEST_CASE("one tensor of row ids serves all outputs, else each output has its own", "[row_sparse]") {
  shape const whole{50, 7};
  pp::kv_store<double, pp::cpu_device<>> store{pp::cpu_devices(3)};
  store.init("w", filled<double>(whole, 4));
  std::vector<pp::row_sparse<double>> outputs;
  for (int i = 0; i < 11; ++i) outputs.emplace_back(pp::cpu_device<>(), whole);
  store.row_sparse_pull("w", outputs, ids{4, 2}).wait();
  for (auto const& out : outputs) {
    REQUIRE(out.rows() == 2);
    REQUIRE(elements(out.values(), 14) == std::vector<double>(14, 4));
  }
  outputs.erase(outputs.begin() + 2, outputs.end());
  std::vector<ids> const each{{3}, {9, 8, 9}};
  store.row_sparse_pull("w", outputs, each).wait();
  REQUIRE(outputs[0].row_ids()[0] == 3);
  REQUIRE(outputs[1].rows() == 2);
  REQUIRE_THROWS_AS(store.row_sparse_pull("w", outputs, std::vector<ids>(1)), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.row_sparse_pull("w", outputs, std::vector<ids>(3)), pp::shape_mismatch);
}

TEST_CASE("pushpull of rows fills dense outputs with the whole new value", "[row_sparse]") {
  shape const whole{700, 3};
  for (int const devices : {1, 2}) {
    pp::kv_store store{pp::cpu_devices(devices), update::sgd{1.0}};
    store.init("w", filled(whole, 1));
    std::vector<pp::tensor<float>> outputs;
    for (int i = 0; i < 2; ++i) outputs.push_back(filled(whole, -5));
    auto const gradient = rows_of(whole, {699, 0}, 0);
    store.pushpull("w", gradient, outputs).wait();
    REQUIRE(stored(store, "w") == elements(outputs[0].data(), 2100));
    REQUIRE(stored(store, "w") == elements(outputs[1].data(), 2100));
    REQUIRE(outputs[0].data()[1] == -100.0F);
    REQUIRE(outputs[0].data()[4] == 1.0F);
    REQUIRE(outputs[0].data()[2099] == -1.0F);
  }
}

TEST_CASE("rows of a resident key reach every device's mirror", "[row_sparse]") {
  shape const whole{300, 7};
  for (int const devices : {1, 3, 11}) {
    pp::kv_store store{pp::cpu_devices(devices), update::sgd{1.0}};
    pp::parameter_store parameters{store};
    parameters.add("w", filled(whole, 1));
    parameters.value("w", 0);  // makes the mirrors
    for (auto const which : {row_updates::lazy, row_updates::standard}) {
      auto const gradient = rows_of(whole, {299, 4}, 0);
      store.push("w", gradient, which).wait();
      auto const value = stored(store, "w");
      for (std::size_t n = 0; n < static_cast<std::size_t>(devices); ++n)
        REQUIRE(elements(parameters.value("w", n).data(), 2100) == value);
    }
    REQUIRE(stored(store, "w")[2094] == -1.0);
  }
}

TEST_CASE("calls that name what is not there are refused, and the store holds what it held", "[row_sparse]") {
  shape const whole{10, 3};
  pp::kv_store store{pp::cpu_devices(2), update::momentum{}};
  store.init("w", filled(whole, 1));
  auto const good = rows_of(whole, {9}), high = rows_of(whole, {3, 10}), low = rows_of(whole, {-1}),
             other = rows_of(shape{10, 4}, {1});
  auto out = rows_of(whole, {5});
  std::vector<pp::row_sparse_view<float const>> const none, mixed{good, high};
  REQUIRE_THROWS_AS(store.push("v", good), pp::unknown_key);
  REQUIRE_THROWS_AS(store.push("w", none), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.push("w", other), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.push("w", low), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.push("w", mixed, row_updates::standard), pp::invalid_argument);
  std::vector<float> few(3);
  REQUIRE_THROWS_AS(store.pushpull("w", good, few), pp::shape_mismatch);
  REQUIRE_THROWS_AS(store.row_sparse_pull("v", out, ids{1}), pp::unknown_key);
  REQUIRE_THROWS_AS(store.row_sparse_pull("w", out, ids{-1}), pp::invalid_argument);
  auto wrong = rows_of(shape{9, 3}, {});
  REQUIRE_THROWS_AS(store.row_sparse_pull("w", wrong, ids{1}), pp::shape_mismatch);
  try {
    store.row_sparse_pull("w", out, ids{1, 10});
    FAIL("no exception");
  } catch (pp::invalid_argument const& e) {
    REQUIRE(std::string(e.what()) == "row_sparse_pull: key \"w\" has 10 rows, row 10 came");
  }
  REQUIRE(out.rows() == 1);
  REQUIRE(stored(store, "w") == std::vector<double>(30, 1));
  REQUIRE(store.steps("w") == 0);
  store.push("w", good).wait();
  REQUIRE(store.steps("w") == 1);
  REQUIRE(stored(store, "w")[27] != 1);
}

TEST_CASE("a function in the place of a rule takes no rows", "[row_sparse]") {
  shape const whole{2, 2};
  pp::kv_store<float, pp::cpu_device<>, pp::synchronous> store{pp::cpu_devices(1)};
  store.init("w", filled(whole, 1));
  store.set_updater([](auto, auto const&, auto const&) {});
  REQUIRE_THROWS_AS(store.push("w", rows_of(whole, {1})), pp::invalid_argument);
  REQUIRE(stored(store, "w") == std::vector<double>(4, 1));
  store.reset_updater();
  store.push("w", rows_of(whole, {1}));
  REQUIRE(stored(store, "w") == std::vector<double>{0, 0, 1, 2});
}

TEST_CASE("memory that is not there leaves the store as it was", "[row_sparse]") {
  using pp::test::counting_device;
  shape const whole{40, 5};
  std::vector<counting_device> const devices{counting_device(0), counting_device(1)};
  for (int const fails : {0, 1, 2, 3, 4}) {
    pp::kv_store store{devices, update::sgd{1.0}};
    store.init("w", filled(whole, 1));
    auto const gradient = rows_of(whole, {5, 3, 5});
    auto out = filled(whole, 0);
    int left = fails;
    devices[0].count().before_allocation = [&] {
      if (left-- == 0) throw pp::out_of_memory("none");
    };
    REQUIRE_THROWS_AS(store.pushpull("w", gradient, out).wait(), pp::out_of_memory);
    devices[0].count().before_allocation = nullptr;
    REQUIRE(stored(store, "w") == std::vector<double>(200, 1));
    store.push("w", gradient).wait();
    REQUIRE(stored(store, "w")[15] == 1 - 101.0);
  }
}

TEST_CASE("a push of rows in the steady state is one pass per device and allocates nothing there", "[row_sparse]") {
  using pp::test::counting_device;
  shape const whole{4000, 64};
  for (bool const isolated : {false, true}) {
    std::vector<counting_device> const devices{counting_device(0, isolated), counting_device(1, isolated)};
    pp::kv_store store{devices, update::adam{}};
    store.init("w", filled(whole, 1));
    auto const a = rows_of(whole, {3999, 17, 17, 2000}), b = rows_of(whole, {1, 17});
    std::vector<pp::row_sparse_view<float const>> const gradients{a, b};
    pp::row_sparse<float, counting_device> out(devices[0], whole);
    for (int i = 0; i < 3; ++i) {
      for (auto const& device : devices) device.count().clear();
      store.push("w", gradients).wait();
      if (!isolated) store.row_sparse_pull("w", out, ids{17, 3999, 17}).wait();
    }
    for (auto const& device : devices) {
      REQUIRE(device.count().allocations == 0);
      REQUIRE(device.count().passes == (isolated ? 1 : 2));
    }
    pp::kv_store reference{pp::cpu_devices(1), update::adam{}, pp::synchronous{}};
    reference.init("w", filled(whole, 1));
    for (int i = 0; i < 3; ++i) reference.push("w", gradients);
    REQUIRE(stored(store, "w") == stored(reference, "w"));
    if (isolated) REQUIRE_THROWS_AS(store.row_sparse_pull("w", out, ids{1}), pp::unknown_device);

    pp::parameter_store model(store);  // whose mirrors follow
    model.add("m", filled(whole, 1));
    model.materialize();
    for (auto const& device : devices) device.count().clear();
    for (int i = 0; i < 3; ++i) store.push("m", gradients).wait();
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const mirror = pp::to_vector(model.value("m", n));
      REQUIRE(std::vector<double>(mirror.begin(), mirror.end()) == stored(reference, "w"));
      REQUIRE(devices[n].count().copies >= (isolated ? 3 : 0));
    }
  }
}
