/// @file
/// Row-sparse gradients, values and pulls of several ranks: the weights are those of one process, bit for bit.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <pushpull/comm/checked.hpp>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace test = pushpull::test;
using ids = std::vector<std::int64_t>;
using bits = std::vector<std::vector<std::uint64_t>>;

/// Rows that are cut by slices and rows that are not, one row longer than a slice, rows of one element, and none.
std::vector<pp::shape> shapes_of_keys() {
  return {{300, 7}, {5, 1000}, {1, 4099}, {4099}, {64, 64}, {3, 0}, {90, 2, 17}};
}

template <class T>
pp::row_sparse<T> rows_of(pp::shape const& whole, std::size_t key, std::size_t step, std::size_t source) {
  std::mt19937 random(static_cast<unsigned>(1 + key + 100 * step + 10000 * source));
  auto const rows = static_cast<unsigned>(whole[0]);
  auto const count = static_cast<std::int64_t>((source + step) % 3 == 0 ? 0 : 1 + random() % (rows + 3));
  pp::row_sparse<T> result(pp::cpu_device<>(), whole, count);
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < count; ++i) result.row_ids()[i] = static_cast<std::int64_t>(random() % rows);
  if (step == 2) std::sort(result.row_ids(), result.row_ids() + count);
  for (std::int64_t i = 0; i < count * result.row_length(); ++i) result.values()[i] = static_cast<T>(normal(random));
  return result;
}

/// How the gradients of a step are pushed.
enum class way { push, list, pushpull };

/// The weights and states of all keys after `steps` steps, and what a pull of rows gives.
template <class T, class Store>
bits train(Store& store, test::share const& own, std::size_t steps, pp::row_updates updates, way how,
           pp::key_options options) {
  auto const shapes = shapes_of_keys();
  bool const counts = own.first == 0;  // the values of rank 0 do
  std::vector<std::string> keys;
  std::vector<std::vector<T>> values;
  std::vector<pp::tensor_view<T, pp::cpu_device<>>> views;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    keys.push_back("key " + std::to_string(i));
    values.push_back(test::initial_value<T>(i, shapes[i].size()));
    if (!counts) std::fill(values.back().begin(), values.back().end(), static_cast<T>(7));
  }
  for (std::size_t i = 0; i < shapes.size(); ++i) views.emplace_back(values[i].data(), shapes[i]);
  store.init(keys, views, options);
  keys.push_back("from rows");
  auto const initial = rows_of<T>({70, 100}, 20, counts ? 1 : 2, 0);
  store.init("from rows", initial, options);
  values.emplace_back(7000);
  views.emplace_back(values.back().data(), pp::shape{70, 100});
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<std::vector<pp::row_sparse<T>>> gradients(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
      for (std::size_t k = own.first; k < own.first + own.count; ++k)
        gradients[i].push_back(rows_of<T>(views[i].shape(), i, step, k));
    if (how == way::list) store.push(keys, gradients, updates);
    for (std::size_t i = 0; how != way::list && i < keys.size(); ++i) {
      if (how == way::push) store.push(keys[i], gradients[i], updates);
      if (how == way::pushpull) store.pushpull(keys[i], gradients[i], views[i], updates);
    }
    store.wait();
  }
  bits result;
  auto const keep = [&] {
    for (auto const& value : values) result.push_back(test::bits_of(value));
  };
  if (how == way::pushpull) keep();
  if (how == way::list) {  // dense gradients too, and two outputs
    std::vector<std::vector<std::vector<T>>> dense(keys.size());
    auto second = values;
    std::vector<std::vector<pp::tensor_view<T, pp::cpu_device<>>>> gradients(keys.size()), outputs(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      for (std::size_t k = own.first; k < own.first + own.count; ++k)
        dense[i].push_back(test::gradient_of<T>(i, steps, k, values[i].size()));
      for (auto& x : dense[i]) gradients[i].emplace_back(x.data(), views[i].shape());
      outputs[i] = {views[i], {second[i].data(), views[i].shape()}};
    }
    store.push(keys, gradients);
    store.pushpull(keys, gradients, outputs).wait();
    keep();
    test::expect(second == values);
    store.pushpull(keys[0], gradients[0], views[0]).wait();
  }
  store.pull(keys, views).wait();
  for (std::size_t i = 0; !options.mirrored && i < keys.size(); ++i)
    test::expect_throws<pp::invalid_argument>([&] { store.mirror(keys[i], 0); });
  if constexpr (!std::is_same_v<typename Store::communicator_type, comm::single>)  // which shows no mirrors
    for (std::size_t i = 0; options.mirrored && i < keys.size(); ++i)
      for (std::size_t n = 0; n < own.count; ++n) test::expect(pp::to_vector(store.mirror(keys[i], n)) == values[i]);
  keep();
  std::vector<std::vector<double>> converted;  // no mirror of a narrow type answers this
  for (auto const& value : values) converted.emplace_back(value.size());
  for (std::size_t i = 0; i < keys.size(); ++i)
    store.pull(keys[i], pp::tensor_view<double, pp::cpu_device<>>(converted[i].data(), views[i].shape())).wait();
  for (auto const& value : converted) result.push_back(test::bits_of(value));
  for (std::size_t i = 0; i < keys.size(); ++i) {
    std::int64_t const last = views[i].shape()[0] - 1;
    std::vector<pp::row_sparse<T>> out;
    for (int n = 0; n < 2; ++n) out.emplace_back(pp::cpu_device<>(), views[i].shape());
    store.row_sparse_pull(keys[i], out, ids{last, 0, last / 2, 0}).wait();
    for (auto const& rows : out) {
      result.push_back(test::bits_of(std::vector<std::int64_t>(rows.row_ids(), rows.row_ids() + rows.rows())));
      result.push_back(test::bits_of(std::vector<T>(rows.values(), rows.values() + rows.rows() * rows.row_length())));
    }
    if constexpr (Store::has_updater) result.push_back({static_cast<std::uint64_t>(store.steps(keys[i]))});
  }
  return result;
}

template <class T, class Make>
void require_same_bits(int ranks, std::size_t devices, pp::row_updates updates, way how, Make const& make,
                       pp::key_options of_keys = {}) {
  CAPTURE(ranks, devices, static_cast<int>(updates), static_cast<int>(how), of_keys.mirrored);
  std::size_t const all = static_cast<std::size_t>(ranks) * devices;
  auto alone = make(pp::cpu_devices(static_cast<int>(all)), comm::single{});
  auto const expected = train<T>(alone, {0, all}, 4, updates, how, {});
  test::for_each_reach(ranks, [&](comm::threads_options const& options) {
    std::vector<bits> found(static_cast<std::size_t>(ranks));
    comm::run_ranks(ranks, options, [&](comm::threads const& c) {
      auto store = make(pp::cpu_devices(static_cast<int>(devices)), c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = train<T>(store, {rank * devices, devices}, 4, updates, how, of_keys);
    });
    for (auto const& one : found) {
      REQUIRE(one.size() == expected.size());
      for (std::size_t i = 0; i < one.size(); ++i) {
        CAPTURE(i);
        REQUIRE(one[i] == expected[i]);
      }
    }
  });
}

template <class T, class Make>
void require_same_bits(Make const& make, bool also_without_mirrors = false) {
  for (auto const updates : {pp::row_updates::lazy, pp::row_updates::standard}) {
    require_same_bits<T>(2, 2, updates, way::push, make);
    require_same_bits<T>(3, 1, updates, way::pushpull, make);
    require_same_bits<T>(4, 1, updates, way::list, make);
    if (!also_without_mirrors) continue;
    pp::key_options const options{.mirrored = false};
    require_same_bits<T>(2, 2, updates, way::pushpull, make, options);
    require_same_bits<T>(3, 1, updates, way::list, make, options);
    require_same_bits<T>(4, 1, updates, way::pushpull, make, options);
    require_same_bits<T>(7, 1, updates, way::push, make, options);
  }
}

}  // namespace

TEST_CASE("rows over ranks give the bits of one process: sgd", "[ranks][row_sparse]") {
  require_same_bits<float>(
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, c);
      },
      true);
}

TEST_CASE("rows over ranks give the bits of one process: adam", "[ranks][row_sparse]") {
  require_same_bits<float>(
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
      },
      true);
}

TEST_CASE("rows over ranks give the bits of one process: a number per row", "[ranks][row_sparse]") {
  require_same_bits<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_value(1.5) | update::adam_mini{.learning_rate = 0.1}, c);
  });
}

TEST_CASE("rows over ranks give the bits of one process: a rule that starts states, and a mean",
          "[ranks][row_sparse]") {
  require_same_bits<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adagrad{.learning_rate = 0.1, .initial_accumulator_value = 0.5},
                                    pp::reduce::mean{}, c);
  });
}

TEST_CASE("rows over ranks give the bits of one process: bfloat16 with masters of float", "[ranks][row_sparse]") {
  require_same_bits<pp::bfloat16>(
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<pp::bfloat16>(devices, update::momentum{.learning_rate = 0.1},
                                               pp::element::master<float>{}, c);
      },
      true);
}

TEST_CASE("rows over ranks give the bits of one process: no rule, and keys that are not cut", "[ranks][row_sparse]") {
  require_same_bits<double>([](auto const& devices, auto const& c) { return pp::make_kv_store<double>(devices, c); });
  require_same_bits<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::placement::owners{}, c);
  });
  auto const as_in_mxnet = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.1}, pp::placement::mxnet{4000}, c);
  };
  require_same_bits<float>(3, 1, pp::row_updates::lazy, way::pushpull, as_in_mxnet);
}

TEST_CASE("a rank has its slices only of a key without mirrors", "[ranks][row_sparse]") {
  std::size_t const rows = 9001, length = 31, elements = rows * length;
  auto const bytes_on = [&](int ranks, bool mirrored, bool from_rows) {
    std::vector<std::size_t> result(static_cast<std::size_t>(ranks));
    comm::run_ranks(ranks, {}, [&](comm::threads const& c) {
      auto store = pp::make_kv_store<pp::bfloat16>(pp::cpu_devices(1), update::momentum{.learning_rate = 0.1},
                                                   pp::element::master<float>{}, c);
      pp::shape const whole{rows, length};
      pp::row_sparse<pp::bfloat16> some(pp::cpu_device<>(), whole, 1);
      some.row_ids()[0] = 4;
      std::fill_n(some.values(), length, pp::bfloat16(1));
      std::vector<pp::bfloat16> value(elements);
      for (std::size_t i = 0; i < elements; ++i) value[i] = pp::convert<pp::bfloat16>(static_cast<float>(i % 97));
      if (from_rows) store.init("table", some, {.mirrored = mirrored});
      if (!from_rows) store.init("table", pp::tensor_view(value.data(), whole), {.mirrored = mirrored});
      store.push("table", some).wait();
      pp::row_sparse<pp::bfloat16> out(pp::cpu_device<>(), whole);
      store.row_sparse_pull("table", out, ids{8500, 9000}).wait();
      for (std::size_t const row : {0, 1})
        for (std::size_t i = 0; i < length; ++i)
          test::expect(pp::convert<float>(out.values()[row * length + i]) ==
                       (from_rows ? 0 : static_cast<float>(((row == 0 ? 8500 : 9000) * length + i) % 97)));
      result[static_cast<std::size_t>(c.rank())] = store.bytes(0);
      test::expect((store.memory_report().total().mirrors > 0) == mirrored);
    });
    return result;
  };
  for (int const ranks : {2, 3, 7})
    for (bool const from_rows : {false, true}) {
      std::size_t const leaf = pp::pass::leaf_size, pages = 4 * 8192;
      std::size_t const own = 8 * (elements / static_cast<std::size_t>(ranks) + leaf) + pages;  // a master, a state
      for (std::size_t const bytes : bytes_on(ranks, false, from_rows)) REQUIRE(bytes <= own);
      for (std::size_t const bytes : bytes_on(ranks, true, from_rows)) REQUIRE(bytes >= 2 * elements);
    }
}

TEST_CASE("errors of calls on a key without mirrors leave the store as it was", "[ranks][row_sparse]") {
  auto const run = [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{.learning_rate = 1}, c};
    std::vector<float> const value{1, 2, 3, 4, 5, 6, 7, 8};
    pp::tensor_view<float const, pp::cpu_device<>> const view(value.data(), pp::shape{4, 2});
    test::expect_throws<pp::invalid_argument>([&] { store.init("a", view, {.mirrored = c.rank() == 0}); });
    store.init("a", view, {.mirrored = false});
    pp::row_sparse<float> gradient(pp::cpu_device<>(), pp::shape{4, 2}, 1), out(pp::cpu_device<>(), pp::shape{4, 2});
    gradient.row_ids()[0] = 4;
    gradient.values()[0] = gradient.values()[1] = 1;
    test::expect_throws<pp::invalid_argument>([&] { store.push("a", gradient); });
    test::expect_throws<pp::invalid_argument>([&] { store.row_sparse_pull("a", out, ids{0, 4}); });
    test::expect_throws<pp::invalid_argument>([&] { store.row_sparse_pull("a", out, ids{-1}); });
    test::expect_throws<pp::shape_mismatch>([&] { store.push("a", value); });
    test::expect_throws<pp::invalid_argument>([&] { store.mirror("a", 0); });
    // Ranks may ask for different rows, as often as they like, and for none.
    ids const asked = c.rank() == 0 ? ids{} : ids{3, c.rank() % 4};
    store.row_sparse_pull("a", out, asked).wait();
    test::expect(out.rows() == (asked.empty() ? 0 : c.rank() == 3 ? 1 : 2));
    for (std::int64_t i = 0; i < out.rows(); ++i)
      test::expect(out.values()[2 * i + 1] == value[static_cast<std::size_t>(2 * out.row_ids()[i] + 1)]);
    std::vector<float> pulled(8), again(8);
    std::vector const outputs{pp::tensor_view(pulled.data(), pp::shape{4, 2}),
                              pp::tensor_view(again.data(), pp::shape{4, 2})};
    store.pull("a", outputs).wait();
    test::expect(pulled == value && again == value);
  };
  test::for_each_reach(4, [&](comm::threads_options const& options) { comm::run_ranks(4, options, run); });
}

TEST_CASE("ranks make the same calls for rows, whatever they bring", "[ranks][row_sparse]") {
  auto const make = [](auto const& devices, auto const& c) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(c)>, comm::threads>) {
      return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, comm::checked<comm::threads>(c));
    } else {
      return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
    }
  };
  require_same_bits<float>(3, 1, pp::row_updates::lazy, way::push, make);
  require_same_bits<float>(3, 1, pp::row_updates::lazy, way::pushpull, make, {.mirrored = false});
}

TEST_CASE("a row of rank 0 that does not exist is an error of init on all ranks", "[ranks][row_sparse]") {
  auto const run = [](comm::threads const& c) {
    pp::kv_store store{pp::cpu_devices(1), update::sgd{}, c};
    pp::row_sparse<float> rows(pp::cpu_device<>(), pp::shape{4, 2}, 1);
    rows.row_ids()[0] = c.rank() == 0 ? 4 : 3;
    rows.values()[0] = rows.values()[1] = 1;
    test::expect_throws<pp::invalid_argument>([&] { store.init("a", rows); });
    rows.row_ids()[0] = 2;
    store.init("a", rows);
    std::vector<float> out(8);
    store.pull("a", pp::tensor_view(out.data(), pp::shape{4, 2})).wait();
    test::expect(out == std::vector<float>{0, 0, 0, 0, 1, 1, 0, 0});
  };
  test::for_each_reach(2, [&](comm::threads_options const& options) { comm::run_ranks(2, options, run); });
}
