/// @file
/// Batches of a range, such as a pipeline of views.
#pragma once

#include <iterator>
#include <optional>
#include <ranges>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/train/data/data_source.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// A DataSource over a range whose elements are batches: each `reset` begins the range again. Pipelines of std::views and of
/// range-v3 are such ranges. The memory of a batch must last until the range's iterator moves on.
/// @tparam R  Owned. Single-pass ranges, such as those of streams, have one epoch.
template <std::ranges::input_range R>
  requires train::detail::is_batch<std::remove_cvref_t<std::ranges::range_reference_t<R>>>
class range_source {
 public:
  using batch_type = std::remove_cvref_t<std::ranges::range_reference_t<R>>;

  range_source(R range, source_descs descs) : range_(std::move(range)), descs_(std::move(descs)) {}

  std::optional<batch_type> next() {
    if (!at_)
      at_.emplace(std::ranges::begin(range_));
    else if (*at_ != std::ranges::end(range_))
      ++*at_;
    if (*at_ == std::ranges::end(range_)) return std::nullopt;
    return **at_;
  }
  void reset() { at_.reset(); }
  source_descs descs() const { return descs_; }

 private:
  R range_;
  source_descs descs_;
  std::optional<std::ranges::iterator_t<R>> at_;
};

}  // namespace pushpull::train::data
