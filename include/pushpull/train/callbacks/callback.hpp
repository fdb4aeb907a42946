/// @file
/// The events of a training run, and objects that are told of them.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/train/metrics/metric.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Whether training ends before its last epoch. Callbacks ask for that; the loop looks after every event.
class training_control {
 public:
  /// Training ends after this batch or epoch. The first reason stays.
  void stop(std::string reason) {
    if (!stopped_) reason_ = std::move(reason);
    stopped_ = true;
  }
  bool stopped() const { return stopped_; }
  std::string const& reason() const { return reason_; }

 private:
  bool stopped_ = false;
  std::string reason_;
};

/// A metric of any type, borrowed. Reading waits for the devices that sum; asking for nothing costs nothing.
class metric_reader {
 public:
  template <class M>
    requires(!std::same_as<M, metric_reader>)
  explicit metric_reader(M& metric)
      : values_([&metric] { return metric.values(); }),
        global_values_([&metric] { return metric.global_values(); }),
        reset_local_([&metric] { metric.reset_local(); }) {}

  std::vector<metric_value> values() const { return values_(); }
  std::vector<metric_value> global_values() const { return global_values_(); }
  void reset_local() const { reset_local_(); }

 private:
  std::function<std::vector<metric_value>()> values_, global_values_;
  std::function<void()> reset_local_;
};

/// Training begins.
struct training_begin {
  std::int64_t first_epoch, epochs;  ///< Epochs first_epoch to epochs - 1 follow.
};

/// The update of a batch, or its validation, is enqueued.
struct batch_end {
  std::int64_t epoch, epochs;           ///< Epoch numbers begin at 0.
  std::int64_t batch;                   ///< Its number in the epoch, from 0.
  std::optional<std::int64_t> batches;  ///< Of an epoch, if the data source knows them.
  std::int64_t samples;                 ///< In the batch, without padding.
  metric_reader const& metric;
  training_control& control;
};

/// An epoch and its validation are done.
struct epoch_end {
  std::int64_t epoch, epochs;
  std::int64_t samples;                         ///< In the epoch, without padding.
  double seconds;                               ///< Of the epoch without its validation.
  std::vector<metric_value> const& training;    ///< The metric over the epoch.
  std::vector<metric_value> const& validation;  ///< Empty without validation data.
  std::optional<double> learning_rate;          ///< Of the last update, if the rule says so.
  training_control& control;
};

/// Training is over: after the last epoch or a stop. It is not called after an exception.
struct training_end {
  std::int64_t next_epoch, epochs;  ///< The epoch that a resumed run begins with.
  training_control const& control;
};

/// A type with at least one of on_begin, on_batch_end, on_validation_batch_end, on_epoch_end, on_end, which take these events.
template <class C>
concept Callback =
    requires(C& c, training_begin const& e) { c.on_begin(e); } ||
    requires(C& c, batch_end const& e) { c.on_batch_end(e); } ||
    requires(C& c, batch_end const& e) { c.on_validation_batch_end(e); } ||
    requires(C& c, epoch_end const& e) { c.on_epoch_end(e); } || requires(C& c, training_end const& e) { c.on_end(e); };

/// Callbacks of any types, called in order. `callback_list{speedometer{{.batch = 64}}, std::ref(my_history)}` owns the first
/// and borrows the second.
class callback_list {
 public:
  callback_list() = default;
  template <class... Cs>
    requires(sizeof...(Cs) > 0 && (Callback<std::unwrap_ref_decay_t<Cs>> && ...) &&
             !(std::same_as<std::remove_cvref_t<Cs>, callback_list> && ...))
  explicit callback_list(Cs&&... callbacks) {
    (add(std::forward<Cs>(callbacks)), ...);
  }

  /// Adds one at the end.
  template <class C>
    requires Callback<std::remove_reference_t<std::unwrap_ref_decay_t<C>>>
  void add(C&& callback);

  void on_begin(training_begin const& e) const { call(on_begin_, e); }
  void on_batch_end(batch_end const& e) const { call(on_batch_end_, e); }
  void on_validation_batch_end(batch_end const& e) const { call(on_validation_batch_end_, e); }
  void on_epoch_end(epoch_end const& e) const { call(on_epoch_end_, e); }
  void on_end(training_end const& e) const { call(on_end_, e); }

 private:
  template <class Event>
  using functions = std::vector<std::function<void(Event const&)>>;

  template <class Event>
  static void call(functions<Event> const& all, Event const& e) {
    for (auto const& f : all) f(e);
  }

  functions<training_begin> on_begin_;
  functions<batch_end> on_batch_end_, on_validation_batch_end_;
  functions<epoch_end> on_epoch_end_;
  functions<training_end> on_end_;
};

template <class C>
  requires Callback<std::remove_reference_t<std::unwrap_ref_decay_t<C>>>
void callback_list::add(C&& callback) {
  using type = std::remove_reference_t<std::unwrap_ref_decay_t<C>>;
  std::shared_ptr<type> owned;
  type* own = nullptr;
  if constexpr (std::is_reference_v<std::unwrap_ref_decay_t<C>>) {
    own = &callback.get();
  } else {
    owned = std::make_shared<type>(std::forward<C>(callback));
    own = owned.get();
  }
  if constexpr (requires(training_begin const& e) { own->on_begin(e); })
    on_begin_.push_back([owned, own](training_begin const& e) { own->on_begin(e); });
  if constexpr (requires(batch_end const& e) { own->on_batch_end(e); })
    on_batch_end_.push_back([owned, own](batch_end const& e) { own->on_batch_end(e); });
  if constexpr (requires(batch_end const& e) { own->on_validation_batch_end(e); })
    on_validation_batch_end_.push_back([owned, own](batch_end const& e) { own->on_validation_batch_end(e); });
  if constexpr (requires(epoch_end const& e) { own->on_epoch_end(e); })
    on_epoch_end_.push_back([owned, own](epoch_end const& e) { own->on_epoch_end(e); });
  if constexpr (requires(training_end const& e) { own->on_end(e); })
    on_end_.push_back([owned, own](training_end const& e) { own->on_end(e); });
}

}  // namespace pushpull::train
