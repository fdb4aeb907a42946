/// @file
/// The part of a module that binds its group and runs it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/executor_group.hpp>
#include <pushpull/train/module/module_options.hpp>
#include <pushpull/train/optimizer/model_optimizer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// @throws bad_option unless the names are those of the descriptors, in any order; a warning for labels
template <class M, class Warn>
void expect_declared(M const& model, train::input_descriptors const& inputs, Warn const& warn) {
  auto const differ = [](std::vector<train::descriptor> const& descs, auto const& names) {
    std::set<std::string> given, declared;
    for (auto const& d : descs) given.insert(d.name);
    for (auto const& name : texts(names)) declared.insert(name);
    if (given == declared) return std::string();
    return listed({declared.begin(), declared.end()}) + " expected, got " + listed({given.begin(), given.end()});
  };
  if constexpr (requires { model.input_names(); }) {
    std::string const text = differ(inputs.data, model.input_names());
    expects<bad_option>(text.empty(), [&] { return "bind: data " + text; });
  }
  if constexpr (requires { model.label_names(); }) {
    std::string const text = inputs.labels.empty() ? "" : differ(inputs.labels, model.label_names());
    if (!text.empty()) warn("bind: labels " + text);
  }
}

/// bind, reshape, forward, backward and outputs of a module.
template <train::ExecutorFactory F, train::SlicingPolicy Slicing>
class bound_module {
 public:
  using group_type = train::executor_group<F, Slicing>;
  using device_type = typename group_type::device_type;
  using value_type = typename group_type::value_type;
  using output_type = typename group_type::output_type;
  using master_type = accumulation_t<value_type>;
  using optimizer_type = train::model_optimizer<value_type, device_type>;

  /// @throws bad_option if there is no device, or a fixed name is none of the model's; duplicate_device
  bound_module(F factory, std::vector<device_type> devices, train::module_options options = {})
      : options_(std::move(options)),
        group_(std::move(factory), std::move(devices), {options_.work_loads, options_.allow_idle}) {
    auto const& names = group_.param_names();
    for (std::string const& name : options_.fixed)
      expects<bad_option>(std::find(names.begin(), names.end(), name) != names.end(),
                          [&] { return "module: the model has no parameter \"" + name + "\" to fix"; });
  }
  bound_module(bound_module const&) = delete;
  bound_module& operator=(bound_module const&) = delete;

  /// Whether bind was called; for training; whether parameters have values; whether there is an optimizer.
  bool is_bound() const { return group_.is_bound(); }
  bool is_for_training() const { return group_.is_for_training(); }
  bool is_initialized() const { return initialized_; }
  bool has_optimizer() const { return optimizer_ != nullptr; }
  /// The devices, in the order of the constructor.
  std::vector<device_type> const& devices() const { return group_.devices(); }
  /// The executors, for what the module has no call for.
  group_type& group() { return group_; }
  /// Descriptors of data and labels. @throws not_bound
  std::vector<train::descriptor> const& data_descs() const { return group_.layout().whole.data; }
  std::vector<train::descriptor> const& label_descs() const { return group_.layout().whole.labels; }
  /// Names and shapes of the outputs. @throws not_bound
  auto output_shapes() { return group_.output_shapes(); }

  /// Other shapes: see executor_group::reshape. @throws not_bound
  void reshape(std::vector<train::descriptor> data, std::vector<train::descriptor> labels = {}) {
    group_.expect_bound("reshape");
    group_.reshape({std::move(data), std::move(labels)});
  }

  /// Runs all executors on a batch, of any number of rows: the executors are reshaped if it has other shapes than the last. A
  /// batch without labels leaves the labels' memory alone. @param run  The mode of the bind if there is none.
  /// @throws not_bound, not_initialized; as executor_group
  template <class Data, class Label>
  void forward(train::batch<Data, Label> const& batch, std::optional<train::mode> run = {}) {
    expect_ready("forward");
    if (!fits(batch)) group_.reshape(shapes_of(batch, 1), false);
    group_.forward(batch, run);
  }
  /// A batch for each device, all of the same shapes.
  template <class Data, class Label>
  void forward(std::span<train::batch<Data, Label> const> slices, std::optional<train::mode> run = {}) {
    expect_ready("forward");
    expects<batch_mismatch>(!slices.empty(), [] { return std::string("forward: a batch for each device expected"); });
    group_.reshape(shapes_of(slices.front(), static_cast<std::int64_t>(slices.size())), true);
    group_.forward(slices, run);
  }
  /// The gradients of the last forward. After an error of an executor go on with another forward; where steps begin during the
  /// backward pass, some parameters may have made theirs. @throws not_bound, not_initialized, not_training
  void backward() {
    expect_ready("backward");
    run_backward([&] { group_.backward(); });
  }
  /// From the gradients of the outputs: see executor_group::backward.
  template <class H>
  void backward(std::vector<tensor_view<output_type const, H>> const& head_grads) {
    expect_ready("backward");
    run_backward([&] { group_.backward(head_grads); });
  }
  /// forward, for training, and backward. @throws as these
  template <class Batch>
  void forward_backward(Batch const& batch) {
    forward(batch, train::mode::training);
    backward();
  }
  /// The next backward overwrites gradients whose request is `add`, which nothing else zeroes. Starts the count of samples again.
  void zero_grad() {
    group_.zero_grad();
    samples_ = 0;
  }

  /// Another bucket of the same parameters computed the gradients so far.
  void continue_from(bound_module& other) {
    // This model may wait for fewer parameters than the step has that the other one's backward pass began.
    if (other.began_) optimizer_->wait();
    stepped_ = std::exchange(other.began_, false) || other.stepped_;
    other.stepped_ = began_ = false;
    has_gradients_ = std::exchange(other.has_gradients_, false);
    reduced_ = std::exchange(other.reduced_, false);
    samples_ = std::exchange(other.samples_, 0);
    divides_ = other.divides_;
  }

  /// [output][device]. @throws not_bound, not_initialized
  auto outputs() {
    expect_ready("outputs");
    return group_.outputs();
  }
  /// As of one device, on the first device. @throws not_bound, not_initialized
  auto merged_outputs() {
    expect_ready("merged_outputs");
    return group_.merged_outputs();
  }
  /// @throws not_bound, not_initialized; not_training unless bind was told to compute them
  auto input_grads() {
    expect_ready("input_grads");
    return group_.input_grads();
  }
  /// As of one device, on the first device. @throws as input_grads
  auto merged_input_grads() {
    expect_ready("merged_input_grads");
    return group_.merged_input_grads();
  }
  /// [state][device]. @throws not_bound, not_initialized
  auto states() {
    expect_ready("states");
    return group_.states();
  }
  /// Of nested tensors [state][device], or one number for all elements. @throws not_bound, not_initialized; shape_mismatch
  template <class Values>
  void set_states(Values const& values) {
    expect_ready("set_states");
    group_.set_states(values);
  }

  /// @throws not_bound, not_initialized
  void expect_ready(char const* call) const {
    group_.expect_bound(call);
    expects<not_initialized>(initialized_, [&] { return std::string(call) + ": init_params first"; });
  }

 protected:
  ~bound_module() = default;

  /// The gradients so far belong to no step.
  void forget_gradients() {
    has_gradients_ = began_ = stepped_ = reduced_ = false;
    samples_ = 0;
  }
  /// Tells the rule how many samples the gradients are sums of.
  void scale_step() {
    if (!divides_) {
      optimizer_->set_samples(1);
    } else if (rescale_ == train::rescale_policy::bound_batch) {
      optimizer_->set_samples(bound_samples_);
    } else if (samples_ > 0) {
      optimizer_->set_samples(samples_ * optimizer_->num_workers());
    }
  }

  train::module_options options_;
  group_type group_;
  std::shared_ptr<optimizer_type> optimizer_;
  bool initialized_ = false;
  bool has_gradients_ = false;  // of a backward since the last step
  bool began_ = false;          // their step began in the backward pass
  bool stepped_ = false;        // it began in that of another bucket, and is done
  bool reduced_ = false;        // these are sums over devices and ranks
  bool divides_ = true;         // false: the gradients are of inputs without samples
  double samples_ = 0;          // of the gradients
  double bound_samples_ = 1;    // of the bound batch, on all ranks
  train::rescale_policy rescale_ = train::rescale_policy::current_batch;
  bool overlaps_ = false;  // steps begin during the backward pass
  bool waits_ = false;     // the forward pass waits for each parameter's step

 private:
  /// Whether the executors have the shapes of the batch: what nearly all steps ask, without an allocation.
  template <class Batch>
  bool fits(Batch const& batch) const {
    auto const same = [](auto const& arrays, std::vector<train::descriptor> const& descs) {
      if (arrays.size() != descs.size()) return false;
      for (std::size_t i = 0; i < arrays.size(); ++i)
        if (!(arrays[i].shape() == descs[i].shape)) return false;
      return true;
    };
    auto const& whole = group_.layout().whole;
    return batch.data_descs.empty() && batch.label_descs.empty() && !group_.is_even() && same(batch.data, whole.data) &&
           (batch.labels.empty() || same(batch.labels, whole.labels));
  }
  /// The shapes of a batch, of which `times` make the whole. Labels that did not come keep their descriptors.
  template <class Batch>
  train::input_descriptors shapes_of(Batch const& batch, std::int64_t times) const {
    train::input_descriptors result = group_.layout().whole;
    auto const take = [&](auto const& arrays, std::vector<train::descriptor> const& descs,
                          std::vector<train::descriptor>& own, char const* what) {
      if (arrays.empty()) return;
      if (!descs.empty()) own = descs;
      expects<shape_mismatch>(own.size() == arrays.size(), [&] {
        return std::string("forward: ") + std::to_string(own.size()) + " arrays of " + what + " expected, got " +
               std::to_string(arrays.size());
      });
      for (std::size_t i = 0; i < arrays.size(); ++i) {
        own[i].shape = arrays[i].shape();
        if (times != 1 && own[i].batch_axis() >= 0)
          own[i].shape = train::with_rows(own[i].shape, own[i].batch_axis(), own[i].rows() * times);
      }
    };
    take(batch.data, batch.data_descs, result.data, "data");
    if (batch.labels.empty()) {
      auto const rows = train::count_rows({result.data, {}});
      for (auto& d : result.labels)
        if (rows) d.shape = train::with_rows(d.shape, d.batch_axis(), *rows);
    } else if (!result.labels.empty() || !batch.label_descs.empty()) {
      take(batch.labels, batch.label_descs, result.labels, "labels");
    }
    return result;
  }
  template <class Pass>
  void run_backward(Pass const& pass) {
    double const before = samples_;
    count_samples();
    try {
      pass();
    } catch (...) {
      samples_ = before;
      if (overlaps_) abandon_step();
      throw;
    }
    has_gradients_ = true;
    began_ = overlaps_;
    stepped_ = reduced_ = false;
  }
  void abandon_step() noexcept {
    try {
      optimizer_->abandon_step();
    } catch (...) {  // of a part that had begun: the error of the backward pass came first
    }
  }
  /// Steps may begin during the backward pass, so the rule must know the samples before.
  void count_samples() {
    group_.expect_bound("backward");
    bool adds = false;
    for (std::size_t i = 0; i < group_.param_names().size(); ++i)
      adds = adds || group_.request(i) == train::grad_request::add;
    divides_ = group_.batch_size().has_value();
    samples_ = (adds ? samples_ : 0) + static_cast<double>(group_.batch_size().value_or(0));
    if (overlaps_) scale_step();
  }
};

}  // namespace pushpull::detail
