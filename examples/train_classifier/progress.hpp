/// @file
/// Tells how training goes: a bar on a terminal, one line per epoch elsewhere, nothing if asked to be quiet.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>

#include "perceptron.hpp"

namespace train_classifier {

/// Counts the steps of an epoch and writes to stdout. Destroying it leaves the cursor at the start of a line.
class progress {
 public:
  enum class style { none, lines, bar };

  static style style_for_stdout(bool quiet) {
    if (quiet) return style::none;
    return isatty(STDOUT_FILENO) == 1 ? style::bar : style::lines;
  }

  progress(style how, int epochs) : style_{how}, epochs_{epochs} {}
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;
  ~progress() {
    if (bar_is_open_) std::puts("");
  }

  void begin_epoch(std::size_t steps) {
    ++epoch_;
    steps_ = steps;
    step_ = 0;
    seen_ = {};
    start_ = drawn_ = clock::now();
  }

  void step_done(batch_result const& result) {
    ++step_;
    seen_ = seen_ + result;
    if (style_ != style::bar || clock::now() - drawn_ < std::chrono::milliseconds{100}) return;
    drawn_ = clock::now();
    draw();
    bar_is_open_ = true;
  }

  void end_epoch() {
    if (style_ == style::bar) {
      draw();
      std::puts("");
      bar_is_open_ = false;
    } else if (style_ == style::lines) {
      std::puts((heading() + figures()).c_str());
      std::fflush(stdout);
    }
  }

  /// Mean loss of the epoch so far.
  double loss() const { return seen_.loss / static_cast<double>(std::max<std::size_t>(seen_.rows, 1)); }

 private:
  using clock = std::chrono::steady_clock;

  void draw() const {
    constexpr std::size_t width = 14;  // the whole line stays below 80 columns
    auto const filled = width * step_ / std::max<std::size_t>(steps_, 1);
    auto const bar = "[" + std::string(filled, '=') + std::string(width - filled, ' ') + "]  ";
    std::fputs(("\r" + heading() + bar + figures() + "\x1b[K").c_str(), stdout);
    std::fflush(stdout);
  }

  std::string heading() const {
    auto const last = std::to_string(epochs_);
    auto const current = std::to_string(epoch_);
    return "epoch " + std::string(last.size() - current.size(), ' ') + current + "/" + last + "  ";
  }

  std::string figures() const {
    auto const rows = static_cast<double>(std::max<std::size_t>(seen_.rows, 1));
    auto const seconds = std::chrono::duration<double>(clock::now() - start_).count();
    char text[96];
    std::snprintf(text, sizeof text, "loss %.4f  accuracy %.4f  %.0f samples/s", loss(),
                  static_cast<double>(seen_.correct) / rows, rows / std::max(seconds, 1e-9));
    return text;
  }

  style style_;
  int epochs_;
  int epoch_ = 0;
  std::size_t steps_ = 0;
  std::size_t step_ = 0;
  batch_result seen_;
  clock::time_point start_, drawn_;
  bool bar_is_open_ = false;
};

}  // namespace train_classifier
