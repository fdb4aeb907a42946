/// @file
/// How the rows of a batch are cut into one range per device.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Each device's share rounded; what is missing goes to the last.
template <class Round>
std::vector<std::int64_t> rounded_counts(std::int64_t rows, std::span<double const> weights, Round const& round) {
  double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> counts;
  for (double const weight : weights) counts.push_back(round(weight * static_cast<double>(rows) / sum));
  std::int64_t const all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  counts.back() += std::max<std::int64_t>(rows - all, 0);
  return counts;
}

}  // namespace detail

namespace train {

/// The rows [begin, end) of a batch.
struct row_range {
  std::int64_t begin = 0, end = 0;

  constexpr std::int64_t size() const { return end - begin; }
  constexpr bool empty() const { return begin == end; }
  friend constexpr bool operator==(row_range const&, row_range const&) = default;
};

/// A rule that cuts rows.
/// Needs:  counts(rows, weights) -> so many rows for each weight, at least 0, of which the sum is at least `rows`: what is
///         beyond `rows` is cut off at the end. Weights are finite, at least 0, and not all 0; rows are at least 0.
/// Models: balanced, half_even, half_up, ceil_step.
template <class P>
concept SlicingPolicy = requires(std::int64_t rows, std::span<double const> weights) {
  { P::counts(rows, weights) } -> std::same_as<std::vector<std::int64_t>>;
};

/// Largest remainders: each device gets the whole part of its share, and those with the largest fractions one row more.
/// Of equal weights the ranges differ by one row at most. With a row for each, no device with a weight above 0 stays idle.
struct balanced {
  static std::vector<std::int64_t> counts(std::int64_t rows, std::span<double const> weights) {
    double const sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<double> shares;
    std::vector<std::int64_t> rows_of;
    std::vector<std::size_t> order(weights.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (double const weight : weights) {
      shares.push_back(weight * static_cast<double>(rows) / sum);
      rows_of.push_back(static_cast<std::int64_t>(shares.back()));
    }
    auto const above = [&](std::size_t k) { return static_cast<double>(rows_of[k]) - shares[k]; };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return above(a) < above(b); });
    std::int64_t left = rows - std::accumulate(rows_of.begin(), rows_of.end(), std::int64_t{0});
    for (std::size_t i = 0; left > 0; ++i, --left) ++rows_of[order[i % order.size()]];
    if (rows < std::count_if(weights.begin(), weights.end(), [](double weight) { return weight > 0; })) return rows_of;
    for (std::size_t k = 0; k < rows_of.size(); ++k) {
      if (rows_of[k] > 0 || !(weights[k] > 0)) continue;
      std::size_t richest = k;
      for (std::size_t j = 0; j < rows_of.size(); ++j)
        if (rows_of[j] > 1 && (richest == k || above(j) > above(richest))) richest = j;
      --rows_of[richest];
      ++rows_of[k];
    }
    return rows_of;
  }
};

/// MXNet's Python module: shares are rounded, halves to even; the last device gets all rows that are missing.
struct half_even {
  static std::vector<std::int64_t> counts(std::int64_t rows, std::span<double const> weights) {
    return pushpull::detail::rounded_counts(rows, weights, [](double share) {
      auto const whole = static_cast<std::int64_t>(share);
      double const rest = share - static_cast<double>(whole);
      return whole + (rest > 0.5 || (rest >= 0.5 && whole % 2 != 0) ? 1 : 0);
    });
  }
};

/// MXNet's Scala module: as half_even, but halves are rounded up.
struct half_up {
  static std::vector<std::int64_t> counts(std::int64_t rows, std::span<double const> weights) {
    return pushpull::detail::rounded_counts(
        rows, weights, [](double share) { return static_cast<std::int64_t>(std::floor(share + 0.5)); });
  }
};

/// DJL: every device takes ceil(rows / min(devices, rows)) rows, until none are left. Weights must be equal.
struct ceil_step {
  /// @throws invalid_argument if the weights differ
  static std::vector<std::int64_t> counts(std::int64_t rows, std::span<double const> weights) {
    pushpull::detail::expects<invalid_argument>(
        std::all_of(weights.begin(), weights.end(), [&](double w) { return !(w < weights[0]) && !(w > weights[0]); }),
        [] { return std::string("ceil_step: equal work loads expected"); });
    std::int64_t const devices = std::min<std::int64_t>(static_cast<std::int64_t>(weights.size()), rows);
    return std::vector<std::int64_t>(weights.size(), devices == 0 ? 0 : (rows + devices - 1) / devices);
  }
};

/// The options of slice_batch.
struct slicing_options {
  bool allow_empty = false;  ///< Devices may get no rows: they contribute zero to the step.
  bool even = false;         ///< All ranges must have the same number of rows.
};

/// Cuts the rows of a batch into one range per device, in order and without gaps.
/// @param weights  The work load of each device: its share of the rows. Their unit is free.
/// @throws invalid_argument if there are no weights, one is negative or not finite, or all are 0; empty_slice if a device
///         got no rows; batch_mismatch if the ranges are to be even and are not
template <SlicingPolicy P = balanced>
std::vector<row_range> slice_batch(std::int64_t rows, std::span<double const> weights, slicing_options options = {}) {
  pushpull::detail::expects<invalid_argument>(rows >= 0 && !weights.empty(), [&] {
    return "slice_batch: at least 0 rows and 1 device expected, got " + std::to_string(rows) + " and " +
           std::to_string(weights.size());
  });
  double sum = 0;
  for (double const weight : weights) {
    pushpull::detail::expects<invalid_argument>(weight >= 0 && weight <= 1e100, [&] {
      return "slice_batch: work loads from 0 to 1e100 expected, got " + std::to_string(weight);
    });
    sum += weight;
  }
  pushpull::detail::expects<invalid_argument>(sum > 0,
                                              [] { return std::string("slice_batch: a work load above 0 expected"); });
  std::vector<std::int64_t> const counts = P::counts(rows, weights);
  std::vector<row_range> ranges;
  std::int64_t end = 0;
  for (std::size_t k = 0; k < weights.size(); ++k) {
    std::int64_t const begin = end;
    end = std::min(begin + counts[k], rows);
    ranges.push_back({begin, end});
    pushpull::detail::expects<empty_slice>(options.allow_empty || begin < end, [&] {
      return "slice_batch: device " + std::to_string(k) + " of " + std::to_string(weights.size()) + " gets none of " +
             std::to_string(rows) + " rows";
    });
    pushpull::detail::expects<batch_mismatch>(!options.even || ranges.back().size() == ranges.front().size(), [&] {
      return "slice_batch: " + std::to_string(rows) + " rows do not divide evenly over " +
             std::to_string(weights.size()) + " devices";
    });
  }
  return ranges;
}

/// slice_batch over devices of equal work loads.
template <SlicingPolicy P = balanced>
std::vector<row_range> slice_batch(std::int64_t rows, std::size_t devices, slicing_options options = {}) {
  std::vector<double> const weights(devices, 1.0);
  return slice_batch<P>(rows, std::span<double const>(weights), options);
}

}  // namespace train
}  // namespace pushpull
