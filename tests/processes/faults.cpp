// faults <what goes wrong>: a job of which rank 1 does something wrong. CMakeLists.txt lists what has to become of the job.
#include <pushpull/comm/mpi.hpp>

#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "processes/fault.hpp"

namespace {

namespace comm = pushpull::comm;

/// Far above what the job may take.
comm::mpi_options const patient{.deadline = std::chrono::minutes(2)};
comm::mpi_options const impatient{.deadline = std::chrono::seconds(2)};

/// Exchanges `bytes` with every other rank. If that fails, MPI may go on to use the request and its memory.
void exchange(comm::mpi const& ranks, std::size_t bytes) {
  static std::vector<std::byte> sent, received;
  auto const size = static_cast<std::size_t>(ranks.size());
  sent.resize(bytes);
  received.resize(bytes * size);
  std::vector<comm::transfer> out, in;
  for (std::size_t p = 0; p < size; ++p) {
    int const peer = static_cast<int>(p);
    if (peer == ranks.rank()) continue;
    out.push_back({sent.data(), bytes, peer});
    in.push_back({received.data() + p * bytes, bytes, peer});
  }
  auto group = ranks.group();
  static std::vector<comm::mpi_request> requests;
  requests.push_back(ranks.exchange(group, out, in));
  group.end();
  requests.back().wait();
  requests.clear();
}

void killed() {
  comm::mpi const ranks(patient);
  ranks.barrier();
  if (ranks.rank() == 1) std::raise(SIGKILL);
  exchange(ranks, 1000);
}

/// The others catch the timeout; their last handle aborts the job, whatever they do then.
void stopped_in(std::function<void(comm::mpi const&)> const& call) {
  comm::mpi const ranks(impatient);
  ranks.barrier();
  if (ranks.rank() == 1) std::raise(SIGSTOP);
  try {
    call(ranks);
  } catch (pushpull::comm_timeout const& e) {
    std::fprintf(stderr, "comm_timeout for rank %d: %s\n", e.rank(), e.what());
  }
}
void stopped() {
  stopped_in([](comm::mpi const& ranks) { exchange(ranks, 1000); });
}
void stopped_before_barrier() {
  stopped_in([](comm::mpi const& ranks) { ranks.barrier(); });
}

/// The job ends with the scope of the communicator, whoever catches the exception.
void throws() {
  try {
    comm::mpi const ranks(patient);
    ranks.barrier();
    if (ranks.rank() == 1) throw std::runtime_error("no data");
    ranks.barrier();
  } catch (std::runtime_error const&) {
    std::this_thread::sleep_for(std::chrono::minutes(1));
  }
}

/// Rank 1 throws while MPI has a message of it that nobody takes, whose memory is then gone.
void throws_while_sending() {
  comm::mpi const ranks(patient);
  if (ranks.rank() == 1) {
    std::vector<std::byte> sent(10'000'000);
    comm::transfer const out{sent.data(), sent.size(), 0};
    auto group = ranks.group();
    auto const request = ranks.exchange(group, std::span(&out, 1), {});
    throw std::runtime_error("no data");
  }
  ranks.barrier();
}

void different_sizes() {
  comm::mpi const ranks(impatient);
  exchange(ranks, ranks.rank() == 1 ? 2'000'000 : 1'000'000);
}
void different_calls() {
  comm::mpi const ranks(impatient);
  if (ranks.rank() == 1)
    ranks.barrier();
  else
    exchange(ranks, 1000);
}

/// Rank 1 leaves with a handle that is never destroyed.
void fails_and_exits() {
  auto const& ranks = *new comm::mpi(patient);
  ranks.barrier();
  if (ranks.rank() == 1) {
    ranks.fail("gave up");
    std::exit(EXIT_SUCCESS);
  }
  for (;;) {
    try {
      ranks.barrier();
    } catch (pushpull::comm_error const&) {  // goes on, and does not leave
    }
  }
}

void fails_and_finalizes() {
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  comm::mpi const ranks(patient);
  if (ranks.rank() == 1) ranks.fail("gave up");
  MPI_Finalize();
}

void initialized_for_one_thread() {
  MPI_Init(nullptr, nullptr);
  comm::mpi const ranks(patient);
}

void finalized() {
  MPI_Init(nullptr, nullptr);
  MPI_Finalize();
  comm::mpi const ranks(patient);
}

void absent() {
  int rank = 0, provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 1) std::raise(SIGSTOP);
  comm::mpi const ranks(impatient);
}

}  // namespace

int main(int argc, char* argv[]) {
  return pushpull::test::run_fault(
      {
          {"killed", killed},
          {"stopped", stopped},
          {"stopped_before_barrier", stopped_before_barrier},
          {"throws", throws},
          {"throws_while_sending", throws_while_sending},
          {"different_sizes", different_sizes},
          {"different_calls", different_calls},
          {"fails_and_exits", fails_and_exits},
          {"fails_and_finalizes", fails_and_finalizes},
          {"initialized_for_one_thread", initialized_for_one_thread},
          {"finalized", finalized},
          {"absent", absent},
      },
      argc, argv);
}
