/// @file
/// Graphs, and the captures of streams that make them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/stream.hpp"

namespace emulator {

/// One thing that a graph does, after the nodes that it names: all of them stand before it.
struct graph_node {
  std::string what;
  enqueued run;
  std::uint32_t lane = 0;  // the stream that captured it: its nodes follow one another
  std::set<std::size_t> after;
};

struct graph {
  std::vector<graph_node> nodes;
};

/// A capture, from its begin in one stream to its end there.
struct capture {
  unsigned long long id = 0;
  stream* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  bool valid = true, ended = false;
  std::shared_ptr<graph> captured = std::make_shared<graph>();
  std::map<stream*, bool> streams;  // that take part; whether another one has waited for them since they came

  void add(stream& s, std::string what, enqueued run);
  /// Reports what was done, and is not allowed meanwhile.
  void invalidate(std::string const& why);
};

/// The error of a call that waits or asks for what a stream does, if the stream is being captured. The capture is void then.
cudaError_t refuse_while_captured(stream& s, char const* call);
/// The error of a call that is unsafe while the calling thread, or another one, captures: see
/// cudaThreadExchangeStreamCaptureMode. The captures are void then.
cudaError_t refuse_unsafe(char const* call);

}  // namespace emulator
