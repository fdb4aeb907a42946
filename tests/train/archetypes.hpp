/// @file
/// The least executor and factory that model their concepts, and the same with one thing less.
#pragma once

#include <array>
#include <cstddef>
#include <pushpull/train/executor_factory.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace pushpull::test::archetype {

/// One parameter, one input, one output; neither copied nor moved.
struct executor {
  using device_type = cpu_device<>;
  using view = tensor_view<float>;

  explicit executor(view const& input, train::replica_memory<float, device_type> const& memory)
      : one{input}, param{memory.params[0]}, grad{memory.grads[0]} {}
  executor(executor const&) = delete;

  device_type device() const { return one[0].device(); }
  std::array<view, 1>& inputs() { return one; }
  std::span<view const> labels() { return {}; }
  std::array<view, 1> outputs() { return one; }
  std::array<view, 1>& params() { return param; }
  std::array<view, 1>& grads() { return grad; }
  std::vector<view> aux() { return {}; }
  void forward(train::mode) {}
  void backward(std::span<tensor_view<float const, device_type> const>) {}

  std::array<view, 1> one, param, grad;
};

struct model_spec {
  std::array<char const*, 1> param_names() const { return {"w"}; }
  std::array<std::string_view, 0> aux_names() const { return {}; }
  std::array<std::string_view, 1> output_names() const { return {"y"}; }
  long output_axis(std::size_t) const { return 0; }
  train::inferred_shapes infer_shapes(train::input_descriptors const&) const { return {{shape{2}}, {}}; }
};

struct executor_factory : model_spec {
  using executor_type = executor;
  executor make(cpu_device<> const&, train::input_descriptors const& descs, train::replica_requests const&,
                train::buffer_pool<cpu_device<>>& pool, train::replica_memory<float, cpu_device<>> const& memory) {
    return executor(pool.acquire<float>(descs.data[0].name, descs.data[0].shape), memory);
  }
};

// Each lacks one thing.
struct no_forward : executor {
  void forward(train::mode) = delete;
};
struct no_backward : executor {
  void backward(std::span<tensor_view<float const, device_type> const>) = delete;
};
struct no_grads : executor {
  void grads() = delete;
};
struct outputs_in_no_order : executor {
  int outputs() { return 0; }
};
struct params_elsewhere : executor {
  std::vector<tensor_view<float, cpu_device<serial_system>>> params() { return {}; }
};
struct no_device : executor {
  void device() const {}
};
struct no_shapes : executor_factory {
  void infer_shapes() const;
};
struct no_axis : executor_factory {
  void output_axis(std::size_t) const {}
};
struct unnamed : executor_factory {
  std::array<int, 1> param_names() const { return {}; }
};
struct makes_another : executor_factory {
  using executor_type = no_forward;
};

// Each adds one refinement.
struct reshapable : executor {
  void reshape(train::input_descriptors const&) {}
};
struct hooked : executor {
  void on_grad_ready(auto const&) {}
};
struct waiting : hooked {
  void on_param_needed(auto const&) {}
};
struct with_input_grads : executor {
  std::array<view, 1> input_grads() { return one; }
};
struct stateful : executor {
  std::array<view, 1> states() { return one; }
};
struct monitored : executor {
  void tap(auto const&) {}
};

}  // namespace pushpull::test::archetype
