/// @file
/// The devices of tests on GPUs.
#pragma once

#include <cstdio>
#include <vector>

#include <pushpull/device/cuda_device.cuh>

namespace pushpull::test {

/// `count` logical devices, dealt out over the machine's GPUs in turn; none, and a line that says so, where there is no
/// GPU. Each has a stream of its own.
inline std::vector<cuda_device> logical_devices(int count = 3) {
  auto const gpus = static_cast<int>(cuda_devices().size());
  if (gpus == 0) std::puts("skipped: no CUDA device");
  std::vector<cuda_device> devices;
  for (int k = 0; k < count && gpus > 0; ++k) devices.emplace_back(k % gpus);
  return devices;
}

}  // namespace pushpull::test
