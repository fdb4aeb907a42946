/// @file
/// What every store does: the calls that take tensors, over one key and over lists, against arithmetic on vectors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace pushpull::test {

using floats = std::vector<float>;
using float_lists = std::vector<floats>;
using names = std::vector<std::string>;

/// The values of keys under plain gradient descent, as a store of any kind has to have them.
class plain_reference {
 public:
  explicit plain_reference(float rate) : rate_(rate) {}

  void push(floats& value, float_lists const& gradients) const {
    for (std::size_t i = 0; i < value.size(); ++i) {
      float sum = 0;
      for (floats const& gradient : gradients) sum += gradient[i];
      value[i] -= rate_ * sum;
    }
  }

 private:
  float rate_;
};

/// Two keys, which a store of several rules gives two of them, and what is pushed to them.
struct face_example {
  names const keys{"a.weight", "b.bias"};
  float_lists values{floats(12, 8.0F), floats(6, 4.0F)};
  float_lists const gradients{floats(12, 0.5F), floats(6, 2.0F)};
  float_lists outputs{floats(12), floats(6)};
  plain_reference const reference{0.5F};

  void pushed(std::size_t k, std::size_t sources = 1) { reference.push(values[k], float_lists(sources, gradients[k])); }
  void all_pushed() {
    for (std::size_t k = 0; k < keys.size(); ++k) pushed(k);
  }
  template <class Store>
  void expect_values(Store& store) {
    for (floats& output : outputs) std::fill(output.begin(), output.end(), 0.0F);
    store.pull(keys, outputs).wait();
    REQUIRE(outputs == values);
  }
};

/// init, push, pull, pushpull, broadcast, assign: one key, a list, several sources, in place.
template <class Store>
void check_dense_calls(Store& store) {
  face_example x;
  store.init(x.keys, x.values);
  REQUIRE(store.keys().size() == 2);
  REQUIRE(store.contains("b.bias"));
  REQUIRE_FALSE(store.contains("c"));
  REQUIRE(store.shape("a.weight") == shape{12});
  REQUIRE(store.dtype("a.weight") == "float32");
  x.expect_values(store);
  for (std::size_t k = 0; k < 2; ++k) {
    store.push(x.keys[k], x.gradients[k]);
    x.pushed(k);
    float_lists const sources(3, x.gradients[k]);
    store.push(x.keys[k], sources).wait();
    x.pushed(k, 3);
    floats output(x.values[k].size());
    store.pull(x.keys[k], output).wait();
    REQUIRE(output == x.values[k]);
    store.pushpull(x.keys[k], x.gradients[k], output).wait();
    x.pushed(k);
    REQUIRE(output == x.values[k]);
    output = x.gradients[k];
    store.pushpull(x.keys[k], output).wait();
    x.pushed(k);
    REQUIRE(output == x.values[k]);
  }
  store.push(x.keys, x.gradients);
  x.all_pushed();
  store.pushpull(x.keys, x.gradients, x.outputs).wait();
  x.all_pushed();
  REQUIRE(x.outputs == x.values);
  x.outputs = x.gradients;
  store.pushpull(x.keys, x.outputs).wait();
  x.all_pushed();
  REQUIRE(x.outputs == x.values);

  x.values[1] = floats(6, 3.0F);
  store.assign("b.bias", x.values[1]);
  x.expect_values(store);
  x.values = {floats(12, 1.0F), floats(6, 2.0F)};
  store.assign(x.keys, x.values);
  x.expect_values(store);

  floats first(5);
  store.broadcast("c", floats(5, 7.0F), first).wait();
  REQUIRE(first == floats(5, 7.0F));
  float_lists others(2, floats(3));
  store.broadcast(names{"d.bias", "e"}, float_lists(2, floats(3, 9.0F)), others).wait();
  REQUIRE(others == float_lists(2, floats(3, 9.0F)));
  REQUIRE(store.size() == 5);
  REQUIRE(store.steps("a.weight") == 7);
  store.wait();
}

/// The calls that take row-sparse tensors.
template <class Store>
void check_row_calls(Store& store) {
  names const keys{"a.weight", "b.bias"};
  cpu_device<> const device = cpu_devices(1).front();
  auto const rows_of = [&](std::int64_t id, float value) {
    row_sparse<float> rows(device, shape{4, 3}, 1);
    rows.row_ids()[0] = id;
    std::fill_n(rows.values(), 3, value);
    return rows;
  };
  for (std::string const& key : keys) store.init(key, rows_of(1, 8.0F));
  floats expected(12);
  std::fill_n(expected.begin() + 3, 3, 8.0F);
  std::vector<row_sparse<float>> gradients;
  gradients.push_back(rows_of(1, 2.0F));
  gradients.push_back(rows_of(1, 2.0F));
  store.push(keys[0], gradients[0]).wait();
  store.push(keys[1], gradients[1], row_updates::standard).wait();
  store.push(keys, gradients).wait();
  floats output(12);
  tensor_view<float> const dense{output.data(), shape{4, 3}};
  store.pushpull(keys[0], gradients[0], dense).wait();
  std::fill_n(expected.begin() + 3, 3, 8.0F - 3 * 0.5F * 2.0F);
  REQUIRE(output == expected);
  store.pushpull(keys[1], gradients[1], dense, row_updates::lazy).wait();
  REQUIRE(output == expected);

  std::vector<row_sparse<float>> filled;
  filled.push_back(rows_of(0, 0.0F));
  filled.push_back(rows_of(0, 0.0F));
  std::vector<std::int64_t> const ids{1};
  store.row_sparse_pull(keys[0], filled[0], ids).wait();
  REQUIRE(filled[0].rows() == 1);
  REQUIRE(filled[0].row_ids()[0] == 1);
  REQUIRE(filled[0].values()[2] == 5.0F);
  store.row_sparse_pull(keys, filled, std::vector<std::vector<std::int64_t>>(2, ids)).wait();
  REQUIRE(filled[1].values()[0] == 5.0F);
}

/// steps, parameter groups, waiting, bytes.
template <class Store, class Rule>
void check_key_calls(Store& store, Rule const& half_of) {
  face_example x;
  store.init(x.keys, x.values);
  REQUIRE(store.rank() == 0);
  REQUIRE(store.num_workers() == 1);
  store.barrier();
  std::string commands;
  store.command(1, "to nobody");
  store.on_command([&](std::int64_t head, std::string_view body) {
    commands += std::to_string(head) + std::string(body) + std::to_string(store.size());  // it may call the store
  });
  store.command(2, " keys: ");
  REQUIRE(commands == "2 keys: " + std::to_string(store.size()));
  store.on_command({});
  store.command(3, "to nobody");
  REQUIRE(commands.ends_with(std::to_string(store.size())));
  REQUIRE(store.join(2) == 1.0);
  REQUIRE_FALSE(store.join(0).has_value());
  REQUIRE(store.is_capable("optimizer"));
  store.set_steps("b.bias", 5);
  store.push(x.keys, x.gradients);
  REQUIRE(store.steps("b.bias") == 6);
  store.wait("a.weight");
  store.device_waits_for(store.devices().front(), "a.weight");
  store.key_waits_for("a.weight", store.devices().front());
  memory_report const report = store.memory_report();
  REQUIRE(report.devices.size() == store.devices().size());
  REQUIRE(report.total().masters >= 18 * sizeof(float));
  REQUIRE(report.devices.front().total() == store.bytes(0));
  REQUIRE(store.swapped("a.weight").empty());
  REQUIRE_THROWS_AS(store.swap("no such state"), invalid_argument);
  REQUIRE_THROWS_AS(store.swap("c", "momentum"), unknown_key);

  std::size_t const added = store.add_group([](any_key_view key) { return key.string() == "a.weight"; }, half_of);
  REQUIRE(added == 1);
  REQUIRE(store.group("a.weight") == 1);
  x.all_pushed();
  store.push("a.weight", x.gradients[0]);
  for (std::size_t i = 0; i < 12; ++i) x.values[0][i] -= 0.25F * x.gradients[0][i];
  x.expect_values(store);
  store.drain();
}

/// Sums of micro-batches, in stores with the policy accumulate{0}.
template <class Store>
void check_micro_batches(Store& store) {
  face_example x;
  store.init(x.keys, x.values);
  store.accumulate("a.weight", x.gradients[0]);
  store.accumulate(x.keys, x.gradients).wait();
  x.expect_values(store);
  REQUIRE(store.micro_batches("a.weight") == 2);
  REQUIRE(store.micro_batches("b.bias") == 1);
  store.discard_micro_batches("b.bias");
  REQUIRE(store.micro_batches("b.bias") == 0);
  store.push(x.keys, x.gradients);
  x.pushed(0, 3);
  x.pushed(1);
  x.expect_values(store);
}

/// An error names the call and the key, and changes nothing.
template <class Store>
void check_errors(Store& store) {
  using Catch::Matchers::Contains;
  face_example x;
  store.init(x.keys, x.values);
  floats const wrong(3, 1.0F);
  floats output(12);
  float_lists const none, one{x.gradients[0]}, bad{x.gradients[0], wrong};
  REQUIRE_THROWS_WITH(store.push("c", x.gradients[0]), Contains("push") && Contains("\"c\""));
  REQUIRE_THROWS_WITH(store.pull("c", output), Contains("pull") && Contains("\"c\""));
  REQUIRE_THROWS_AS(store.push("a.weight", wrong), shape_mismatch);
  REQUIRE_THROWS_AS(store.push(x.keys, bad), shape_mismatch);
  REQUIRE_THROWS_AS(store.push(x.keys, one), shape_mismatch);
  REQUIRE_THROWS_AS(store.push(names{"a.weight", "c"}, x.gradients), unknown_key);
  REQUIRE_THROWS_AS(store.push(names{}, x.gradients), shape_mismatch);
  REQUIRE_THROWS_AS(store.push("a.weight", none), invalid_argument);
  REQUIRE_THROWS_AS(store.assign(x.keys, float_lists{x.values[0], wrong}), shape_mismatch);
  REQUIRE_THROWS_AS(store.assign(names{"b.bias", "b.bias"}, float_lists(2, x.values[1])), duplicate_key);
  REQUIRE_THROWS_AS(store.init("a.weight", wrong), duplicate_key);
  REQUIRE_THROWS_AS(store.init(names{"c", "b.bias"}, x.values), duplicate_key);
  REQUIRE_THROWS_AS(store.steps("c"), unknown_key);
  REQUIRE_THROWS_AS(store.set_steps("a.weight", -1), invalid_argument);
  REQUIRE(store.size() == 2);
  REQUIRE(store.steps("a.weight") == 0);
  x.expect_values(store);
}

}  // namespace pushpull::test
