/// @file
/// Metrics of tensors on GPUs, which have the values of the same tensors on a CPU.
#include <cstddef>
#include <cstdint>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/pass/copy.hpp>
#include <pushpull/train/metrics/classification.hpp>
#include <pushpull/train/metrics/composite.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <random>
#include <span>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"

using namespace pushpull;
using namespace pushpull::train;

namespace {

template <class D>
auto all_of_classes() {
  return metrics::composite{metrics::accuracy<D>{}, metrics::top_k<D>{2},        metrics::f1<D>{},
                            metrics::mcc<D>{},      metrics::cross_entropy<D>{}, metrics::perplexity<D>{}};
}
template <class D>
auto all_of_elements() {
  return metrics::composite{metrics::mae<D>{}, metrics::rmse<D>{}, metrics::loss<D>{}};
}

void check_equal(std::vector<metric_value> const& found, std::vector<metric_value> const& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    INFO(found[i].name);
    CHECK(found[i].value == Approx(expected[i].value).epsilon(1e-12));
  }
}

}  // namespace

TEST_CASE("C13: metrics on GPUs equal those on a CPU, over several devices, with padding", "[cuda][train][metrics]") {
  auto const devices = test::logical_devices(2);
  if (devices.empty()) return;
  std::mt19937 random(7);
  std::uniform_real_distribution<float> any(0.01F, 1);
  auto on_gpu = all_of_classes<cuda_device>();
  auto on_cpu = all_of_classes<cpu_device<>>();
  auto elements_on_gpu = all_of_elements<cuda_device>();
  auto elements_on_cpu = all_of_elements<cpu_device<>>();
  for (std::int64_t const rows : {1, 7, 300, 513}) {
    for (auto const& device : devices) {
      std::vector<float> outputs(static_cast<std::size_t>(3 * rows)), truth(outputs.size());
      std::vector<std::int32_t> labels;
      for (std::size_t i = 0; i < outputs.size(); ++i) outputs[i] = any(random), truth[i] = any(random);
      for (std::int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<std::int32_t>(random() % 3));
      shape const of_outputs{rows, 3}, of_labels{rows};
      counted_rows const counted{rows - rows / 5};
      auto const update = [&](auto& classes, auto& elements, auto const& out, auto const& label, auto const& target) {
        classes.update(std::span(&label, 1), std::span(&out, 1), counted);
        elements.update(std::span(&target, 1), std::span(&out, 1), counted);
      };
      tensor_view const host_outputs(outputs.data(), of_outputs), host_truth(truth.data(), of_outputs);
      tensor_view const host_labels(labels.data(), of_labels);
      update(on_cpu, elements_on_cpu, host_outputs, host_labels, host_truth);
      tensor<float, cuda_device> gpu_outputs(device, of_outputs), gpu_truth(device, of_outputs);
      tensor<std::int32_t, cuda_device> gpu_labels(device, of_labels);
      copy(host_outputs, gpu_outputs);
      copy(host_truth, gpu_truth);
      copy(host_labels, gpu_labels);
      update(on_gpu, elements_on_gpu, gpu_outputs.view(), gpu_labels.view(), gpu_truth.view());
      device.synchronize();
    }
    check_equal(on_gpu.values(), on_cpu.values());
    check_equal(elements_on_gpu.values(), elements_on_cpu.values());
    on_gpu.reset_local();
    on_cpu.reset_local();
  }
  check_equal(on_gpu.global_values(), on_cpu.global_values());
}
