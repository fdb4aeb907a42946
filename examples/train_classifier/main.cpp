/// @file
/// Trains a small classifier: one process, several logical devices, one parameter store.
#include <pushpull/pushpull.hpp>

#include "on_cuda.hpp"
#include "options.hpp"
#include "program.hpp"

int main(int argc, char** argv) {
  using namespace train_classifier;
  return program(argc, argv, [](options const& chosen, auto use) {
    if (chosen.device == device_kind::cuda) return run_on_cuda(chosen);
    use(pushpull::cpu_devices(chosen.devices), alone);
  });
}
