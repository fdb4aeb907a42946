// store_faults <what goes wrong>: a job that trains, and whose rank 1 does something wrong amid the steps. CMakeLists.txt
// lists what has to become of the job.
#include <pushpull/comm/mpi.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "processes/fault.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;

/// Far above what the job may take.
comm::mpi_options const patient{.deadline = std::chrono::minutes(2)};
comm::mpi_options const impatient{.deadline = std::chrono::seconds(2)};

/// Steps without end. Rank 1 calls f before one of them.
template <class F>
void train(comm::mpi const& ranks, F const& f) {
  pp::kv_store store{pp::cpu_devices(1), pp::update::momentum{.learning_rate = 0.1}, ranks};
  std::vector<float> const gradient(100'000, 1.0F);
  store.init("a", gradient);
  for (int step = 0;; ++step) {
    if (step == 20 && ranks.rank() == 1) f();
    store.push("a", gradient).wait();
  }
}

void killed() {
  train(comm::mpi(patient), [] { std::raise(SIGKILL); });
}

/// MPI may go on to read the gradients of a push, so the first of the others that waited in vain aborts the job.
void stopped() {
  train(comm::mpi(impatient), [] { std::raise(SIGSTOP); });
}
/// No message reads resident gradients of ranks on one node: the others catch the timeout, then their last handles abort
/// the job.
void stopped_amid_parameters() {
  comm::mpi const ranks(impatient);
  pp::kv_store store{pp::cpu_devices(1), pp::update::momentum{.learning_rate = 0.1}, ranks};
  pp::parameter_store parameters{store};
  parameters.add("a", std::vector<float>(100'000, 1.0F));
  parameters.materialize();
  try {
    for (int step = 0;; ++step) {
      if (step == 20 && ranks.rank() == 1) std::raise(SIGSTOP);
      parameters.update_all();
    }
  } catch (pp::comm_timeout const& e) {
    std::fprintf(stderr, "comm_timeout for rank %d: %s\n", e.rank(), e.what());
  }
}

void throws() {
  train(comm::mpi(patient), [] { throw std::runtime_error("no data"); });
}

/// An exception that is caught before the communicator goes says what happened.
void throws_and_tells() {
  comm::mpi const ranks(patient);
  try {
    train(ranks, [] { throw std::runtime_error("no data"); });
  } catch (std::exception const& e) {
    ranks.fail(e.what());
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  return pp::test::run_fault(
      {
          {"killed", killed},
          {"stopped", stopped},
          {"stopped_amid_parameters", stopped_amid_parameters},
          {"throws", throws},
          {"throws_and_tells", throws_and_tells},
      },
      argc, argv);
}
