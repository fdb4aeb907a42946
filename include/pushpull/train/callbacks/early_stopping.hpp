/// @file
/// Callbacks that end a run: early stopping, divergence.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/callbacks/callback.hpp>
#include <pushpull/train/callbacks/clock.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// The value of a name in a list, or nothing.
inline std::optional<double> value_of(std::vector<metric_value> const& values, std::string const& name) {
  auto const found = std::find_if(values.begin(), values.end(), [&](metric_value const& v) { return v.name == name; });
  return found == values.end() ? std::nullopt : std::optional<double>(found->value);
}

/// The epoch that an improvement is measured from.
enum class improvement_over { best, previous };

/// The options of early_stopping.
struct early_stopping_options {
  std::string monitor = "loss";  ///< the name of a metric's value
  bool validation = true;        ///< of the validation, or else of the training
  bool larger_is_better = false;
  improvement_over reference = improvement_over::best;  ///< DJL: previous
  double percent = 0;                   ///< an epoch improves by more than so many percent of the reference's value
  std::int64_t patience = 3;            ///< epochs in a row without improvement
  std::int64_t min_epochs = 0;          ///< so many epochs are never stopped
  std::optional<double> objective{};    ///< stop if the value is better than this
  std::optional<double> max_seconds{};  ///< stop at the end of the epoch in which they have passed
  clock_function clock = steady_seconds;
};

/// Stops a run at the end of an epoch: after `patience` epochs without improvement, at the objective, or after a time.
/// NaN is no improvement.
class early_stopping {
 public:
  /// @throws invalid_argument if patience is not positive
  explicit early_stopping(early_stopping_options options = {}) : options_(std::move(options)) {
    pushpull::detail::expects<invalid_argument>(options_.patience > 0, [&] {
      return "early_stopping: a positive patience expected, got " + std::to_string(options_.patience);
    });
  }

  void on_begin(training_begin const&) {
    begin_ = options_.clock();
    seen_ = waited_ = 0;
    reference_.reset();
  }

  /// @throws invalid_argument if there is no value of the monitored name
  void on_epoch_end(epoch_end const& e) {
    auto const found = value_of(options_.validation ? e.validation : e.training, options_.monitor);
    pushpull::detail::expects<invalid_argument>(found.has_value(), [&] {
      return "early_stopping: no " + std::string(options_.validation ? "validation" : "training") + " value \"" +
             options_.monitor + "\"";
    });
    double const value = *found;
    bool const improved = !reference_ ? !std::isnan(value) : improves(value, *reference_);
    waited_ = improved ? 0 : waited_ + 1;
    if (!std::isnan(value) &&
        (!reference_ || options_.reference == improvement_over::previous || better(value, *reference_)))
      reference_ = value;
    if (++seen_ < options_.min_epochs) return;
    if (options_.objective && better(value, *options_.objective))
      e.control.stop(options_.monitor + " reached its objective in epoch " + std::to_string(e.epoch));
    else if (options_.max_seconds && options_.clock() - begin_ >= *options_.max_seconds)
      e.control.stop("the time is over in epoch " + std::to_string(e.epoch));
    else if (waited_ >= options_.patience)
      e.control.stop(options_.monitor + " has not improved for " + std::to_string(waited_) + " epochs up to epoch " +
                     std::to_string(e.epoch));
  }

 private:
  bool better(double a, double b) const { return options_.larger_is_better ? a > b : a < b; }
  bool improves(double value, double reference) const {
    double const gain = options_.larger_is_better ? value - reference : reference - value;
    return gain > options_.percent / 100 * std::abs(reference);
  }

  early_stopping_options options_;
  std::optional<double> reference_;
  std::int64_t seen_ = 0, waited_ = 0;
  double begin_ = 0;
};

/// Throws `diverged` if the named training value is NaN or infinite: at the end of each epoch, and every `period` batches if
/// that is not 0. Each look reads the metric, which waits.
class divergence {
 public:
  explicit divergence(std::string monitor = "loss", std::int64_t period = 0)
      : monitor_(std::move(monitor)), period_(period) {}

  /// @throws diverged
  void on_batch_end(batch_end const& e) const {
    if (period_ > 0 && (e.batch + 1) % period_ == 0)
      check(e.metric.values(), "batch " + std::to_string(e.batch) + " of epoch " + std::to_string(e.epoch));
  }
  /// @throws diverged
  void on_epoch_end(epoch_end const& e) const { check(e.training, "epoch " + std::to_string(e.epoch)); }

 private:
  void check(std::vector<metric_value> const& values, std::string const& when) const {
    auto const value = value_of(values, monitor_);
    pushpull::detail::expects<diverged>(!value || std::isfinite(*value), [&] {
      return "training diverged in " + when + ": " + monitor_ + " is " + std::to_string(*value);
    });
  }

  std::string monitor_;
  std::int64_t period_;
};

static_assert(Callback<early_stopping> && Callback<divergence>);

}  // namespace pushpull::train::callbacks
