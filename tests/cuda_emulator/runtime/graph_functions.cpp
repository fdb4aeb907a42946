// CUDA's functions of captures and graphs.
#include "runtime/graph.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "report.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

/// A graph that can be launched. Each stream that was captured has one of its own, in which its nodes follow one another.
struct executable {
  std::shared_ptr<graph> of;
  std::map<std::uint32_t, stream*> lanes = {};
  std::shared_ptr<recorded_point> last = std::make_shared<recorded_point>();
};

/// Handles are addresses. A graph that was destroyed lives on in what was made of it.
std::map<graph*, std::shared_ptr<graph>>& graphs() {
  static auto& never_ends = *new std::map<graph*, std::shared_ptr<graph>>;  // programs release memory at exit
  return never_ends;
}
std::map<executable*, std::shared_ptr<executable>>& executables() {
  static auto& never_ends = *new std::map<executable*, std::shared_ptr<executable>>;
  return never_ends;
}
std::vector<std::weak_ptr<capture>>& captures() {
  static auto& never_ends = *new std::vector<std::weak_ptr<capture>>;
  return never_ends;
}

template <class Handles, class Handle>
auto find(Handles const& handles, Handle handle, char const* what) {
  auto const found = handles.find(reinterpret_cast<typename Handles::key_type>(handle));
  if (found == handles.end()) {
    report(std::string(what) + " that does not exist");
    return typename Handles::mapped_type();
  }
  return found->second;
}

cudaStreamCaptureMode& mode_of_thread() {
  thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  return mode;
}

/// The nodes before some, and these.
std::set<std::size_t> with_all_before(graph const& g, std::set<std::size_t> found) {
  std::vector<std::size_t> open(found.begin(), found.end());
  while (!open.empty()) {
    std::size_t const n = open.back();
    open.pop_back();
    for (std::size_t const before : g.nodes[n].after)
      if (found.insert(before).second) open.push_back(before);
  }
  return found;
}

/// Whether all that was captured comes before the end of its first stream.
bool is_joined(capture const& c) {
  if (with_all_before(*c.captured, c.origin->tail).size() != c.captured->nodes.size()) return false;
  return std::all_of(c.streams.begin(), c.streams.end(),
                     [&](auto const& s) { return s.first == c.origin || s.second; });
}

/// Numbers the nodes as operations of one launch, and runs them in an order that the graph permits.
void launch(executable& e, stream& s) {
  std::vector<graph_node> const& nodes = e.of->nodes;
  vector_clock start = s.clock;
  join(start, e.last->clock);
  vector_clock end = start;
  std::vector<std::uint32_t> operations;
  std::vector<vector_clock> clocks;
  for (graph_node const& node : nodes) {
    stream*& lane = e.lanes[node.lane];
    if (lane == nullptr) {
      lane = &make_stream(false, 0);
      end_stream(*lane);  // nothing but its number is needed
    }
    vector_clock clock = start;
    for (std::size_t const before : node.after) join(clock, clocks[before]);
    if (clock.size() <= lane->number) clock.resize(lane->number + 1);
    clock[lane->number] = ++lane->sequence;
    operations.push_back(add_operation(lane->number, lane->sequence, "node of a graph: " + node.what, clock));
    join(end, clock);
    clocks.push_back(std::move(clock));
  }
  if (!e.last->done) s.push({.wait = e.last});  // launches of one graph follow one another
  s.push({.run = [of = e.of, operations] {
    std::vector<bool> done(of->nodes.size());
    for (std::size_t left = done.size(); left > 0;) {
      for (std::size_t n = 0; n < done.size(); ++n) {
        graph_node const& node = of->nodes[n];
        bool const may_run = !done[n] && std::all_of(node.after.begin(), node.after.end(),
                                                     [&](std::size_t before) { return done[before]; });
        if (!may_run || (setting().shuffled() && toss())) continue;
        node.run(operations[n]);
        done[n] = true;
        --left;
      }
    }
  }});
  join(s.clock, end);
  e.last = std::make_shared<recorded_point>(recorded_point{false, &s, s.clock});
  s.push({.reached = e.last});
}

}  // namespace

void capture::add(stream& s, std::string what, enqueued run) {
  captured->nodes.push_back({std::move(what), std::move(run), s.number, s.tail});
  s.tail = {captured->nodes.size() - 1};
}

void capture::invalidate(std::string const& why) {
  valid = false;
  report("not allowed while a stream is captured: " + why);
}

cudaError_t refuse_while_captured(stream& s, char const* call) {
  if (s.in) {
    s.in->invalidate(std::string(call) + " of a captured stream");
    return cudaErrorStreamCaptureUnsupported;
  }
  return refuse_unsafe(call);
}

cudaError_t refuse_unsafe(char const* call) {
  if (mode_of_thread() == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t result = cudaSuccess;
  std::erase_if(captures(), [](auto const& c) { return c.expired() || c.lock()->ended; });
  for (auto const& weak : captures()) {
    auto const c = weak.lock();
    bool const own = c->thread == std::this_thread::get_id() && c->mode != cudaStreamCaptureModeRelaxed;
    bool const global = mode_of_thread() == cudaStreamCaptureModeGlobal && c->mode == cudaStreamCaptureModeGlobal;
    if (!own && !global) continue;
    c->invalidate(call);
    result = cudaErrorStreamCaptureUnsupported;
  }
  return result;
}

}  // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  if (&s == &legacy_stream()) {
    report("a capture of the legacy stream");
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  if (s.in) {
    report("a capture of a stream that is being captured");
    return failed(cudaErrorIllegalState);
  }
  static unsigned long long last_id = 0;
  s.in = std::make_shared<capture>();
  s.in->id = ++last_id;
  s.in->origin = &s;
  s.in->mode = mode;
  s.in->thread = std::this_thread::get_id();
  s.in->streams[&s] = true;
  captures().push_back(s.in);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  auto const lock = lock_runtime();
  *out = nullptr;
  stream& s = stream_of(handle);
  auto const c = s.in;
  if (!c) {
    report("the end of a capture of a stream that is not being captured");
    return failed(cudaErrorIllegalState);
  }
  if (c->origin != &s) {
    c->invalidate("the end of a capture in another stream than the first");
    return failed(cudaErrorStreamCaptureUnmatched);
  }
  if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id()) {
    report("the end of a capture in another thread");
    return failed(cudaErrorStreamCaptureWrongThread);
  }
  bool const joined = is_joined(*c);
  c->ended = true;
  for (auto const& [other, waited_for] : c->streams) {
    other->in = nullptr;
    other->tail.clear();
  }
  if (!c->valid) return failed(cudaErrorStreamCaptureInvalidated);
  if (!joined) {
    report("the end of a capture with a stream that the first one has not waited for");
    return failed(cudaErrorStreamCaptureUnjoined);
  }
  graphs()[c->captured.get()] = c->captured;
  *out = reinterpret_cast<cudaGraph_t>(c->captured.get());
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* out, cudaGraphNode_t const** nodes, cudaGraphEdgeData const**,
                                     size_t* count) {
  auto const lock = lock_runtime();
  stream const& s = stream_of(handle);
  if (&s == &legacy_stream())
    for (stream const* const other : live_streams())
      if (other->in && other->blocking) return failed(cudaErrorStreamCaptureImplicit);
  *status = !s.in         ? cudaStreamCaptureStatusNone
            : s.in->valid ? cudaStreamCaptureStatusActive
                          : cudaStreamCaptureStatusInvalidated;
  if (nodes != nullptr || count != nullptr) report("cudaStreamGetCaptureInfo of the nodes");
  if (!s.in) return cudaSuccess;
  if (id != nullptr) *id = s.in->id;
  if (out != nullptr) *out = reinterpret_cast<cudaGraph_t>(s.in->captured.get());
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return cudaStreamGetCaptureInfo(handle, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(mode_of_thread(), *mode);
  return cudaSuccess;
}

/// The number of nodes, and nothing about them.
cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  auto const lock = lock_runtime();
  auto const g = find(graphs(), handle, "a graph");
  if (g == nullptr || nodes != nullptr) return failed(cudaErrorInvalidValue);
  *count = g->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long) {
  auto const lock = lock_runtime();
  auto const g = find(graphs(), handle, "a graph");
  if (g == nullptr) return failed(cudaErrorInvalidValue);
  auto const made = std::make_shared<executable>(executable{g});
  executables()[made.get()] = made;
  *out = reinterpret_cast<cudaGraphExec_t>(made.get());
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  auto const lock = lock_runtime();
  stream& s = stream_of(stream_handle);
  auto const e = find(executables(), handle, "an executable graph");
  if (e == nullptr) return failed(cudaErrorInvalidValue);
  if (s.in) {
    s.in->invalidate("the launch of a graph, which the emulator does not capture");
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  s.start_operation("launch of a graph");
  launch(*e, s);
  return failed(sticky_error());
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  auto const lock = lock_runtime();
  if (find(graphs(), handle, "a graph") == nullptr) return failed(cudaErrorInvalidValue);
  graphs().erase(reinterpret_cast<graph*>(handle));
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  auto const lock = lock_runtime();
  if (find(executables(), handle, "an executable graph") == nullptr) return failed(cudaErrorInvalidValue);
  executables().erase(reinterpret_cast<executable*>(handle));
  return cudaSuccess;
}

}  // extern "C"
