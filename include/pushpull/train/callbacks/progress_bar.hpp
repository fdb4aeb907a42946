/// @file
/// The progress of an epoch: a bar on a terminal, one line per epoch elsewhere.
#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/train/callbacks/callback.hpp>
#include <pushpull/train/callbacks/clock.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// The form of a progress_bar.
enum class progress_style {
  automatic,  ///< a bar if the stream is std::cout and a terminal, or else lines
  bar,
  lines,
  quiet  ///< nothing
};

/// The options of a progress_bar.
struct progress_options {
  progress_style style = progress_style::automatic;
  std::size_t length = 20;  ///< characters of the bar, if the terminal is wide enough
  double interval = 0.1;    ///< seconds between two drawings; each reads the metric
  std::ostream* out = &std::cout;
  clock_function clock = steady_seconds;
};

/// "45%": rounded up. @param done  of `total`, counted from 1
inline int percent_of(std::int64_t done, std::int64_t total) {
  return total > 0 ? static_cast<int>((100 * done + total - 1) / total) : 100;
}

/// "1:02:03", "2:03", or "?" for what is no time.
inline std::string clock_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  auto const whole = static_cast<std::int64_t>(std::llround(seconds));
  char text[32];
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(whole / 3600),
                  static_cast<long long>(whole / 60 % 60), static_cast<long long>(whole % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  return text;
}

/// "epoch  3/20  [=====     ]  50%  loss 0.1234  accuracy 0.9512  5120 samples/s  ETA 0:42" on a terminal; elsewhere a line at
/// the end of each epoch, without the bar. ETA is that of all epochs. The metric is read when something is written.
class progress_bar {
 public:
  explicit progress_bar(progress_options options = {}) : options_(std::move(options)) {
    if (options_.style == progress_style::automatic)
      options_.style =
          options_.out == &std::cout && isatty(STDOUT_FILENO) == 1 ? progress_style::bar : progress_style::lines;
  }
  progress_bar(progress_bar&& other) noexcept : options_(std::move(other.options_)), state_(other.state_) {
    other.state_.open = false;
  }
  progress_bar& operator=(progress_bar&&) = delete;
  /// Leaves the cursor at the start of a line.
  ~progress_bar() {
    if (state_.open) *options_.out << '\n' << std::flush;
  }

  void on_begin(training_begin const& e) { start(e.first_epoch); }

  void on_batch_end(batch_end const& e) {
    if (e.epoch != state_.epoch) start(e.epoch);
    state_.samples += e.samples;
    ++state_.seen;
    double const now = options_.clock();
    if (options_.style != progress_style::bar || now - state_.drawn < options_.interval) return;
    state_.drawn = now;
    double const seconds = now - state_.begin;
    std::int64_t const done = e.batch + 1;
    std::string text = figures(e.metric.values(), static_cast<double>(state_.samples) / seconds);
    std::string const head = heading(e.epoch, e.epochs);
    if (e.batches) {
      double const left = static_cast<double>(*e.batches - done + (e.epochs - e.epoch - 1) * *e.batches);
      text += "  ETA " + clock_text(left * seconds / static_cast<double>(state_.seen));
      text = head + bar_of(done, *e.batches, head.size() + text.size()) + text;
    } else {
      text = head + "batch " + std::to_string(done) + "  " + text;
    }
    *options_.out << '\r' << text << "\x1b[K" << std::flush;
    state_.open = true;
  }

  void on_epoch_end(epoch_end const& e) {
    if (options_.style == progress_style::quiet) return;
    std::string const head = heading(e.epoch, e.epochs);
    std::string text = figures(e.training, static_cast<double>(e.samples) / e.seconds);
    for (auto const& [name, value] : e.validation) text += "  validation " + name + ' ' + number(value);
    text = options_.style == progress_style::bar ? '\r' + head + bar_of(1, 1, head.size() + text.size()) + text
                                                 : head + text;
    *options_.out << text << (options_.style == progress_style::bar ? "\x1b[K" : "") << std::endl;
    state_.open = false;
    start(e.epoch + 1);
  }

 private:
  /// The epoch that is drawn. Batches are counted from where this run began, which may be within the epoch.
  struct epoch_state {
    std::int64_t epoch = -1, seen = 0, samples = 0;
    double begin = 0, drawn = 0;
    bool open = false;
  };

  void start(std::int64_t epoch) {
    double const now = options_.clock();
    state_ = {epoch, 0, 0, now, now, state_.open};
  }
  static std::string heading(std::int64_t epoch, std::int64_t epochs) {
    std::string const last = std::to_string(epochs), current = std::to_string(epoch + 1);
    return "epoch " + std::string(last.size() - std::min(last.size(), current.size()), ' ') + current + "/" + last +
           "  ";
  }
  /// @param others  Characters of the line beside the bar.
  std::string bar_of(std::int64_t done, std::int64_t total, std::size_t others) const {
    constexpr std::size_t frame = 10;  // brackets, percent, the cursor
    std::size_t const room = columns() > others + frame ? columns() - others - frame : 0;
    std::size_t const length = std::min(options_.length, room);
    double const part = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
    std::size_t const filled =
        std::min(length, static_cast<std::size_t>(std::lround(static_cast<double>(length) * part)));
    std::string const percent = std::to_string(percent_of(done, total));
    return "[" + std::string(filled, '=') + std::string(length - filled, ' ') + "] " +
           std::string(3 - std::min<std::size_t>(percent.size(), 3), ' ') + percent + "%  ";
  }
  /// Of the terminal, or many if the stream is none.
  std::size_t columns() const {
    struct winsize size{};
    bool const known = options_.out == &std::cout && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : 1000;
  }
  static std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", value);
    return text;
  }
  static std::string figures(std::vector<metric_value> const& values, double speed) {
    std::string text;
    for (auto const& [name, value] : values) text += name + ' ' + number(value) + "  ";
    char rate[48];
    std::snprintf(rate, sizeof rate, "%.0f samples/s", speed);
    return text + rate;
  }

  progress_options options_;
  epoch_state state_;
};

static_assert(Callback<progress_bar>);

}  // namespace pushpull::train::callbacks
