#include "runtime/stream.hpp"

#include <cstdlib>
#include <random>
#include <set>
#include <utility>

#include "report.hpp"
#include "runtime/graph.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

struct streams {
  std::vector<std::unique_ptr<stream>> all;  // also ended ones: their numbers stay
  std::set<std::uint32_t> live;
  std::mt19937_64 random{setting().seed};
  streams() { make(true, 0); }

  stream& make(bool blocking, int device) {
    all.push_back(std::make_unique<stream>());
    stream& s = *all.back();
    s.number = static_cast<std::uint32_t>(all.size() - 1);
    s.blocking = blocking;
    s.device = device;
    live.insert(s.number);
    return s;
  }
};

streams& every() {
  static auto& never_ends = *new streams;  // programs release memory at exit
  return never_ends;
}

/// The legacy stream waits for blocking streams, which it cannot while one is being captured.
cudaError_t refuse_of_legacy(stream& s) {
  if (&s != &legacy_stream()) return cudaSuccess;
  for (stream* const other : live_streams()) {
    if (!other->in || !other->blocking) continue;
    other->in->invalidate("the legacy stream, which would wait for a captured one");
    return cudaErrorStreamCaptureImplicit;
  }
  return cudaSuccess;
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock_runtime() {
  static auto& never_ends = *new std::recursive_mutex;
  return std::unique_lock(never_ends);
}

int& current_device() {
  thread_local int device = 0;
  return device;
}
cudaError_t& sticky_error() {
  static cudaError_t error = cudaSuccess;
  return error;
}
cudaError_t& last_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}
cudaError_t failed(cudaError_t e) {
  if (e != cudaSuccess) last_error() = e;
  return e;
}

stream& legacy_stream() { return *every().all.front(); }
stream& make_stream(bool blocking, int device) { return every().make(blocking, device); }
void end_stream(stream& s) {
  if (s.in) s.in->invalidate("a stream that ends while it is captured");
  s.drain();
  every().live.erase(s.number);
}

stream& stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) return legacy_stream();
  for (stream* s : live_streams())
    if (reinterpret_cast<cudaStream_t>(s) == handle) return *s;
  report("a stream that does not exist");
  std::abort();
}

std::vector<stream*> live_streams() {
  std::vector<stream*> found;
  for (std::uint32_t const n : every().live) found.push_back(every().all[n].get());
  return found;
}

void finish_all_streams() {
  for (auto& s : every().all) s->finish();
}

vector_clock& host_clock() {
  static auto& never_ends = *new vector_clock;
  return never_ends;
}

bool toss() { return every().random() % 2 != 0; }

void stream::drain(recorded_point const* until) {
  while (!queue.empty() && (until == nullptr || !until->done)) execute_next();
}

void stream::execute_next() {
  work const w = std::move(queue.front());
  queue.pop_front();
  if (w.wait && !w.wait->done) w.wait->of->drain(w.wait.get());
  if (w.run && sticky_error() == cudaSuccess) {
    try {
      w.run();
    } catch (launch_failure const&) {
      sticky_error() = cudaErrorIllegalAddress;
    }
  }
  if (w.reached) w.reached->done = true;
}

void stream::push(work w) {
  queue.push_back(std::move(w));
  if (!setting().shuffled()) {
    drain();
    return;
  }
  std::mt19937_64& random = every().random;
  if (random() % 4 != 0) return;
  std::vector<stream*> busy = live_streams();
  std::erase_if(busy, [](stream const* s) { return s->queue.empty(); });
  if (busy.empty()) return;
  stream& chosen = *busy[random() % busy.size()];
  for (std::uint64_t n = random() % 5; n > 0 && !chosen.queue.empty(); --n) chosen.execute_next();
}

cudaError_t stream::enqueue(std::string what, enqueued run) {
  if (in) {
    if (!in->valid) return cudaErrorStreamCaptureInvalidated;
    in->add(*this, std::move(what), std::move(run));
    return cudaSuccess;
  }
  if (cudaError_t const e = refuse_of_legacy(*this); e != cudaSuccess) return e;
  std::uint32_t const operation = start_operation(std::move(what));
  push({.run = [operation, f = std::move(run)] { f(operation); }});
  return cudaSuccess;
}

std::uint32_t stream::start_operation(std::string what) {
  join(clock, host_clock());
  auto const wait_for = [&](stream& other) {
    join(clock, other.clock);
    other.drain();
  };
  if (this == &legacy_stream()) {
    for (stream* const s : live_streams())
      if (s->blocking && s != this) wait_for(*s);
  } else if (blocking) {
    wait_for(legacy_stream());
  }
  if (clock.size() <= number) clock.resize(number + 1);
  clock[number] = ++sequence;
  return add_operation(number, sequence, std::move(what), clock);
}

void stream::finish() {
  drain();
  join(host_clock(), clock);
}

}  // namespace emulator
