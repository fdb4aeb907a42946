// Contenders on a GPU: this library, kernels of one element per thread, Thrust, CUB, and a copy kernel.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <thrust/copy.h>
#include <thrust/for_each.h>
#include <thrust/functional.h>
#include <thrust/iterator/zip_iterator.h>
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/transform.h>
#include <thrust/tuple.h>
#include <cub/device/device_for.cuh>
#include <cub/device/device_transform.cuh>
#include <cuda/std/tuple>
#include <pushpull/pushpull.cuh>

#include "compare/contender.hpp"

namespace pushpull::bench::compare {
namespace {

using detail::cuda_check;

constexpr std::size_t most = 8;  // gradients or mirrors

/// The rules for one element and their states, as they are at one step.
struct plain_sgd {
  static constexpr int states = 0;
  float rate;
  __device__ void operator()(float& w, float g, float*) const { w -= rate * g; }
};
struct plain_momentum {
  static constexpr int states = 1;
  float rate, momentum;
  __device__ void operator()(float& w, float g, float* s) const {
    s[0] = momentum * s[0] + g;
    w -= rate * s[0];
  }
};
struct plain_adam {
  static constexpr int states = 2;
  float step_size, epsilon, decay;
  __device__ void operator()(float& w, float g, float* s) const {
    s[0] = 0.9F * s[0] + 0.1F * g;
    s[1] = 0.999F * s[1] + 0.001F * g * g;
    w = w * decay - step_size * s[0] / (sqrtf(s[1]) + epsilon);
  }
};

plain_sgd at_step(std::type_identity<update::sgd>, int) { return {1e-2F}; }
plain_momentum at_step(std::type_identity<update::momentum>, int) { return {1e-2F, 0.9F}; }
template <class Adam>
plain_adam at_step(std::type_identity<Adam>, int t) {
  double const root = std::sqrt(1 - std::pow(0.999, t));
  return {static_cast<float>(1e-3 * root / (1 - std::pow(0.9, t))), static_cast<float>(1e-8 * root),
          std::is_same_v<Adam, update::adamw> ? 1 - 1e-3F * 1e-2F : 1.0F};
}
template <class Rule>
using plain = decltype(at_step(std::type_identity<Rule>{}, 1));

/// The arrays of one tensor.
template <class T>
struct arrays {
  std::int64_t size = 0;
  std::size_t gradients = 0, mirrors = 0;
  T* gradient[most] = {};
  T* mirror[most] = {};
  float* weight = nullptr;
  float* state[2] = {};
  float* sum = nullptr;
};

/// One element's load, sum, update and stores.
template <class T, class Rule>
struct whole_step {
  arrays<T> a;
  Rule rule;
  __device__ void operator()(std::int64_t i) const {
    float g = static_cast<float>(a.gradient[0][i]);
    for (std::size_t k = 1; k < a.gradients; ++k) g += static_cast<float>(a.gradient[k][i]);
    float w = a.weight[i], s[2] = {};
    for (int k = 0; k < Rule::states; ++k) s[k] = a.state[k][i];
    rule(w, g, s);
    a.weight[i] = w;
    for (int k = 0; k < Rule::states; ++k) a.state[k][i] = s[k];
    for (std::size_t r = 0; r < a.mirrors; ++r) a.mirror[r][i] = static_cast<T>(w);
  }
};

/// Its parts, each a launch of its own.
template <class T>
struct sum_of {
  arrays<T> a;
  __device__ void operator()(std::int64_t i) const {
    float g = 0;
    for (std::size_t k = 0; k < a.gradients; ++k) g += static_cast<float>(a.gradient[k][i]);
    a.sum[i] = g;
  }
};
template <class Rule>
struct update_from {
  float const* gradient;
  float* weight;
  float* state[2];
  Rule rule;
  __device__ void operator()(std::int64_t i) const {
    float w = weight[i], s[2] = {};
    for (int k = 0; k < Rule::states; ++k) s[k] = state[k][i];
    rule(w, gradient[i], s);
    weight[i] = w;
    for (int k = 0; k < Rule::states; ++k) state[k][i] = s[k];
  }
};
template <class T>
struct copies_of {
  arrays<T> a;
  __device__ void operator()(std::int64_t i) const {
    for (std::size_t r = 0; r < a.mirrors; ++r) a.mirror[r][i] = static_cast<T>(a.weight[i]);
  }
};

template <class F>
__global__ void one_per_thread(std::int64_t size, F f) {
  std::int64_t const i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) f(i);
}
template <class F>
void launch(std::int64_t size, F const& f) {
  constexpr unsigned threads = 256;
  one_per_thread<<<static_cast<unsigned>((size + threads - 1) / threads), threads>>>(size, f);
  cuda_check(cudaGetLastError(), "launch");
}

/// One device for all arrays: every device made anew has a stream of its own.
cuda_device const& first_device() {
  static cuda_device const device(0);
  return device;
}

template <class T>
std::vector<float> read(T const* from, std::size_t size) {
  std::vector<T> values(size);
  cuda_check(cudaMemcpy(values.data(), from, size * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
  std::vector<float> result(size);
  for (std::size_t i = 0; i < size; ++i) result[i] = convert<float>(values[i]);
  return result;
}

/// The task's tensors on the GPU, as a user has them.
template <class T>
class device_arrays {
 public:
  device_arrays(task const& t, int states) {
    if (t.gradients > most || t.mirrors > most) throw unsupported("more than 8 gradients or mirrors");
    for (auto const size : t.sizes) {
      auto& a = arrays_.emplace_back();
      a.size = size;
      a.gradients = t.gradients;
      a.mirrors = t.mirrors;
      std::vector<T> values(static_cast<std::size_t>(size));
      for (std::size_t k = 0; k < t.gradients; ++k) {
        fill_gradient(values.data(), k, size);
        copy(values, elements_.emplace_back(first_device(), shape{size}));
        a.gradient[k] = elements_.back().data();
      }
      for (std::size_t r = 0; r < t.mirrors; ++r)
        a.mirror[r] = elements_.emplace_back(first_device(), shape{size}).data();
      std::vector<float> weights(static_cast<std::size_t>(size));
      fill_weight(weights.data(), size);
      copy(weights, floats_.emplace_back(first_device(), shape{size}));
      a.weight = floats_.back().data();
      for (int s = 0; s < states; ++s) a.state[s] = floats_.emplace_back(first_device(), shape{size}).data();
      if (t.gradients > 1 || !std::is_same_v<T, float>)
        a.sum = floats_.emplace_back(first_device(), shape{size}).data();
    }
    cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  std::vector<arrays<T>> const& get() const { return arrays_; }
  std::vector<float> result(std::size_t j) const {
    auto const& a = arrays_[j];
    auto const size = static_cast<std::size_t>(a.size);
    return a.mirrors == 0 ? read(a.weight, size) : read(a.mirror[a.mirrors - 1], size);
  }

 private:
  std::vector<tensor<T, cuda_device>> elements_;
  std::vector<tensor<float, cuda_device>> floats_;
  std::vector<arrays<T>> arrays_;
};

class gpu_contender : public contender {
 public:
  void finish() override { cuda_check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }
};

template <class T>
struct add {
  __device__ float operator()(float x, T y) const { return x + static_cast<float>(y); }
};
template <class From, class To>
struct to {
  __device__ To operator()(From x) const { return static_cast<To>(x); }
};

enum class form { one_kernel, three_kernels, thrust, cub };

template <class T, class Rule>
class plain_step final : public gpu_contender {
  using rule_type = plain<Rule>;

 public:
  plain_step(task const& t, form how) : how_(how), arrays_(t, rule_type::states) {}

  void step() override {
    rule_type const rule = at_step(std::type_identity<Rule>{}, ++t_);
    for (auto const& a : arrays_.get()) {
      if (how_ == form::one_kernel) {
        launch(a.size, whole_step<T, rule_type>{a, rule});
        continue;
      }
      float const* const gradient = sum(a);
      update_from<rule_type> const update{gradient, a.weight, {a.state[0], a.state[1]}, rule};
      if (how_ == form::thrust) {
        thrust::for_each_n(policy(), thrust::make_counting_iterator<std::int64_t>(0), a.size, update);
      } else if (how_ == form::cub) {
        cuda_check(cub::DeviceFor::Bulk(a.size, update), "cub::DeviceFor::Bulk");
      } else {
        launch(a.size, update);
      }
      copy(a);
    }
  }

  std::vector<float> result(std::size_t j) override { return arrays_.result(j); }

 private:
  static auto policy() { return thrust::cuda::par_nosync; }

  float const* sum(arrays<T> const& a) const {
    if (a.sum == nullptr) {
      if constexpr (std::is_same_v<T, float>) return a.gradient[0];
    }
    if (how_ == form::three_kernels) {
      launch(a.size, sum_of<T>{a});
      return a.sum;
    }
    transform(a.gradient[0], a.sum, a.size, to<T, float>{});
    for (std::size_t k = 1; k < a.gradients; ++k) {
      if (how_ == form::thrust) {
        thrust::transform(policy(), a.sum, a.sum + a.size, a.gradient[k], a.sum, add<T>{});
      } else {
        cuda_check(
            cub::DeviceTransform::Transform(cuda::std::make_tuple(a.sum, a.gradient[k]), a.sum, a.size, add<T>{}),
            "cub::DeviceTransform::Transform");
      }
    }
    return a.sum;
  }

  void copy(arrays<T> const& a) const {
    if (a.mirrors == 0) return;
    if (how_ == form::three_kernels) return launch(a.size, copies_of<T>{a});
    for (std::size_t r = 0; r < a.mirrors; ++r) transform(a.weight, a.mirror[r], a.size, to<float, T>{});
  }

  template <class From, class To, class F>
  void transform(From* from, To* into, std::int64_t size, F f) const {
    if (how_ == form::thrust) {
      thrust::transform(policy(), from, from + size, into, f);
    } else {
      cuda_check(cub::DeviceTransform::Transform(from, into, size, f), "cub::DeviceTransform::Transform");
    }
  }

  form how_;
  int t_ = 0;
  device_arrays<T> arrays_;
};

/// A copy that moves as many bytes as the task, 16 per access: a bound on what memory allows, and no step.
class copy_kernel final : public gpu_contender {
 public:
  explicit copy_kernel(task const& t)
      : size_(t.moved_bytes() / 32), from_(first_device(), shape{4 * size_}), to_(first_device(), shape{4 * size_}) {}

  struct copy {
    float4 const* from;
    float4* to;
    __device__ void operator()(std::int64_t i) const { to[i] = from[i]; }
  };
  void step() override {
    launch(size_, copy{reinterpret_cast<float4 const*>(from_.data()), reinterpret_cast<float4*>(to_.data())});
  }
  std::vector<float> result(std::size_t) override { return {}; }
  double bytes() const override { return 32 * static_cast<double>(size_); }

 private:
  std::int64_t size_;
  tensor<float, cuda_device> from_, to_;
};

template <class T>
using element_policy = std::conditional_t<std::is_same_v<T, float>, element::uniform, element::master<float>>;

/// kv_store::pushpull of a list of keys.
template <class T, class Rule>
class kv_store_step final : public gpu_contender {
 public:
  kv_store_step(task const& t, Rule const& rule)
      : keys_(t.sizes.size()),
        store_({first_device()}, rule, element_policy<T>{}, integer_keys{}),
        arrays_(t, 0),
        gradients_(keys_.size()),
        outputs_(keys_.size()) {
    std::iota(keys_.begin(), keys_.end(), 0);
    std::vector<tensor_view<float, cuda_device>> initial;
    for (std::size_t j = 0; j < keys_.size(); ++j) {
      auto const& a = arrays_.get()[j];
      shape const size{a.size};
      initial.emplace_back(a.weight, size, first_device());
      for (std::size_t k = 0; k < t.gradients; ++k) gradients_[j].emplace_back(a.gradient[k], size, first_device());
      for (std::size_t r = 0; r < t.mirrors; ++r) outputs_[j].emplace_back(a.mirror[r], size, first_device());
    }
    store_.init(keys_, initial);
  }

  void step() override { store_.pushpull(keys_, gradients_, outputs_); }
  void finish() override { store_.wait(); }
  std::vector<float> result(std::size_t j) override { return arrays_.result(j); }

 private:
  std::vector<std::int64_t> keys_;
  kv_store<T, cuda_device, Rule, element_policy<T>, integer_keys> store_;
  device_arrays<T> arrays_;
  std::vector<std::vector<tensor_view<T, cuda_device>>> gradients_, outputs_;
};

/// parameter_store on one device: its mirrors are the weights.
template <class Rule>
class parameter_store_step final : public gpu_contender {
 public:
  parameter_store_step(task const& t, Rule const& rule) : store_({first_device()}, rule), parameters_(store_) {
    for (std::size_t j = 0; j < t.sizes.size(); ++j) {
      std::vector<float> initial(static_cast<std::size_t>(t.sizes[j]));
      fill_weight(initial.data(), t.sizes[j]);
      parameters_.add(std::to_string(j), std::move(initial));
    }
    for (std::size_t j = 0; j < t.sizes.size(); ++j) {
      std::vector<float> values(static_cast<std::size_t>(t.sizes[j]));
      fill_gradient(values.data(), 0, t.sizes[j]);
      copy(values, parameters_.grad(std::to_string(j), 0));
    }
  }

  void step() override { parameters_.update_all(); }
  void finish() override {
    store_.wait();
    gpu_contender::finish();
  }
  std::vector<float> result(std::size_t j) override {
    auto const view = parameters_.value(std::to_string(j), 0);
    return read(view.data(), view.size());
  }

 private:
  kv_store<float, cuda_device, Rule> store_;
  parameter_store<kv_store<float, cuda_device, Rule>> parameters_;
};

std::unique_ptr<contender> ours(task const& t, int) {
  t.expect_step();
  if (t.element == "float" && t.gradients == 1 && t.mirrors == 0)
    return with_rule(t, [&]<class Rule>(Rule const& rule) -> std::unique_ptr<contender> {
      return std::make_unique<parameter_store_step<Rule>>(t, rule);
    });
  if (t.mirrors == 0) throw unsupported("several gradients and no mirror are not among the cases");
  return with_types(t, [&]<class T, class Rule>(T, Rule const& rule) -> std::unique_ptr<contender> {
    return std::make_unique<kv_store_step<T, Rule>>(t, rule);
  });
}

std::unique_ptr<contender> plainly(task const& t, form how) {
  t.expect_step();
  return with_types(t, [&]<class T, class Rule>(T, Rule const&) -> std::unique_ptr<contender> {
    return std::make_unique<plain_step<T, Rule>>(t, how);
  });
}

}  // namespace

std::vector<entry> contenders() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return {};
  auto const entry_of = [](char const* name, form how) {
    return entry{name, [how](task const& t, int) { return plainly(t, how); }};
  };
  return {{"ours", ours},
          entry_of("one element per thread", form::one_kernel),
          entry_of("three kernels", form::three_kernels),
          entry_of("Thrust algorithms", form::thrust),
          entry_of("CUB", form::cub),
          {"copy kernel", [](task const& t, int) -> std::unique_ptr<contender> {
             t.expect_step();
             return std::make_unique<copy_kernel>(t);
           }}};
}

}  // namespace pushpull::bench::compare
