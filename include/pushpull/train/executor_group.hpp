/// @file
/// A model on several devices: one executor per device, each with its rows of every batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/group/transferring_group.hpp>
#include <pushpull/train/metrics/metric.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Cuts batches into rows per device, runs a replica of a user's model on each, and puts their results together. It reduces no
/// gradients: a store does, for which `attach` makes the executors read its mirrors and write its gradients.
/// @tparam F        The factory of executors.
/// @tparam Slicing  How rows are cut.
/// Calls enqueue work on the devices; `merged_outputs` and the like too. After an exception the group is as it was.
template <ExecutorFactory F, SlicingPolicy Slicing = balanced>
class executor_group : public pushpull::detail::transferring_group<F, Slicing> {
  using base = pushpull::detail::transferring_group<F, Slicing>;

 public:
  using typename base::device_type;
  using typename base::executor_type;
  using typename base::value_type;
  using output_type = output_element<executor_type>;
  using input_type = input_element<executor_type>;
  using base::base;

  /// The rows of a batch to all devices, data by position, and labels if the batch has any and the group was bound with labels.
  /// Other labels stay. The batch stays until the devices have read it.
  /// @throws not_bound; shape_mismatch if an array has another shape than its descriptor
  template <class Data, class Label>
  void load(batch<Data, Label> const& whole) {
    this->expect_bound("load");
    this->refresh();
    this->expect_arrays("data", whole.data, this->layout().whole.data);
    bool const labelled = !whole.labels.empty() && !this->layout().whole.labels.empty();
    if (labelled) this->expect_arrays("labels", whole.labels, this->layout().whole.labels);
    this->for_each_active([&](std::size_t k) {
      this->scatter(whole.data, this->layout().whole.data, this->executor(k).inputs(), k, 0);
      if (labelled)
        this->scatter(whole.labels, this->layout().whole.labels, this->executor(k).labels(), k,
                      this->layout().whole.data.size());
    });
    this->record_loads();
  }
  /// A batch per device, which takes it whole. All have the shapes of one device's part.
  /// @throws as load; batch_mismatch if there are not as many batches as devices
  template <class Data, class Label>
  void load(std::span<batch<Data, Label> const> slices) {
    this->expect_bound("load");
    this->refresh();
    pushpull::detail::expects<batch_mismatch>(slices.size() == this->devices().size(), [&] {
      return "load: a batch for each of " + std::to_string(this->devices().size()) + " devices expected, got " +
             std::to_string(slices.size());
    });
    for (std::size_t k = 0; k < slices.size(); ++k) {
      auto const part = this->layout().of(k);
      this->expect_arrays("data", slices[k].data, part.data);
      if (!slices[k].labels.empty() && !part.labels.empty())
        this->expect_arrays("labels", slices[k].labels, part.labels);
    }
    this->for_each_active([&](std::size_t k) {
      auto const part = this->layout().of(k);
      this->scatter_whole(slices[k].data, part.data, this->executor(k).inputs(), k, 0);
      if (!slices[k].labels.empty() && !part.labels.empty())
        this->scatter_whole(slices[k].labels, part.labels, this->executor(k).labels(), k, part.data.size());
    });
    this->record_loads();
  }

  /// Returns when all devices have read the batch that was loaded: its memory may then be used for another.
  void wait_loaded() { this->wait_for_loads(); }
  /// Returns when all devices are done.
  void wait() const {
    for (auto const& device : this->devices()) device.synchronize();
  }
  /// The axis of the samples of output i, or -1. @throws not_bound
  int axis_of_output(std::size_t i) const {
    this->expect_bound("axis_of_output");
    return this->output_axis(i);
  }

  /// Loads a batch, or one per device, and runs all executors. @param run  The mode of the bind if there is none.
  /// @throws as load; the first error of an executor
  template <class Batch>
  void forward(Batch const& whole, std::optional<mode> run = {}) {
    load(whole);
    forward(run);
  }
  /// Runs all executors on what was loaded.
  void forward(std::optional<mode> run = {}) {
    this->expect_bound("forward");
    this->refresh();
    mode const chosen = run.value_or(this->is_for_training() ? mode::training : mode::inference);
    for (std::size_t k = 0; chosen == mode::training && k < this->devices().size(); ++k)
      if (!this->layout().is_idle(k)) this->arrays_->mark_aux(this->aux_index_, k);
    this->for_each_active([&](std::size_t k) { this->executor(k).forward(chosen); });
  }

  /// The gradients of the last forward. Outputs are losses. Devices without rows have gradients 0.
  /// @throws not_bound, not_training, and the first error of an executor
  void backward() {
    this->begin_backward();
    this->for_each_active([&](std::size_t k) { this->executor(k).backward({}); });
  }
  /// The gradients of the last forward, from those of each output: of all rows, in host memory or on one of the devices. An
  /// output without an axis of samples has a gradient without one, which all devices get: it counts once per device.
  /// @throws also shape_mismatch
  template <class H>
  void backward(std::vector<tensor_view<output_type const, H>> const& head_grads) {
    if (head_grads.empty()) return backward();
    auto const shapes = output_shapes();
    pushpull::detail::expects<shape_mismatch>(head_grads.size() == shapes.size(), [&] {
      return "backward: a gradient for each of " + std::to_string(shapes.size()) + " outputs expected, got " +
             std::to_string(head_grads.size());
    });
    for (std::size_t i = 0; i < shapes.size(); ++i)
      pushpull::detail::expects<shape_mismatch>(head_grads[i].shape() == shapes[i].second, [&] {
        return "backward: the gradient of output \"" + shapes[i].first + "\" of shape " + to_string(shapes[i].second) +
               " expected, got " + to_string(head_grads[i].shape());
      });
    this->begin_backward();
    auto const heads = this->sliced_heads(head_grads);
    this->for_each_active([&](std::size_t k) { this->executor(k).backward(heads[k]); });
  }

  /// The samples of a batch; none if no array has an axis of samples.
  std::optional<std::int64_t> batch_size() const {
    this->expect_bound("batch_size");
    return this->layout().rows;
  }
  /// Names and shapes of the outputs of a whole batch.
  std::vector<std::pair<std::string, shape>> output_shapes() {
    this->expect_bound("output_shapes");
    this->refresh();
    std::vector<std::pair<std::string, shape>> result;
    auto const names = pushpull::detail::texts(this->factory().output_names());
    auto&& outputs = this->first().outputs();
    for (std::size_t i = 0; i < names.size(); ++i)
      result.emplace_back(names[i],
                          with_rows(outputs[i].shape(), this->output_axis(i), this->layout().rows.value_or(0)));
    return result;
  }
  /// Output i on device k, with no rows if the device is idle.
  tensor_view<output_type const, device_type> output(std::size_t i, std::size_t k) {
    if (this->layout().is_idle(k)) return {nullptr, shape{0}, this->devices()[k]};
    return view_of(std::as_const(this->executor(k).outputs()[i]));
  }
  /// The outputs of the last forward, [output][device], each on its device.
  std::vector<std::vector<tensor_view<output_type const, device_type>>> outputs() {
    this->expect_bound("outputs");
    std::vector<std::vector<tensor_view<output_type const, device_type>>> result(this->output_count());
    for (std::size_t i = 0; i < result.size(); ++i)
      for (std::size_t k = 0; k < this->devices().size(); ++k) result[i].push_back(output(i, k));
    return result;
  }
  /// The outputs of the last forward as of one device, on the first device: those of all devices one after the other on their
  /// axis of samples. Of one device, and of an output without samples, the first device's own memory. Valid until the next call.
  std::vector<tensor_view<output_type const, device_type>> merged_outputs() {
    this->expect_bound("merged_outputs");
    auto const all = outputs();
    std::vector<int> axes;
    for (std::size_t i = 0; i < all.size(); ++i) axes.push_back(this->output_axis(i));
    return this->merge(all, axes, merged_outputs_);
  }

  /// The gradients of the data, [data][device], in the order of the descriptors.
  /// @throws not_training unless bind was told to compute them
  std::vector<std::vector<tensor_view<input_type const, device_type>>> input_grads() {
    static_assert(InputGradExecutor<executor_type>,
                  "input_grads: the executor is no InputGradExecutor: input_grads() is missing");
    this->expect_input_grads();
    std::vector<std::vector<tensor_view<input_type const, device_type>>> result(this->layout().whole.data.size());
    for (std::size_t i = 0; i < result.size(); ++i)
      for (std::size_t k = 0; k < this->devices().size(); ++k)
        if (this->layout().is_idle(k)) {
          result[i].push_back({nullptr, shape{0}, this->devices()[k]});
        } else {
          result[i].push_back(view_of(std::as_const(this->executor(k).input_grads()[i])));
        }
    return result;
  }
  /// The same as of one device, on the first device: see merged_outputs.
  std::vector<tensor_view<input_type const, device_type>> merged_input_grads() {
    auto const all = input_grads();
    std::vector<int> axes;
    for (descriptor const& d : this->layout().whole.data) axes.push_back(d.batch_axis());
    return this->merge(all, axes, merged_input_grads_);
  }

  /// The states, [state][device]: they have no merged form. @throws not_bound
  auto states() {
    static_assert(StatefulExecutor<executor_type>, "states: the executor is no StatefulExecutor: states() is missing");
    this->expect_bound("states");
    this->refresh();
    using element = pushpull::detail::element_of_range<decltype(this->first().states())>;
    std::vector<std::vector<tensor_view<element, device_type>>> result(std::ranges::size(this->first().states()));
    for (std::size_t i = 0; i < result.size(); ++i)
      for (std::size_t k = 0; k < this->devices().size(); ++k)
        if (!this->layout().is_idle(k)) result[i].push_back(view_of(this->executor(k).states()[i]));
    return result;
  }
  /// Copies to all states, [state][device], of any tensors. @throws shape_mismatch
  template <TensorLike V>
  void set_states(std::vector<std::vector<V>> const& values) {
    auto const all = states();
    bool fits = values.size() == all.size();
    for (std::size_t i = 0; fits && i < all.size(); ++i) fits = values[i].size() == all[i].size();
    pushpull::detail::expects<shape_mismatch>(
        fits, [&] { return "set_states: " + std::to_string(all.size()) + " states of each device expected"; });
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::size_t k = 0; k < all[i].size(); ++k)
        pushpull::detail::expects<shape_mismatch>(view_of(values[i][k]).shape() == all[i][k].shape(), [&] {
          return "set_states: state " + std::to_string(i) + " of shape " + to_string(all[i][k].shape()) +
                 " expected, got " + to_string(view_of(values[i][k]).shape());
        });
    for (std::size_t i = 0; i < all.size(); ++i)
      for (std::size_t k = 0; k < all[i].size(); ++k) copy(values[i][k], all[i][k]);
  }
  /// One number for all elements of all states.
  void set_states(double value) {
    for (auto const& state : states())
      for (auto const& view : state)
        copy(std::vector<double>(view.size(), value),
             tensor_view(view.data(), shape{static_cast<std::int64_t>(view.size())}, view.device()));
  }

  /// Counts the last forward in a metric: one update per device, with its labels and outputs, which stay on the device.
  /// @param pad  So many rows at the end of the batch are no samples.
  template <class M>
  void update_metric(M& metric, std::int64_t pad = 0) {
    this->expect_bound("update_metric");
    for (std::size_t k = 0; k < this->devices().size(); ++k)
      if (!this->layout().is_idle(k)) update_metric(metric, const_views(this->executor(k).labels()), k, pad);
  }
  /// With other labels, of all rows, in host memory.
  template <class M, class Label>
  void update_metric(M& metric, std::vector<tensor_view<Label const>> const& labels, std::int64_t pad = 0) {
    this->expect_bound("update_metric");
    this->expect_arrays("labels", labels, this->layout().whole.labels);
    for (std::size_t k = 0; k < this->devices().size(); ++k)
      if (!this->layout().is_idle(k)) update_metric(metric, this->metric_labels(labels, k, false), k, pad);
  }
  /// With other labels, already cut: [device][label].
  template <class M, class Label>
  void update_metric(M& metric, std::vector<std::vector<tensor_view<Label const>>> const& slices) {
    this->expect_bound("update_metric");
    pushpull::detail::expects<batch_mismatch>(slices.size() == this->devices().size(), [&] {
      return "update_metric: labels of each of " + std::to_string(this->devices().size()) + " devices expected, got " +
             std::to_string(slices.size());
    });
    for (std::size_t k = 0; k < slices.size(); ++k) {
      if (this->layout().is_idle(k)) continue;
      this->expect_arrays("labels", slices[k], this->layout().of(k).labels);
      update_metric(metric, this->metric_labels(slices[k], k, true), k, 0);
    }
  }

  /// Calls f(name, view) for the data and the labels that each executor has loaded. @throws not_bound
  template <class G>
  void for_each_input(G const& f) {
    this->expect_bound("for_each_input");
    auto const& whole = this->layout().whole;
    for (std::size_t k = 0; k < this->devices().size(); ++k) {
      if (this->layout().is_idle(k)) continue;
      auto&& data = this->executor(k).inputs();
      auto&& labels = this->executor(k).labels();
      for (std::size_t i = 0; i < whole.data.size(); ++i) f(whole.data[i].name, data[i]);
      for (std::size_t i = 0; i < whole.labels.size(); ++i) f(whole.labels[i].name, labels[i]);
    }
  }

  /// From now on every executor shows its intermediate tensors to tap(name, view).
  template <class Tap>
  void install_tap(Tap tap) {
    static_assert(MonitoredExecutor<executor_type>,
                  "install_tap: the executor is no MonitoredExecutor: tap is missing");
    this->expect_bound("install_tap");
    this->on_build([tap](executor_type& e) { e.tap(tap); });
  }
  /// From now on each backward calls f(i) when gradient i is complete on all devices, from any thread.
  void on_grad_ready(std::function<void(std::size_t)> f) {
    static_assert(HookedExecutor<executor_type>,
                  "on_grad_ready: the executor is no HookedExecutor: on_grad_ready is missing");
    this->set_hook(std::move(f));
  }
  /// From now on each forward calls f(i) before it reads parameter i, from any thread. An executor that is no WaitingExecutor
  /// does not. @returns whether it does
  bool on_param_needed(std::function<void(std::size_t)> f) {
    if constexpr (WaitingExecutor<executor_type>) {
      this->set_needed_hook(std::move(f));
      return true;
    }
    return false;
  }

 private:
  template <class Views>
  static auto const_views(Views&& views) {
    using element = pushpull::detail::element_of_range<std::remove_reference_t<Views>>;
    std::vector<tensor_view<element const, device_type>> result;
    for (auto const& view : views) result.push_back(view_of(view));
    return result;
  }
  template <class M, class Labels>
  void update_metric(M& metric, Labels const& labels, std::size_t k, std::int64_t pad) {
    std::vector<tensor_view<output_type const, device_type>> const own = const_views(this->executor(k).outputs());
    train::counted_rows counted{};
    if (auto const rows = this->layout().rows) {
      auto const slice = this->layout().slices[k];
      counted.rows = std::clamp<std::int64_t>(*rows - pad - slice.begin, 0, slice.size());
    }
    // A label per output: otherwise the metric takes all of them together.
    for (std::size_t i = 1; i < own.size() && labels.size() == own.size(); ++i)
      if (this->output_axis(i) != this->output_axis(0)) return update_metric_by_output(metric, labels, own, counted);
    counted.axis = own.empty() ? -1 : this->output_axis(0);
    metric.update(std::span(labels), std::span(own), counted);
  }

  /// Outputs whose samples are on different axes, each with its labels.
  template <class M, class Labels, class Outputs>
  void update_metric_by_output(M& metric, Labels const& labels, Outputs const& outputs, train::counted_rows counted) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      counted.axis = this->output_axis(i);
      metric.update(std::span(labels).subspan(i, 1), std::span(outputs).subspan(i, 1), counted);
    }
  }

  std::vector<std::optional<tensor<output_type, device_type>>> merged_outputs_;
  std::vector<std::optional<tensor<input_type, device_type>>> merged_input_grads_;
};

template <class F, class D>
executor_group(F, std::vector<D>) -> executor_group<F>;
template <class F, class D>
executor_group(F, std::vector<D>, group_options) -> executor_group<F>;

}  // namespace pushpull::train
