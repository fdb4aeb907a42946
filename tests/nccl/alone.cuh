/// @file
/// The communicator of a store of one process, which stores of ranks are compared with.
#pragma once

#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/single.hpp>
#include <pushpull/device/cuda_device.cuh>

#include <chrono>
#include <concepts>
#include <vector>

namespace pushpull::test {

/// comm::single, or one rank of comm::nccl: then a store of one process is of the type that stores of ranks have, and is compiled
/// once with them.
template <class C>
C alone(std::vector<cuda_device> const& devices) {
  if constexpr (std::same_as<C, comm::single>)
    return {};
  else
    return C(devices, comm::single{}, {.deadline = std::chrono::minutes(1)});
}

}  // namespace pushpull::test
