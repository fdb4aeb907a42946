/// @file
/// Models for the tests of groups and modules: one whose step has a closed form, one that copies, one that has the least.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace pushpull::test {

/// What the executors of a factory did.
struct counters {
  int made = 0, reshaped = 0;
  int make_fails_on_device = -1;       ///< the factory throws for this device
  int fails_on_device = -1;            ///< forward throws on this device
  int backward_fails_on_device = -1;   ///< backward throws on this device
  int backward_fails_after = 0;        ///< when so many of its gradients are complete, at most 1
  std::chrono::milliseconds pause{0};  ///< that forward takes on the others
  std::atomic<int> ended{0};           ///< passes forward that ended
};

/// y = x w' + b of n rows, with the loss sum((y - t)^2) / 2. The auxiliary state "seen" gains the sum of all inputs of a
/// training pass, the state adds to y.
class linear_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;

  linear_executor(device_type const& device, train::input_descriptors const& descs,
                  train::replica_requests const& requests, train::buffer_pool<device_type>& pool,
                  train::replica_memory<float, device_type> const& memory, std::shared_ptr<counters> counts)
      : device_(device),
        pool_(&pool),
        requests_(requests),
        params_(memory.params),
        grads_(memory.grads),
        aux_(memory.aux),
        counts_(std::move(counts)),
        state_(device, shape{1}) {
    states_ = {state_.view()};
    shape_to(descs);
  }
  linear_executor(linear_executor const&) = delete;

  device_type const& device() const { return device_; }
  std::vector<view>& inputs() { return inputs_; }
  std::vector<view>& labels() { return labels_; }
  std::vector<view>& outputs() { return outputs_; }
  std::vector<view>& params() { return params_; }
  std::vector<view>& grads() { return grads_; }
  std::vector<view>& aux() { return aux_; }
  std::vector<view>& input_grads() { return input_grads_; }
  std::vector<view>& states() { return states_; }

  void reshape(train::input_descriptors const& descs) {
    ++counts_->reshaped;
    shape_to(descs);
  }
  void on_grad_ready(std::function<void(std::size_t)> f) { hook_ = std::move(f); }
  void on_param_needed(std::function<void(std::size_t)> f) { needed_ = std::move(f); }
  template <class F>
  void tap(F f) {
    tap_ = std::move(f);
  }

  void forward(train::mode run) {
    if (counts_->fails_on_device == device_.id()) throw std::runtime_error("forward failed");
    std::this_thread::sleep_for(counts_->pause);
    if (needed_) needed_(0);
    if (needed_) needed_(1);
    for (std::size_t n = 0; n < rows(); ++n)
      for (std::size_t o = 0; o < out(); ++o) {
        float sum = params_[1].data()[o] + state_.data()[0];
        for (std::size_t i = 0; i < in(); ++i) sum += params_[0].data()[o * in() + i] * inputs_[0].data()[n * in() + i];
        outputs_[0].data()[n * out() + o] = sum;
      }
    if (run == train::mode::training)
      for (std::size_t i = 0; i < inputs_[0].size(); ++i) aux_[0].data()[0] += inputs_[0].data()[i];
    if (tap_) tap_("y", outputs_[0]);
    ++counts_->ended;
  }

  void backward(std::span<tensor_view<float const> const> heads) {
    std::vector<float> dy(outputs_[0].size());
    for (std::size_t i = 0; i < dy.size(); ++i)
      dy[i] = heads.empty() ? outputs_[0].data()[i] - labels_[0].data()[i] : heads[0].data()[i];
    if (!input_grads_.empty())
      each(input_grads_[0], requests_.inputs[0], [&](std::size_t at) {
        float sum = 0;
        for (std::size_t o = 0; o < out(); ++o)
          sum += dy[at / in() * out() + o] * params_[0].data()[o * in() + at % in()];
        return sum;
      });
    fail_after(0);
    each(grads_[1], requests_.params[1], [&](std::size_t o) {
      float sum = 0;
      for (std::size_t n = 0; n < rows(); ++n) sum += dy[n * out() + o];
      return sum;
    });
    if (hook_) hook_(1);
    fail_after(1);
    each(grads_[0], requests_.params[0], [&](std::size_t at) {
      float sum = 0;
      for (std::size_t n = 0; n < rows(); ++n)
        sum += dy[n * out() + at / in()] * inputs_[0].data()[n * in() + at % in()];
      return sum;
    });
    if (hook_) hook_(0);
  }

 private:
  std::size_t rows() const { return static_cast<std::size_t>(inputs_[0].shape()[0]); }
  std::size_t in() const { return static_cast<std::size_t>(inputs_[0].shape()[1]); }
  std::size_t out() const { return params_[1].size(); }

  void fail_after(int complete) const {
    if (counts_->backward_fails_on_device == device_.id() && counts_->backward_fails_after == complete)
      throw std::runtime_error("backward failed");
  }
  template <class F>
  static void each(view const& gradient, train::grad_request request, F const& f) {
    if (request == train::grad_request::none) return;
    for (std::size_t at = 0; at < gradient.size(); ++at)
      gradient.data()[at] = f(at) + (request == train::grad_request::add ? gradient.data()[at] : 0);
  }
  void shape_to(train::input_descriptors const& descs) {
    inputs_.clear();
    labels_.clear();
    input_grads_.clear();
    for (auto const& d : descs.data) inputs_.push_back(pool_->acquire<float>(d.name, d.shape));
    for (auto const& d : descs.labels) labels_.push_back(pool_->acquire<float>(d.name, d.shape));
    if (requests_.inputs[0] != train::grad_request::none)
      input_grads_.push_back(pool_->acquire<float>("grad of " + descs.data[0].name, descs.data[0].shape));
    outputs_ = {pool_->acquire<float>("y", shape{descs.data[0].shape[0], static_cast<std::int64_t>(out())})};
  }

  device_type device_;
  train::buffer_pool<device_type>* pool_;
  train::replica_requests requests_;
  std::vector<view> inputs_, labels_, outputs_, params_, grads_, aux_, input_grads_, states_;
  std::shared_ptr<counters> counts_;
  tensor<float> state_;
  std::function<void(std::size_t)> hook_, needed_;
  std::function<void(std::string_view, view const&)> tap_;
};

struct linear_factory {
  using executor_type = linear_executor;
  std::int64_t outputs = 1;
  std::shared_ptr<counters> counts = std::make_shared<counters>();

  std::vector<std::string> param_names() const { return {"weight", "bias"}; }
  std::vector<std::string> aux_names() const { return {"seen"}; }
  std::vector<std::string> output_names() const { return {"y"}; }
  std::vector<std::string> input_names() const { return {"x"}; }
  std::vector<std::string> label_names() const { return {"t"}; }
  int output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const& descs) const {
    if (descs.data[0].shape.rank() != 2) throw shape_mismatch("linear: data of rank 2 expected");
    return {{shape{outputs, descs.data[0].shape[1]}, shape{outputs}}, {shape{1}}};
  }
  linear_executor make(cpu_device<> const& device, train::input_descriptors const& descs,
                       train::replica_requests const& requests, train::buffer_pool<cpu_device<>>& pool,
                       train::replica_memory<float, cpu_device<>> const& memory) {
    if (counts->make_fails_on_device == device.id()) throw std::runtime_error("make failed");
    ++counts->made;
    return {device, descs, requests, pool, memory, counts};
  }
};

/// The outputs are the inputs, and the gradients of the inputs those of the outputs. No parameters, no reshape.
class copying_executor {
 public:
  using device_type = cpu_device<>;
  using view = tensor_view<float>;

  copying_executor(device_type const& device, train::input_descriptors const& descs,
                   train::buffer_pool<device_type>& pool)
      : device_(device) {
    for (auto const& d : descs.data) {
      inputs_.push_back(pool.acquire<float>(d.name, d.shape));
      outputs_.push_back(pool.acquire<float>("out " + d.name, d.shape));
      input_grads_.push_back(pool.acquire<float>("grad of " + d.name, d.shape));
    }
    for (auto const& d : descs.labels) labels_.push_back(pool.acquire<float>(d.name, d.shape));
  }
  device_type const& device() const { return device_; }
  std::vector<view> const& inputs() { return inputs_; }
  std::vector<view> const& labels() { return labels_; }
  std::vector<view> const& outputs() { return outputs_; }
  std::vector<view> const& input_grads() { return input_grads_; }
  std::vector<view> params() { return {}; }
  std::vector<view> grads() { return {}; }
  std::vector<view> aux() { return {}; }
  void forward(train::mode) {
    for (std::size_t i = 0; i < inputs_.size(); ++i) copy(inputs_[i], outputs_[i]);
  }
  void backward(std::span<tensor_view<float const> const> heads) {
    for (std::size_t i = 0; i < heads.size(); ++i) copy(heads[i], input_grads_[i]);
  }

 private:
  device_type device_;
  std::vector<view> inputs_, labels_, outputs_, input_grads_;
};

struct copying_factory {
  using executor_type = copying_executor;
  std::vector<std::string> names;
  std::vector<int> axes;

  std::vector<std::string> param_names() const { return {}; }
  std::vector<std::string> aux_names() const { return {}; }
  std::vector<std::string> const& output_names() const { return names; }
  int output_axis(std::size_t i) const { return axes[i]; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const { return {}; }
  copying_executor make(cpu_device<> const& device, train::input_descriptors const& descs,
                        train::replica_requests const&, train::buffer_pool<cpu_device<>>& pool,
                        train::replica_memory<float, cpu_device<>> const&) {
    return {device, descs, pool};
  }
};

/// Numbers from a seed, between -1 and 1.
inline std::vector<float> numbers(std::size_t count, std::uint64_t seed) {
  std::vector<float> result(count);
  for (float& x : result) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    x = static_cast<float>(static_cast<double>(seed >> 40) * 0x1p-23 - 1);
  }
  return result;
}

/// A batch of n rows for the linear model, with memory of its own.
struct linear_batch {
  std::int64_t rows, in, out;
  std::vector<float> x = numbers(static_cast<std::size_t>(rows * in), static_cast<std::uint64_t>(rows + 7 * in));
  std::vector<float> t = numbers(static_cast<std::size_t>(rows * out), static_cast<std::uint64_t>(rows + 11 * out));

  train::batch<> view() const {
    return {.data = {tensor_view(x.data(), shape{rows, in})}, .labels = {tensor_view(t.data(), shape{rows, out})}};
  }
  train::input_descriptors descs() const {
    return {{{.name = "x", .shape = shape{rows, in}}}, {{.name = "t", .shape = shape{rows, out}}}};
  }
};

/// The same model in double.
struct linear_reference {
  std::vector<double> weight, bias;

  linear_reference(std::vector<float> const& w, std::vector<float> const& b)
      : weight(w.begin(), w.end()), bias(b.begin(), b.end()) {}

  /// Sums over the rows of a batch of the gradients of weight, then of bias.
  std::pair<std::vector<double>, std::vector<double>> gradients(linear_batch const& batch) const {
    auto const in = static_cast<std::size_t>(batch.in), out = bias.size();
    std::vector<double> gw(weight.size()), gb(out);
    for (std::size_t n = 0; n < static_cast<std::size_t>(batch.rows); ++n)
      for (std::size_t o = 0; o < out; ++o) {
        double y = bias[o];
        for (std::size_t i = 0; i < in; ++i) y += weight[o * in + i] * batch.x[n * in + i];
        double const dy = y - batch.t[n * out + o];
        gb[o] += dy;
        for (std::size_t i = 0; i < in; ++i) gw[o * in + i] += dy * batch.x[n * in + i];
      }
    return {gw, gb};
  }
  /// A step of gradient descent on the mean over the batch.
  void step(linear_batch const& batch, double rate) {
    auto const [gw, gb] = gradients(batch);
    for (std::size_t i = 0; i < weight.size(); ++i) weight[i] -= rate * gw[i] / static_cast<double>(batch.rows);
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] -= rate * gb[i] / static_cast<double>(batch.rows);
  }
};

}  // namespace pushpull::test
