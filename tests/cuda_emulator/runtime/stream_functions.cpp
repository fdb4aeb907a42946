// CUDA's functions of streams and events.
#include <memory>
#include <set>
#include <string>

#include "report.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace emulator {
namespace {

struct event {
  int device = 0;
  std::shared_ptr<recorded_point> point = std::make_shared<recorded_point>();
};

std::set<event*>& events() {
  static auto& never_ends = *new std::set<event*>;  // programs release memory at exit
  return never_ends;
}

/// Null and a report for an event that has ended or never was.
event* event_of(cudaEvent_t handle) {
  auto* const e = reinterpret_cast<event*>(handle);
  if (events().contains(e)) return e;
  report("an event that does not exist");
  return nullptr;
}

/// A wait of a stream that is being captured, or for an event that was recorded in such a one.
cudaError_t wait_in_capture(stream& s, recorded_point const& p) {
  if (s.in && !s.in->valid) return cudaErrorStreamCaptureInvalidated;
  if (p.in && p.in->ended) {
    if (s.in) s.in->invalidate("a wait for an event of another capture");
    report("a wait for an event that was recorded in a capture that has ended");
    return cudaErrorCapturedEvent;
  }
  if (!p.in) {
    if (p.of == nullptr) return cudaSuccess;  // it was never recorded
    s.in->invalidate("a wait for an event that was recorded outside of the capture");
    return cudaErrorStreamCaptureIsolation;
  }
  if (!p.in->valid) return cudaErrorStreamCaptureInvalidated;
  if (s.in && s.in != p.in) {
    s.in->invalidate("a wait for an event of another capture");
    p.in->invalidate("a wait of another capture for an event");
    return cudaErrorStreamCaptureMerge;
  }
  if (!s.in) {
    if (&s == &legacy_stream()) {
      p.in->invalidate("a wait of the legacy stream, which cannot be captured");
      return cudaErrorStreamCaptureImplicit;
    }
    s.in = p.in;
    s.in->streams[&s] = false;
  }
  if (p.of != &s) p.in->streams[p.of] = true;
  s.tail.insert(p.nodes.begin(), p.nodes.end());
  return cudaSuccess;
}

/// The error of a call that asks for what an event stands for.
cudaError_t refuse_of_event(recorded_point const& p, char const* call) {
  if (p.in) {
    if (!p.in->ended)
      p.in->invalidate(std::string(call) + " of an event that was recorded in a capture");
    else
      report(std::string(call) + " of an event that was recorded in a capture");
    return cudaErrorCapturedEvent;
  }
  return refuse_unsafe(call);
}

}  // namespace
}  // namespace emulator

using namespace emulator;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned flags) {
  auto const lock = lock_runtime();
  *s = reinterpret_cast<cudaStream_t>(&make_stream((flags & cudaStreamNonBlocking) == 0, current_device()));
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, 0); }

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  if (cudaError_t const e = refuse_while_captured(s, "cudaStreamQuery"); e != cudaSuccess) return failed(e);
  if (!s.queue.empty() && toss()) s.execute_next();
  if (!s.queue.empty()) return cudaErrorNotReady;
  s.finish();
  return failed(sticky_error());
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  auto const lock = lock_runtime();
  end_stream(stream_of(handle));
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  if (cudaError_t const e = refuse_while_captured(s, "cudaStreamSynchronize"); e != cudaSuccess) return failed(e);
  if (&s == &legacy_stream())
    for (stream* const other : live_streams())
      if (other->blocking) other->finish();
  s.finish();
  return failed(sticky_error());
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  auto const lock = lock_runtime();
  stream& s = stream_of(handle);
  event const* const e = event_of(event_handle);
  if (e == nullptr) return failed(cudaErrorInvalidResourceHandle);
  recorded_point const& p = *e->point;
  if (s.in || p.in) return failed(wait_in_capture(s, p));
  join(s.clock, p.clock);
  if (!p.done) s.push({.wait = e->point});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  auto const lock = lock_runtime();
  auto* const made = new event{.device = current_device()};
  events().insert(made);
  *e = reinterpret_cast<cudaEvent_t>(made);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  auto const lock = lock_runtime();
  event* const e = event_of(handle);
  if (e == nullptr) return failed(cudaErrorInvalidResourceHandle);
  events().erase(e);
  delete e;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  auto const lock = lock_runtime();
  stream& s = stream_of(stream_handle);
  event* const e = event_of(handle);
  if (e == nullptr) return failed(cudaErrorInvalidResourceHandle);
  int const device = &s == &legacy_stream() ? current_device() : s.device;
  if (e->device != device) {
    report("an event of device " + std::to_string(e->device) + " recorded in a stream of device " +
           std::to_string(device));
    return failed(cudaErrorInvalidResourceHandle);
  }
  if (s.in) {
    if (!s.in->valid) return failed(cudaErrorStreamCaptureInvalidated);
    e->point = std::make_shared<recorded_point>(recorded_point{true, &s, {}, s.in, s.tail});
    return cudaSuccess;
  }
  join(s.clock, host_clock());
  e->point = std::make_shared<recorded_point>(recorded_point{false, &s, s.clock});
  s.push({.reached = e->point});
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  auto const lock = lock_runtime();
  event const* const e = event_of(handle);
  if (e == nullptr) return failed(cudaErrorInvalidResourceHandle);
  if (cudaError_t const error = refuse_of_event(*e->point, "cudaEventQuery"); error != cudaSuccess)
    return failed(error);
  auto const point = e->point;
  if (!point->done && toss()) point->of->execute_next();
  if (!point->done) return cudaErrorNotReady;
  join(host_clock(), point->clock);
  return failed(sticky_error());
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  auto const lock = lock_runtime();
  event const* const e = event_of(handle);
  if (e == nullptr) return failed(cudaErrorInvalidResourceHandle);
  if (cudaError_t const error = refuse_of_event(*e->point, "cudaEventSynchronize"); error != cudaSuccess)
    return failed(error);
  auto const point = e->point;
  if (!point->done) point->of->drain(point.get());
  join(host_clock(), point->clock);
  return failed(sticky_error());
}

/// There is no time here.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}

}  // extern "C"
