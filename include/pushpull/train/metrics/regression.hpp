/// @file
/// Metrics of elements: mae, mse, rmse and the loss.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>

#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/train/metrics/sample_metric.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::metrics {

namespace detail {

/// A sum over elements, and their number.
struct mean_terms {
  static constexpr std::size_t sums = 2;
  static sample_layout layout(shape const&, shape const&) { return sample_layout::elements; }
  double value(cuda::std::array<double, 2> const& sum) const { return sum[0] / sum[1]; }
};

struct mae_terms : mean_terms {
  template <class Sample>
  PUSHPULL_HOST_DEVICE cuda::std::array<double, 2> operator()(Sample const& s) const {
    return {cuda::std::abs(s.label() - s.output(0)), 1};
  }
  std::string name() const { return "mae"; }
};

struct mse_terms : mean_terms {
  template <class Sample>
  PUSHPULL_HOST_DEVICE cuda::std::array<double, 2> operator()(Sample const& s) const {
    double const difference = s.label() - s.output(0);
    return {difference * difference, 1};
  }
  std::string name() const { return "mse"; }
};

struct rmse_terms : mse_terms {
  double value(cuda::std::array<double, 2> const& sum) const { return std::sqrt(sum[0] / sum[1]); }
  std::string name() const { return "rmse"; }
};

struct loss_terms : mean_terms {
  static sample_layout layout(shape const&, shape const&) { return sample_layout::outputs; }
  template <class Sample>
  PUSHPULL_HOST_DEVICE cuda::std::array<double, 2> operator()(Sample const& s) const {
    return {s.output(0), 1};
  }
  std::string name() const { return "loss"; }
};

}  // namespace detail

/// The mean of |label - output| over elements. Labels and outputs have the same number of elements.
template <Device D = cpu_device<>>
class mae : public sample_metric<detail::mae_terms, D> {
 public:
  mae() = default;
};

/// The mean of (label - output)^2 over elements.
template <Device D = cpu_device<>>
class mse : public sample_metric<detail::mse_terms, D> {
 public:
  mse() = default;
};

/// The root of `mse` over all elements, not a mean of the calls' roots.
template <Device D = cpu_device<>>
class rmse : public sample_metric<detail::rmse_terms, D> {
 public:
  rmse() = default;
};

/// The mean of the outputs' elements: for outputs that are losses. Labels are not read.
template <Device D = cpu_device<>>
class loss : public sample_metric<detail::loss_terms, D> {
 public:
  loss() = default;
};

}  // namespace pushpull::train::metrics
