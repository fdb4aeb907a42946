/// @file
/// Several metrics as one, and metrics that are functions of whole tensors.
#pragma once

#include <iterator>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/train/metrics/metric.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::metrics {

namespace detail {

template <class M, class Labels, class Outputs>
concept UpdatesWith = requires(M& metric, Labels const& labels, Outputs const& outputs, counted_rows counted) {
  metric.update(labels, outputs, counted);
};

}  // namespace detail

/// All of its metrics, in order: `composite all{accuracy{}, cross_entropy{}}`.
template <class... Metrics>
class composite {
 public:
  explicit composite(Metrics... metrics) : metrics_(std::move(metrics)...) {}

  template <class Labels, class Outputs>
    requires(detail::UpdatesWith<Metrics, Labels, Outputs> && ...)
  void update(Labels const& labels, Outputs const& outputs, counted_rows counted = {}) {
    std::apply([&](Metrics&... metric) { (metric.update(labels, outputs, counted), ...); }, metrics_);
  }
  void reset() {
    std::apply([](Metrics&... metric) { (metric.reset(), ...); }, metrics_);
  }
  void reset_local() {
    std::apply([](Metrics&... metric) { (metric.reset_local(), ...); }, metrics_);
  }
  std::vector<metric_value> values() const {
    std::vector<metric_value> all;
    std::apply([&](Metrics const&... metric) { (append(all, metric.values()), ...); }, metrics_);
    return all;
  }
  std::vector<metric_value> global_values() const {
    std::vector<metric_value> all;
    std::apply([&](Metrics const&... metric) { (append(all, metric.global_values()), ...); }, metrics_);
    return all;
  }

 private:
  static void append(std::vector<metric_value>& all, std::vector<metric_value> more) {
    all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }

  std::tuple<Metrics...> metrics_;
};

/// A sum and the weight that it is divided by.
struct weighted_sum {
  double sum = 0, count = 0;
};

/// A metric of a function f(labels, outputs, counted_rows) -> weighted_sum, called on the host for each device and batch.
/// The value is the sum of all sums divided by that of all counts. f must wait for devices that it reads.
template <class F>
class custom {
 public:
  custom(std::string name, F f) : name_(std::move(name)), f_(std::move(f)) {}

  template <class Labels, class Outputs>
    requires requires(F& f, Labels const& labels, Outputs const& outputs, counted_rows counted) {
      weighted_sum(f(labels, outputs, counted));
    }
  void update(Labels const& labels, Outputs const& outputs, counted_rows counted = {}) {
    weighted_sum const own = f_(labels, outputs, counted);
    for (weighted_sum* sum : {&local_, &global_}) {
      sum->sum += own.sum;
      sum->count += own.count;
    }
  }
  void reset() { local_ = global_ = {}; }
  void reset_local() { local_ = {}; }
  std::vector<metric_value> values() const { return {{name_, local_.sum / local_.count}}; }
  std::vector<metric_value> global_values() const { return {{name_, global_.sum / global_.count}}; }

 private:
  std::string name_;
  F f_;
  weighted_sum local_, global_;
};

}  // namespace pushpull::train::metrics
