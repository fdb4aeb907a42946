/// @file
/// Samples per second and metrics, every some batches.
#pragma once

#include <cstdint>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/callbacks/callback.hpp>
#include <pushpull/train/callbacks/clock.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// The options of a speedometer.
struct speedometer_options {
  std::int64_t frequent = 50;  ///< batches between two lines
  bool auto_reset = true;      ///< each line has the metric since the line before
  std::ostream* out = &std::cout;
  clock_function clock = steady_seconds;
};

/// Writes "epoch 0  batches 50-100  1234.5 samples/s  accuracy 0.9312" after each batch whose number is a multiple of
/// `frequent`, but for the first batch, which starts the clock. Samples are counted, padding is not.
class speedometer {
 public:
  /// @throws invalid_argument if `frequent` is not positive
  explicit speedometer(speedometer_options options = {}) : options_(std::move(options)) {
    pushpull::detail::expects<invalid_argument>(options_.frequent > 0, [&] {
      return "speedometer: a positive number of batches expected, got " + std::to_string(options_.frequent);
    });
  }

  void on_batch_end(batch_end const& e) {
    if (!started_ || e.batch < last_) {
      started_ = true;
      begin_ = options_.clock();
      samples_ = 0;
      last_ = e.batch;
      return;
    }
    last_ = e.batch;
    samples_ += e.samples;
    if (e.batch % options_.frequent != 0) return;
    double const now = options_.clock(), seconds = now - begin_;
    std::ostringstream line;
    line << "epoch " << e.epoch << "  batches " << (options_.auto_reset ? e.batch - options_.frequent : 0) << '-'
         << e.batch << "  " << std::fixed << std::setprecision(1)
         << (seconds > 0 ? static_cast<double>(samples_) / seconds : std::numeric_limits<double>::infinity())
         << " samples/s" << std::setprecision(6);
    for (auto const& [name, value] : e.metric.values()) line << "  " << name << ' ' << value;
    *options_.out << line.str() << std::endl;
    if (options_.auto_reset) e.metric.reset_local();
    begin_ = now;
    samples_ = 0;
  }

 private:
  speedometer_options options_;
  bool started_ = false;
  std::int64_t last_ = 0, samples_ = 0;
  double begin_ = 0;
};

static_assert(Callback<speedometer>);

}  // namespace pushpull::train::callbacks
