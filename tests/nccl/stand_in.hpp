/// @file
/// A stand-in for libnccl: ranks are threads, and what NCCL would do on streams are copies by CUDA's runtime, which the PTX
/// emulator may be. It records all calls, refuses wrong ones, and fails where a test asks for it. It says nothing of speed.
#pragma once

#include <nccl.h>

#include <cstddef>
#include <string>
#include <vector>

namespace pushpull::test::stand_in {

struct call {
  std::string name;
  int rank = 0, peer = -1;  ///< peer: also the root
  std::size_t bytes = 0;
};

/// How many ranks a test may have: with NCCL itself in the place of the stand-in as many as there are GPUs, or as
/// NCCL_MULTI_RANK_GPU_ENABLE allows. Then nothing is recorded, and tests that ask for faults have the tag [faults].
int most_ranks();

/// Forgets calls, refusals and faults. No communicator may be left.
void reset();
/// Of a rank, in its order, since `reset`.
std::vector<call> calls_of(int rank);
/// Misuse that was answered by an error: wrong orders, sizes, groups.
std::vector<std::string> refusals();
/// Neither destroyed nor aborted.
int live_communicators();
/// Aborts that have begun.
int aborts();

/// Initialisation takes as many questions, or never ends.
void slow_initialisation(int polls);
constexpr int never = 1 << 30;
/// The next call `name` of a rank returns `result`.
void fail_call(std::string const& name, int rank, ncclResult_t result);
/// A rank's communicator has an asynchronous error from now on.
void fail_asynchronously(int rank, ncclResult_t result);
/// What a rank submits is not carried out.
void silence(int rank);
/// So many ranks that follow one another reach each other's memory; until `reset` all do.
/// @param in_larger  Also if the communicator has more ranks.
void reach(int ranks, bool in_larger = true);
/// Allocations of ncclMemAlloc that are not freed.
std::size_t live_windows();
/// Whether aborts hang. False lets go of those that do.
void hang_aborts(bool hang);

}  // namespace pushpull::test::stand_in
