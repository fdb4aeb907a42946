/// @file
/// The shapes of a batch and the rows of it that each device takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/descriptor.hpp>
#include <pushpull/train/executor.hpp>
#include <pushpull/train/slicing.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Data and labels, and how their rows are cut.
struct batch_layout {
  input_descriptors whole{};
  std::optional<std::int64_t> rows{};  ///< Samples of a batch; none if no array has an axis of samples.
  std::vector<row_range> slices{};     ///< Of each device.

  /// Whether the device gets no rows of a batch.
  bool is_idle(std::size_t device) const { return rows && slices[device].empty(); }
  /// The shapes of one device's part.
  input_descriptors of(std::size_t device) const {
    input_descriptors part = whole;
    for (auto* const list : {&part.data, &part.labels})
      for (descriptor& d : *list) d.shape = with_rows(d.shape, d.batch_axis(), slices[device].size());
    return part;
  }
};

/// The samples of data and labels. @throws bad_option if there are no data, or two arrays have one name; batch_mismatch if
/// arrays do not have the samples of the first with an axis of samples; shape_mismatch if an array has no such axis
inline std::optional<std::int64_t> count_rows(input_descriptors const& inputs) {
  pushpull::detail::expects<bad_option>(
      !inputs.data.empty(), [] { return std::string("bind: a descriptor of at least one array of data expected"); });
  std::optional<std::int64_t> rows;
  std::string_view first;
  std::set<std::string_view> names;
  for (auto const* const list : {&inputs.data, &inputs.labels})
    for (descriptor const& d : *list) {
      pushpull::detail::expects<bad_option>(names.insert(d.name).second,
                                            [&] { return "bind: two descriptors have the name \"" + d.name + "\""; });
      std::int64_t const own = d.rows();
      if (d.batch_axis() < 0) continue;
      if (!rows) {
        rows = own;
        first = d.name;
      }
      pushpull::detail::expects<batch_mismatch>(own == *rows, [&] {
        return "bind: \"" + std::string(first) + "\" has " + std::to_string(*rows) + " samples, \"" + d.name +
               "\" of shape " + to_string(d.shape) + " and layout " + d.layout + " has " + std::to_string(own);
      });
    }
  return rows;
}

/// Cuts the rows by the loads of the devices.
/// @throws as count_rows and slice_batch
template <SlicingPolicy Slicing>
batch_layout lay_out(input_descriptors inputs, std::span<double const> loads, slicing_options options = {}) {
  batch_layout result;
  result.rows = count_rows(inputs);
  if (result.rows) {
    result.slices = slice_batch<Slicing>(*result.rows, loads, options);
  } else {
    result.slices.resize(loads.size());
  }
  result.whole = std::move(inputs);
  return result;
}

}  // namespace pushpull::train
