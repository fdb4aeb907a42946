/// @file
/// Training of a user's model on several devices: MXNet's Module, for any executor and any store.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/data/data_source.hpp>
#include <pushpull/train/module/optimized_module.hpp>
#include <pushpull/train/module/training_loop.hpp>
#include <pushpull/train/monitor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// A model, its parameters and its optimizer. Calls are made in the order bind, init_params, init_optimizer, and then forward,
/// backward, update as often as needed; or `fit`. A call that comes too early throws an error that says which call is missing.
/// Write train::module, not a using-declaration: a line that begins with `module` is a directive to C++20 compilers.
/// @tparam F        The factory of the model's executors.
/// @tparam Slicing  How batches are cut over devices.
/// After an exception the module is as it was. One thread calls at a time. Only params, saving, reading metrics, predict, fit and
/// score wait for devices. On CPU devices all calls return when their work is done, but an update beside which the next forward
/// may begin: see overlap.
template <ExecutorFactory F, SlicingPolicy Slicing = balanced>
class module : public pushpull::detail::optimized_module<F, Slicing>,
               public training_loop<module<F, Slicing>, output_element<typename F::executor_type>> {
  using base = pushpull::detail::optimized_module<F, Slicing>;

 public:
  using base::base;
  using base::bind;
  using typename base::device_type;

  /// A module whose parameters are those of a checkpoint, for `bind`, and whose optimizer's states are, for `init_optimizer`.
  /// @throws file_error
  static module load(std::string const& prefix, std::int64_t epoch, F factory, std::vector<device_type> devices,
                     module_options options = {}, checkpoint_options from = {}) {
    return module(loaded{prefix, epoch, from}, std::move(factory), std::move(devices), std::move(options));
  }

  /// For a source's batches. @throws as bind
  template <DataSource S>
  void bind_to(S const& source, module_bind_options options = {}) {
    auto descs = source.descs();
    this->bind(std::move(descs.data), std::move(descs.labels), options);
  }

  /// The next batch comes. Here nothing has to be done; a bucketing_module binds its bucket. @throws not_bound
  template <class Batch>
  void prepare(Batch const&) {
    this->group_.expect_bound("prepare");
  }
  /// For tables of rows: row_ids(batch) -> row ids by name, in any order. Their rows on all devices are those of the store when it
  /// returns. One call before each forward pass. Names of other parameters give a warning: all of their rows are on all devices.
  /// @throws not_bound, unknown_key; invalid_argument if a row does not exist
  template <class Batch, std::invocable<Batch const&> RowIds>
  void prepare(Batch const& next, RowIds const& row_ids) {
    this->group_.expect_bound("prepare");
    if (this->optimizer_ == nullptr || !this->optimizer_->updates_on_store())
      return this->options_.warn("prepare: updates do not run on a store, row ids are ignored");
    auto const& names = this->group_.param_names();
    for (auto const& entry : row_ids(next)) {  // clang 14 captures no structured bindings
      auto const& name = entry.first;
      pushpull::detail::expects<unknown_key>(std::find(names.begin(), names.end(), name) != names.end(), [&] {
        return "prepare: the model has no parameter \"" + std::string(name) + "\"";
      });
      if (!this->optimizer_->prepare(name, std::vector<std::int64_t>(entry.second.begin(), entry.second.end())))
        this->options_.warn("prepare: parameter \"" + std::string(name) + "\" has all rows on all devices");
    }
  }

  /// Counts the last forward in a metric. @param pad  So many rows at the end are no samples.
  /// @throws not_bound, not_initialized
  template <class M>
  void update_metric(M& metric, std::int64_t pad = 0) {
    this->expect_ready("update_metric");
    this->group_.update_metric(metric, pad);
  }
  /// With other labels: of all rows, or [device][label].
  template <class M, class Labels>
    requires(!std::integral<Labels>)
  void update_metric(M& metric, Labels const& labels) {
    this->expect_ready("update_metric");
    this->group_.update_metric(metric, labels);
  }

  /// From now on the monitor, which outlives the module, sees intermediate tensors of all devices; `fit` calls its tic and toc.
  /// @throws not_bound
  void install_monitor(monitor& observer) {
    this->group_.expect_bound("install_monitor");
    this->group_.install_tap([&observer](std::string_view name, auto const& view) { observer.tap(name, view); });
    monitor_ = &observer;
  }
  /// A pass begins that a monitor may observe. Waits for the devices, if it does.
  void tic() {
    if (monitor_ == nullptr) return;
    monitor_->tic();
    if (monitor_->active()) wait_for_all();
  }
  /// Ends a pass that a monitor observes: parameters and auxiliary states of all devices, and data and labels if its options
  /// ask for them, are given to it first, once a step that is under way has ended.
  std::vector<monitor_record> toc() {
    if (monitor_ == nullptr) return {};
    if (monitor_->active()) {
      wait_for_all();
      if (monitor_->wants_inputs())
        this->group_.for_each_input([this](std::string_view name, auto const& view) { monitor_->tap(name, view); });
      auto const& names = this->group_.param_names();
      for (std::size_t k = 0; k < this->devices().size(); ++k) {
        for (std::size_t i = 0; i < names.size(); ++i) monitor_->tap(names[i], this->group_.param(i, k));
        for (std::size_t i = 0; i < this->group_.aux_names().size(); ++i)
          monitor_->tap(this->group_.aux_names()[i], this->group_.aux(i, k));
      }
    }
    return monitor_->toc();
  }

 private:
  void wait_for_all() {
    if (this->optimizer_ != nullptr) this->optimizer_->wait();
    this->group_.wait();
  }

  struct loaded {
    std::string prefix;
    std::int64_t epoch;
    checkpoint_options options;
  };
  explicit module(loaded const& from, F factory, std::vector<device_type> devices, module_options options)
      : base(std::move(factory), std::move(devices), std::move(options)) {
    this->load_checkpoint(from.prefix, from.epoch, from.options);
  }

  monitor* monitor_ = nullptr;
};

// Some compilers take a line that begins with "module" for a declaration of C++20's modules.
template <class F, class D>
explicit module(F, std::vector<D>) -> module<F>;
template <class F, class D>
explicit module(F, std::vector<D>, module_options) -> module<F>;

}  // namespace pushpull::train
