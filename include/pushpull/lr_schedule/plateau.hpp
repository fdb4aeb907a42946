/// @file
/// A rate that falls when a metric no longer improves: not a function of t, so a controller that the trainer steps.
#pragma once

#include <cstdint>
#include <limits>

#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/lr_schedule/scalar.hpp>

namespace pushpull::inline PUSHPULL_ABI::lr_schedule {

/// Whether a smaller or a larger metric is the better one.
enum class better { smaller, larger };

/// How a plateau's threshold counts.
enum class threshold_kind {
  relative,  ///< A metric is better than `best` by threshold * best.
  absolute,  ///< A metric is better than `best` by threshold.
};

/// PyTorch's parameters of ReduceLROnPlateau, with its defaults.
struct plateau_options {
  lr_schedule::better better = lr_schedule::better::smaller;
  double factor = 0.1;         ///< The rate's, at a reduction.
  std::int64_t patience = 10;  ///< Metrics without an improvement that are put up with.
  double threshold = 1e-4;     ///< The least change that is an improvement.
  threshold_kind kind = threshold_kind::relative;
  std::int64_t cooldown = 0;   ///< Metrics after a reduction that do not count against patience.
  double minimum = 0;          ///< The rate's.
  double least_change = 1e-8;  ///< The rate stays if the reduction would not exceed this.

  /// @throws invalid_argument on a factor outside [0, 1) or anything negative.
  void validate() const {
    detail::expects_in_range("plateau: factor", factor, 0, 1);
    detail::expects_at_least("plateau: patience", patience, 0);
    detail::expects_not_negative("plateau: threshold", threshold);
    detail::expects_at_least("plateau: cooldown", cooldown, 0);
    detail::expects_not_negative("plateau: minimum", minimum);
    detail::expects_not_negative("plateau: least_change", least_change);
  }
};

/// PyTorch's ReduceLROnPlateau. It holds no reference to a store: give what `step` returns to the rule, by
/// `set_hyperparameters`. Trivially copyable: a copy is a checkpoint.
class plateau {
 public:
  /// @throws invalid_argument on a rate that is not above 0, and as plateau_options'.
  explicit plateau(double learning_rate, plateau_options const& options = {})
      : options_(options), learning_rate_(learning_rate), best_(worst()) {
    detail::expects_positive("plateau: learning_rate", learning_rate);
    options.validate();
  }

  /// Takes the metric of one more evaluation and returns the rate from now on. NaN is no improvement.
  double step(double metric) {
    if (improves(metric)) {
      best_ = metric;
      bad_ = 0;
    } else {
      ++bad_;
    }
    if (cooldown_ > 0) {
      --cooldown_;
      bad_ = 0;
    }
    if (bad_ > options_.patience) {
      reduce();
      cooldown_ = options_.cooldown;
      bad_ = 0;
    }
    return learning_rate_;
  }

  double learning_rate() const { return learning_rate_; }
  /// The best metric so far, or an infinity before the first.
  double best() const { return best_; }
  plateau_options const& options() const { return options_; }

 private:
  double worst() const {
    double const infinity = std::numeric_limits<double>::infinity();
    return options_.better == better::smaller ? infinity : -infinity;
  }

  bool improves(double metric) const {
    if (pushpull::detail::is_nan(metric)) return false;
    double const sign = options_.better == better::smaller ? -1 : 1;
    double const bound = options_.kind == threshold_kind::relative ? best_ * (1 + sign * options_.threshold)
                                                                   : best_ + sign * options_.threshold;
    return sign < 0 ? metric < bound : metric > bound;
  }

  void reduce() {
    double const product = learning_rate_ * options_.factor;
    double const reduced = product < options_.minimum ? options_.minimum : product;
    if (learning_rate_ - reduced > options_.least_change) learning_rate_ = reduced;
  }

  plateau_options options_;
  double learning_rate_;
  double best_;
  std::int64_t bad_ = 0;
  std::int64_t cooldown_ = 0;
};

}  // namespace pushpull::lr_schedule
