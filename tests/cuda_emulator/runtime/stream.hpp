/// @file
/// Streams: what they were asked for, and how far they are.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime/operations.hpp"

namespace emulator {

struct stream;
struct capture;

/// What an event stands for since it was recorded last.
struct recorded_point {
  bool done = true;
  stream* of = nullptr;
  vector_clock clock;
  std::shared_ptr<capture> in = {};  // of a stream that was being captured: the nodes before it
  std::set<std::size_t> nodes = {};
};

/// What an operation does, given its number among all operations.
using enqueued = std::function<void(std::uint32_t operation)>;

/// One thing that a stream does: run something, wait for a point, or reach one.
struct work {
  std::function<void()> run = {};
  std::shared_ptr<recorded_point> wait = {}, reached = {};
};

struct stream {
  std::uint32_t number = 0;
  int device = 0;
  bool blocking = true;  // the legacy stream waits for it, and it for the legacy stream
  std::uint32_t sequence = 0;
  vector_clock clock;
  std::deque<work> queue;
  std::shared_ptr<capture> in = {};  // while it is being captured
  std::set<std::size_t> tail = {};   // the nodes that the next one comes after

  /// Starts an operation and runs it in order, or captures it. @returns  The capture's error
  cudaError_t enqueue(std::string what, enqueued run);
  /// Without a seed work runs at once. Otherwise streams lag: some of them go on for a while.
  void push(work w);
  void execute_next();
  /// Runs what is in the queue, or what is before a point.
  void drain(recorded_point const* until = nullptr);
  /// A new operation, after what the stream and the host have waited for: its number.
  std::uint32_t start_operation(std::string what);
  /// The host waits.
  void finish();
};

stream& legacy_stream();
/// @returns the stream of a handle; a handle of none ends the program
stream& stream_of(cudaStream_t handle);
stream& make_stream(bool blocking, int device);
void end_stream(stream& s);
/// Every one that was made and has not ended.
std::vector<stream*> live_streams();
void finish_all_streams();

/// What the host has waited for.
vector_clock& host_clock();

/// What the runtime's functions do in random order, by the seed.
bool toss();

/// Held by each function of the runtime.
std::unique_lock<std::recursive_mutex> lock_runtime();

/// The device of the calling thread.
int& current_device();
/// A kernel failed: every later call returns this, as on a GPU.
cudaError_t& sticky_error();
/// Remembers an error for cudaGetLastError, and returns it.
cudaError_t failed(cudaError_t e);
cudaError_t& last_error();

}  // namespace emulator
