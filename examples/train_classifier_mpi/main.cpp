/// @file
/// As train_classifier on CPUs, over the processes that mpirun has started: each has its devices, and they train in step.
#include <iostream>
#include <pushpull/comm/mpi.hpp>
#include <pushpull/launch/environment.hpp>
#include <pushpull/pushpull.hpp>

#include "train_classifier/input_error.hpp"
#include "train_classifier/options.hpp"
#include "train_classifier/program.hpp"

int main(int argc, char** argv) {
  using namespace train_classifier;
  auto const place = pushpull::launch::environment();
  if (place.rank > 0) std::cout.setstate(std::ios::badbit);  // rank 0 prints
  options defaults;
  defaults.devices = 1;
  defaults.ranks = place.ranks;
  auto const with_devices = [](options const& chosen, auto use) {
    if (chosen.device == device_kind::cuda) throw input_error{"--device: processes over MPI train on cpu"};
    use(pushpull::cpu_devices(chosen.devices), [] { return pushpull::comm::mpi{}; });
  };
  return program(argc, argv, with_devices, defaults);
}
