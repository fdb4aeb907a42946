/// @file
/// As train_classifier on CPUs, over the processes that mpirun has started: each has its devices, and they train in step.
#include <pushpull/comm/mpi.hpp>
#include <pushpull/launch/environment.hpp>
#include <pushpull/pushpull.hpp>

#include "train_classifier/input_error.hpp"
#include "train_classifier/options.hpp"
#include "train_classifier/program.hpp"

int main(int argc, char** argv) {
  using namespace train_classifier;
  options defaults;
  defaults.devices = 1;
  defaults.ranks = pushpull::launch::environment().ranks;
  auto const with_devices = [](options const& chosen, auto use) {
    if (chosen.device == device_kind::cuda) throw input_error{"--device: processes over MPI train on cpu"};
    use(pushpull::cpu_devices(chosen.devices), [] { return pushpull::comm::mpi{}; });
  };
  return program(argc, argv, with_devices, defaults);
}
