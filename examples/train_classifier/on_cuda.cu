#include "on_cuda.hpp"

#include <cuda_runtime_api.h>

#include <pushpull/pushpull.cuh>
#include <string>
#include <vector>

#include "input_error.hpp"
#include "program.hpp"

namespace train_classifier {

namespace {

/// Why CUDA lists no GPU. Where there is no driver, its own words would blame the driver's version.
std::string what_is_missing() {
  int driver = 0, gpus = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));  // 0 without a driver
  auto const counted = cudaGetDeviceCount(&gpus);
  return driver == 0 ? "no NVIDIA driver is installed" : cudaGetErrorString(counted);
}

/// `count` devices, dealt out over all GPUs in turn. Those that share a GPU are distinct: each has a stream of its own.
std::vector<pushpull::cuda_device> cuda_devices(int count) {
  auto const gpus = static_cast<int>(pushpull::cuda_devices().size());
  if (gpus == 0) throw input_error{"--device: cuda found no GPU: " + what_is_missing()};
  std::vector<pushpull::cuda_device> devices;
  for (int k = 0; k < count; ++k) devices.emplace_back(k % gpus);
  return devices;
}

}  // namespace

void run_on_cuda(options const& chosen) { train_and_test(chosen, cuda_devices(chosen.devices), alone); }

}  // namespace train_classifier
