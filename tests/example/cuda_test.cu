/// @file
/// The built example on GPUs, of which it finds what this program finds. Without a GPU and without the emulator it is
/// skipped.
#include <cstdio>
#include <pushpull/device/cuda_device.cuh>
#include <string>

#include "example/program.hpp"
#include "support/catch.hpp"

using namespace pushpull::test;

TEST_CASE("devices on GPUs find the weights that a CPU finds", "[cuda][train_classifier]") {
  if (pushpull::cuda_devices().empty()) {
    std::puts("skipped: no CUDA device");
    return;
  }
  for (std::string const updater : {"sgd", "momentum", "adam", "adamw"}) {
    auto const expected = trained_weights("--epochs 1 --devices 1 --updater " + updater);
    for (std::string const devices : {"1", "2", "3", "4"}) {
      INFO(devices << " devices, " << updater);
      auto const weights = trained_weights("--epochs 1 --device cuda --devices " + devices + " --updater " + updater);
      CHECK(relative_difference(weights, expected) <= 1e-4F);
    }
  }
}
