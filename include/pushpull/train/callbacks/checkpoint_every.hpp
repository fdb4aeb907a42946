/// @file
/// Callbacks that save, log, and end a run on a signal.
#pragma once

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <functional>
#include <iostream>
#include <ostream>
#include <string>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/train/callbacks/callback.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// Calls save(n) when n epochs are done, if n is a multiple of the period, and at the end of the run unless it has just
/// saved. A period of -1 saves at the end alone; other periods below 1 count as 1. It does not save amid an epoch: a run that
/// is stopped there resumes with the epochs that were saved last.
class checkpoint_every {
 public:
  checkpoint_every(std::int64_t period, std::function<void(std::int64_t epochs)> save)
      : period_(period == -1 ? -1 : std::max<std::int64_t>(period, 1)), save_(std::move(save)) {}

  void on_begin(training_begin const& e) {
    saved_ = e.first_epoch;
    amid_ = false;
  }
  void on_batch_end(batch_end const&) { amid_ = true; }
  void on_epoch_end(epoch_end const& e) {
    amid_ = false;
    if (period_ > 0 && (e.epoch + 1) % period_ == 0) save(e.epoch + 1);
  }
  void on_end(training_end const& e) {
    if (!amid_ && e.next_epoch != saved_) save(e.next_epoch);
  }

 private:
  void save(std::int64_t epochs) {
    save_(epochs);
    saved_ = epochs;
  }

  std::int64_t period_;
  std::function<void(std::int64_t)> save_;
  std::int64_t saved_ = 0;
  bool amid_ = false;
};

/// A checkpoint of `trained` under `prefix` every `period` epochs: trained.save_checkpoint(prefix, epochs done).
template <class Module>
  requires requires(Module& trained, std::string const& prefix, std::int64_t epochs) {
    trained.save_checkpoint(prefix, epochs);
  }
checkpoint_every save_module_every(Module& trained, std::string prefix, std::int64_t period = 1) {
  return {period,
          [&trained, prefix = std::move(prefix)](std::int64_t epochs) { trained.save_checkpoint(prefix, epochs); }};
}

/// Writes the training metric every `period` batches, that of batch 0 included.
class log_train_metric {
 public:
  explicit log_train_metric(std::int64_t period, bool auto_reset = false, std::ostream& out = std::cout)
      : period_(std::max<std::int64_t>(period, 1)), auto_reset_(auto_reset), out_(&out) {}

  void on_batch_end(batch_end const& e) const {
    if (e.batch % period_ != 0) return;
    *out_ << "epoch " << e.epoch << "  batch " << e.batch;
    for (auto const& [name, value] : e.metric.values()) *out_ << "  " << name << ' ' << value;
    *out_ << std::endl;
    if (auto_reset_) e.metric.reset_local();
  }

 private:
  std::int64_t period_;
  bool auto_reset_;
  std::ostream* out_;
};

/// Writes the learning rate after each epoch, if the rule has one.
class log_learning_rate {
 public:
  explicit log_learning_rate(std::ostream& out = std::cout) : out_(&out) {}
  void on_epoch_end(epoch_end const& e) const {
    if (e.learning_rate) *out_ << "epoch " << e.epoch << "  learning rate " << *e.learning_rate << std::endl;
  }

 private:
  std::ostream* out_;
};

/// Ends a run after the batch in which Ctrl-C was pressed (SIGINT; also SIGTERM). A second signal ends the program as it would
/// have without this object. While one lives, the signals' former actions are put away; the last one that dies restores them.
class stop_on_signal {
 public:
  stop_on_signal() {
    received() = 0;
    for (int i = 0; i < 2; ++i) {
      struct sigaction action{};
      action.sa_handler = [](int signal) {
        received() = signal;
        std::signal(signal, SIG_DFL);
      };
      sigemptyset(&action.sa_mask);
      action.sa_flags = SA_RESTART;
      sigaction(signals[i], &action, &former_[i]);
    }
  }
  stop_on_signal(stop_on_signal const&) = delete;
  stop_on_signal& operator=(stop_on_signal const&) = delete;
  ~stop_on_signal() {
    for (int i = 0; i < 2; ++i) sigaction(signals[i], &former_[i], nullptr);
  }

  /// Whether a signal came since the object was made.
  bool stopped() const { return received() != 0; }
  void on_batch_end(batch_end const& e) const {
    if (stopped()) e.control.stop("interrupted");
  }

 private:
  static constexpr int signals[2] = {SIGINT, SIGTERM};
  static std::sig_atomic_t volatile& received() {
    static std::sig_atomic_t volatile signal = 0;
    return signal;
  }

  struct sigaction former_[2];
};

static_assert(Callback<checkpoint_every> && Callback<log_train_metric> && Callback<log_learning_rate>);
static_assert(Callback<stop_on_signal>);

}  // namespace pushpull::train::callbacks
