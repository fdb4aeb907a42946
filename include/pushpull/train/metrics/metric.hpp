/// @file
/// The concept of a metric.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// A metric's result. NaN if nothing was counted.
struct metric_value {
  std::string name;
  double value;
};

/// The samples of a call that count: the first `rows` on axis `axis` of the outputs. Those after them are padding.
/// An axis of -1 counts all.
struct counted_rows {
  std::int64_t rows = std::numeric_limits<std::int64_t>::max();
  int axis = 0;
};

/// Sums over samples, read when asked. `update` is called once per device and batch, with that device's slices; results do
/// not depend on the number of devices.
/// Needs:  update(labels, outputs, counted): ranges of tensors on one device; enqueues the sums, does not wait;
///         reset(): forgets all; reset_local(): forgets what `values` returns, and not what `global_values` returns;
///         values(), global_values() -> std::vector<metric_value>: since either reset, and since `reset`. They wait.
/// Models: those of metrics/.
template <class M, class Output = tensor_view<float const>, class Label = Output>
concept Metric = requires(M& metric, M const& read, std::span<Label const> labels, std::span<Output const> outputs,
                          counted_rows counted) {
  metric.update(labels, outputs, counted);
  metric.reset();
  metric.reset_local();
  { read.values() } -> std::same_as<std::vector<metric_value>>;
  { read.global_values() } -> std::same_as<std::vector<metric_value>>;
};

}  // namespace pushpull::train
