/// @file
/// The loops over a source's batches: fit, score, predict.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/callbacks/callback.hpp>
#include <pushpull/train/data/data_source.hpp>
#include <pushpull/train/executor.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/metrics/metric.hpp>
#include <pushpull/train/module/collected_outputs.hpp>
#include <pushpull/train/monitor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The options of module::fit.
struct fit_options {
  std::optional<std::int64_t> epochs{};  ///< The number of the last epoch and 1. Must be given.
  std::int64_t begin_epoch = 0;          ///< The number of epochs that were trained before: that of a checkpoint.
  callback_list callbacks{};
  initializer initial = initializers::by_suffix_or_uniform();  ///< Of parameters without values.
  std::function<void(monitor_record const&)> records{};        ///< Gets what an installed monitor saw.
};

/// The options of module::score.
struct score_options {
  std::optional<std::int64_t> batches{};  ///< At most so many; all if there is none.
  bool reset = true;                      ///< The source begins an epoch first.
  callback_list callbacks{};              ///< on_validation_batch_end is called.
  std::int64_t epoch = 0, epochs = 1;     ///< For the callbacks.
};

/// The end of a training.
struct fit_result {
  std::int64_t next_epoch = 0;                         ///< The epoch with which a resumed training begins.
  std::string stopped{};                               ///< Why a callback ended it, or empty.
  std::vector<metric_value> training{}, validation{};  ///< Of the last epoch.
};

/// The rows of tables that batches need: none, since the module has no tables.
struct no_row_ids {};

/// fit, score and predict of a module. If some parameters are tables of rows, each takes row_ids(batch) -> row ids by name, and
/// prepares each batch with them before its forward pass: see module::prepare.
/// @tparam Derived  module, bucketing_module.
template <class Derived, class Output>
class training_loop {
 public:
  /// Trains for epochs begin_epoch to epochs - 1. A module that is not bound is bound to the source's batches, parameters without
  /// values get some. After each epoch the mean of each auxiliary state goes to all devices, the module is scored on the
  /// validation data if there are any, with the same metric, and the sources begin another epoch.
  /// @param validation  A DataSource, or nullptr.
  /// @throws bad_option without `epochs`, or without row_ids where parameters are tables of rows; no_optimizer; the errors of
  /// callbacks and of the source
  template <DataSource S, class M, class V = S, class RowIds = no_row_ids>
  fit_result fit(S& data, M& metric, fit_options const& options, V* validation = nullptr, RowIds const& row_ids = {}) {
    pushpull::detail::expects<bad_option>(options.epochs.has_value(),
                                          [] { return std::string("fit: a number of epochs expected"); });
    if (!self().is_bound()) self().bind_to(data);
    if (!self().is_initialized()) self().init_params(options.initial);
    self().expect_optimizer("fit");
    if constexpr (std::same_as<RowIds, no_row_ids>)
      pushpull::detail::expects<bad_option>(!self().optimizer().has_tables(), [] {
        return std::string("fit: parameters are tables of rows: a function expected that gives the rows of a batch");
      });
    std::int64_t const epochs = *options.epochs;
    training_control control;
    fit_result result{.next_epoch = options.begin_epoch};
    options.callbacks.on_begin({options.begin_epoch, epochs});
    for (std::int64_t epoch = options.begin_epoch; epoch < epochs && !control.stopped(); ++epoch) {
      auto const start = std::chrono::steady_clock::now();
      auto const [samples, completed] = train_epoch(data, metric, options, row_ids, epoch, control);
      self().spread_aux();
      result.training = metric.global_values();
      double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (!completed) break;
      result.next_epoch = epoch + 1;
      result.validation.clear();
      if (validation != nullptr)
        result.validation = score_with(
            *validation, metric, {.callbacks = options.callbacks, .epoch = epoch, .epochs = epochs}, row_ids, control);
      data.reset();
      options.callbacks.on_epoch_end({epoch, epochs, samples, seconds, result.training, result.validation,
                                      self().optimizer().learning_rate(), control});
    }
    options.callbacks.on_end({result.next_epoch, epochs, control});
    result.stopped = control.reason();
    return result;
  }

  /// Same, without validation.
  template <DataSource S, class M, class RowIds = no_row_ids>
  fit_result fit(S& data, M& metric, fit_options const& options, std::nullptr_t, RowIds const& row_ids = {}) {
    return fit(data, metric, options, static_cast<S*>(nullptr), row_ids);
  }

  /// The metric over the batches of a source, in inference. Rows of padding do not count. @throws not_bound, not_initialized
  template <DataSource S, class M, class RowIds = no_row_ids>
  std::vector<metric_value> score(S& data, M& metric, score_options const& options = {}, RowIds const& row_ids = {}) {
    training_control control;
    return score_with(data, metric, options, row_ids, control);
  }

  /// f(outputs, batch number, batch) for each batch of a source: views of host memory without the rows of padding.
  /// @throws not_bound, not_initialized
  template <DataSource S, class G, class RowIds = no_row_ids>
  void predict_each(S& data, G&& f, bool reset = true, RowIds const& row_ids = {}) {
    self().expect_ready("predict");
    if (reset) data.reset();
    for (std::int64_t n = 0;; ++n) {
      auto const batch = data.next();
      if (!batch) return;
      prepare_batch(*batch, row_ids);
      self().forward(*batch, mode::inference);
      auto const own = host_outputs(batch->pad);
      std::vector<tensor_view<Output const>> views;
      for (auto const& output : own) views.push_back(output.view());
      f(std::as_const(views), n, *batch);
    }
  }
  /// The outputs of all batches, of each output one after the other on its axis of samples, without the rows of padding. An output
  /// without samples is that of the last batch. Empty if there is no batch.
  template <DataSource S, class RowIds = no_row_ids>
  std::vector<tensor<Output>> predict(S& data, bool reset = true, RowIds const& row_ids = {}) {
    pushpull::detail::collected_outputs<Output> all(axes());
    predict_each(data, [&](auto const& outputs, std::int64_t, auto const&) { all.add(outputs); }, reset, row_ids);
    return all.joined();
  }
  /// The first output for one array of data, in the mode of the bind. @throws not_bound, not_initialized
  template <class Data>
  tensor<Output> predict(tensor_view<Data const> const& array) {
    batch<Data> one;
    one.data = {array};
    self().forward(one);
    return std::move(host_outputs(0).front());
  }

 private:
  Derived& self() { return static_cast<Derived&>(*this); }

  /// A batch whose forward pass comes, with its rows of tables.
  template <class Batch, class RowIds>
  void prepare_batch(Batch const& next, RowIds const& row_ids) {
    if constexpr (std::same_as<RowIds, no_row_ids>)
      self().prepare(next);
    else
      self().prepare(next, row_ids);
  }

  /// A callback that stops validation in `fit` stops the training.
  template <class S, class M, class RowIds>
  std::vector<metric_value> score_with(S& data, M& metric, score_options const& options, RowIds const& row_ids,
                                       training_control& control) {
    self().expect_ready("score");
    if (options.reset) data.reset();
    metric.reset();
    metric_reader const reader(metric);
    bool const stopped_before = control.stopped();  // by the last batch of an epoch: its validation is whole
    std::int64_t n = 0;
    for (; !options.batches || n < *options.batches; ++n) {
      auto const batch = data.next();
      if (!batch) break;
      prepare_batch(*batch, row_ids);
      self().forward(*batch, mode::inference);
      self().update_metric(metric, batch->pad);
      self().group().wait_loaded();
      options.callbacks.on_validation_batch_end(
          {options.epoch, options.epochs, n, batches_of(data), samples_of(*batch), reader, control});
      if (control.stopped() && !stopped_before) break;
    }
    return metric.global_values();
  }

  template <class S>
  static std::optional<std::int64_t> batches_of(S const& source) {
    if constexpr (requires {
                    { source.batches() } -> std::convertible_to<std::int64_t>;
                  })
      return source.batches();
    return std::nullopt;
  }
  template <class Batch>
  std::int64_t samples_of(Batch const& of) {
    return self().group().batch_size().value_or(1) - of.pad;
  }

  /// @returns the samples, and whether no callback ended the epoch early
  template <class S, class M, class RowIds>
  std::pair<std::int64_t, bool> train_epoch(S& data, M& metric, fit_options const& options, RowIds const& row_ids,
                                            std::int64_t epoch, training_control& control) {
    metric.reset();
    metric_reader const reader(metric);
    std::int64_t samples = 0;
    auto next = data.next();
    if (next) prepare_batch(*next, row_ids);
    for (std::int64_t n = 0; next; ++n) {
      self().tic();
      self().forward_backward(*next);
      self().update();
      self().update_metric(metric, next->pad);
      std::int64_t const own = samples_of(*next);
      samples += own;
      self().group().wait_loaded();
      next = data.next();
      if (next) prepare_batch(*next, row_ids);
      for (auto const& record : self().toc())
        if (options.records) options.records(record);
      options.callbacks.on_batch_end({epoch, *options.epochs, n, batches_of(data), own, reader, control});
      if (control.stopped() && next) return {samples, false};
    }
    return {samples, true};
  }

  std::vector<int> axes() {
    std::vector<int> result;
    auto const count = self().group().output_shapes().size();
    for (std::size_t i = 0; i < count; ++i) result.push_back(self().group().axis_of_output(i));
    return result;
  }
  /// The outputs of the last forward in host memory, without `pad` rows at the end.
  std::vector<tensor<Output>> host_outputs(std::int64_t pad) {
    std::vector<tensor<Output>> result;
    auto const merged = self().group().merged_outputs();
    for (std::size_t i = 0; i < merged.size(); ++i)
      result.push_back(pushpull::detail::without_rows(merged[i], self().group().axis_of_output(i), pad));
    return result;
  }
};

}  // namespace pushpull::train
