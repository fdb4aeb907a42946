/// @file
/// Trains a small classifier on the CPU: one process, several logical devices, one parameter store.
#include <pushpull/pushpull.hpp>

#include "input_error.hpp"
#include "options.hpp"
#include "program.hpp"

int main(int argc, char** argv) {
  using namespace train_classifier;
  return program(argc, argv, [](options const& chosen, auto use) {
    if (chosen.device == device_kind::cuda) throw input_error{"--device: cuda needs a build of pushpull with CUDA"};
    use(pushpull::cpu_devices(chosen.devices), alone);
  });
}
