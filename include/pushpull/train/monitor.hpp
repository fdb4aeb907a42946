/// @file
/// Statistics of tensors inside a pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/train/name_pattern.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// A statistic of a tensor, taken in a step.
struct monitor_record {
  std::int64_t step;  ///< Counted from 1.
  std::string name;
  std::vector<double> statistic;

  /// "0.5" of one number, "[0.5, 1]" of several.
  std::string text() const {
    std::string all;
    for (double const x : statistic) {
      char number[32];
      std::snprintf(number, sizeof number, "%g", x);
      all += (all.empty() ? "" : ", ") + std::string(number);
    }
    return statistic.size() == 1 ? all : "[" + all + "]";
  }
};

/// A statistic of a tensor's elements.
using monitor_statistic = std::function<std::vector<double>(std::vector<double> const&)>;

/// The root of the mean square: |a| / sqrt(size). MXNet's default statistic.
inline std::vector<double> root_mean_square(std::vector<double> const& elements) {
  double sum = 0;
  for (double const x : elements) sum += x * x;
  return {std::sqrt(sum / static_cast<double>(elements.size()))};
}

/// The options of a monitor.
struct monitor_options {
  std::int64_t interval = 1;  ///< Every so many passes are observed, the first included.
  name_pattern pattern = ".*";
  monitor_statistic statistic = root_mean_square;
  bool sort = false;    ///< Records by name, or else in the order of their arrival.
  bool inputs = false;  ///< The data and labels of the pass too, as MXNet's monitor_all has it.
};

/// Observes every some passes: `tic` before a pass; `tap` for each tensor in it, by several threads if need be; `toc` returns the
/// records. In an observed pass `tap` copies the tensor to the host, and waits; in others it costs a comparison.
class monitor {
 public:
  /// @throws invalid_argument if the interval is not positive
  explicit monitor(monitor_options options = {}) : options_(std::move(options)) {
    pushpull::detail::expects<invalid_argument>(options_.interval > 0, [&] {
      return "monitor: a positive interval expected, got " + std::to_string(options_.interval);
    });
  }

  /// A pass begins, before which the devices have to be idle.
  void tic() {
    std::lock_guard const lock(mutex_);
    if (step_ % options_.interval == 0) {
      records_.clear();
      active_ = true;
    }
    ++step_;
  }
  /// Whether this pass is observed.
  bool active() const { return active_; }
  /// Whether `toc` of a module gives data and labels to `tap`.
  bool wants_inputs() const { return options_.inputs; }

  /// A tensor of the pass, if its name is one of the pattern's.
  template <Tensor T>
  void tap(std::string_view name, T const& tensor) {
    if (!active_ || !options_.pattern.contains(name)) return;
    std::vector<double> elements;
    for (auto const x : to_vector(tensor)) elements.push_back(convert<double>(x));
    auto statistic = options_.statistic(elements);
    std::lock_guard const lock(mutex_);
    records_.push_back({step_, std::string(name), std::move(statistic)});
  }

  /// The records of the pass; none if it was not observed. The caller has given parameters and auxiliary states to `tap` before.
  std::vector<monitor_record> toc() {
    std::lock_guard const lock(mutex_);
    if (!active_) return {};
    active_ = false;
    if (options_.sort)
      std::stable_sort(records_.begin(), records_.end(),
                       [](monitor_record const& a, monitor_record const& b) { return a.name < b.name; });
    return std::exchange(records_, {});
  }

 private:
  monitor_options options_;
  std::int64_t step_ = 0;
  bool active_ = false;
  std::vector<monitor_record> records_;
  std::mutex mutex_;
};

}  // namespace pushpull::train
