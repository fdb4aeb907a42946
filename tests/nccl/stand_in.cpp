#include "stand_in.hpp"

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl_device.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>

struct world;

/// One call of a rank.
struct operation {
  std::string name;
  ncclComm_t of = nullptr;
  int peer = -1;
  void const* from = nullptr;
  void* to = nullptr;
  std::size_t bytes = 0;
  cudaStream_t stream = nullptr;
  ncclDataType_t type = ncclUint8;
};

struct ncclComm {
  std::shared_ptr<world> all;
  int rank = 0, device = 0;
  int polls = 0;
  int finalizing =
      -1;  // after so many more questions it has ended: 0 once one was answered so, -1 before ncclCommFinalize
  int on_their_way = 0;  // operations that other ranks have not come to
  std::size_t collectives = 0;
  ncclResult_t error = ncclSuccess;
  std::set<ncclWindow_t> windows;
};

struct world {
  int size = 0;
  bool is_complete = false;  // all ranks have come
  std::map<int, ncclComm_t> ranks;
  std::map<std::pair<int, int>, std::deque<operation>> sends, receives;  // (sender, receiver)
  std::map<std::size_t, std::vector<operation>> meetings;                // by the collective's number
};

namespace {

using pushpull::test::stand_in::call;

struct fault {
  std::string name;
  int rank;
  ncclResult_t result;
};

constexpr int most_reached = 4;

struct library {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<world>> worlds;
  std::set<ncclComm_t> live;
  std::vector<call> calls;
  std::vector<std::string> refusals;
  std::vector<fault> faults;
  std::set<int> silent;
  int ids = 0, polls = 0, aborts = 0;
  int reached = most_reached;           // ranks that reach each other's memory
  bool in_larger = true;                // also of communicators of more ranks
  std::map<void*, std::size_t> memory;  // of ncclMemAlloc
  bool aborts_hang = false;
};
library& all() {
  static auto& never_ends = *new library;  // threads that abort may outlive main
  return never_ends;
}

/// The calling thread's open groups, and what is to be submitted.
struct thread_group {
  int depth = 0;
  std::vector<operation> operations;
  ncclResult_t error = ncclSuccess;  // of a call in it: then nothing of it is carried out
};
thread_local thread_group group;
thread_local int own_lane = -1;  // where the thread's rank has its windows

ncclResult_t refuse(std::string text) {
  all().refusals.push_back(std::move(text));
  return ncclInvalidUsage;
}

/// Records a call, and fails it if a test says so.
ncclResult_t begin(std::string const& name, int rank, int peer = -1, std::size_t bytes = 0) {
  all().calls.push_back({name, rank, peer, bytes});
  auto& faults = all().faults;
  auto const found =
      std::find_if(faults.begin(), faults.end(), [&](fault const& f) { return f.name == name && f.rank == rank; });
  if (found == faults.end()) return ncclSuccess;
  ncclResult_t const result = found->result;
  faults.erase(found);
  return result;
}

bool is_live(ncclComm_t c) { return all().live.count(c) != 0; }
bool is_initialised(ncclComm_t c) { return c->polls >= all().polls && c->all->is_complete; }
bool is_on_its_way(ncclComm_t c) { return !is_initialised(c) || c->on_their_way > 0 || c->finalizing > 0; }

void expect(cudaError_t result) {
  if (result != cudaSuccess) refuse(std::string("CUDA: ") + cudaGetErrorString(result));
}

/// The next work of stream b comes after the work of stream a so far.
void order(ncclComm_t of_a, cudaStream_t a, cudaStream_t b) {
  expect(cudaSetDevice(of_a->device));
  cudaEvent_t event = nullptr;
  expect(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  expect(cudaEventRecord(event, a));
  expect(cudaStreamWaitEvent(b, event, 0));
  expect(cudaEventDestroy(event));
}

/// The memory of `from` to the memory of `to`, on the stream of `to`.
void copy(operation const& from, void const* source, operation const& to, void* target, std::size_t bytes) {
  if (source == target || bytes == 0) return;
  int before = 0;
  expect(cudaGetDevice(&before));
  order(from.of, from.stream, to.stream);
  expect(cudaSetDevice(to.of->device));
  expect(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, to.stream));
  order(to.of, to.stream, from.stream);
  expect(cudaSetDevice(before));
}

void add_doubles(std::vector<operation> const& of_rank) {
  std::size_t const count = of_rank.front().bytes / sizeof(double);
  std::vector<double> sums(count), part(count);
  for (operation const& o : of_rank) {
    expect(cudaStreamSynchronize(o.stream));
    expect(cudaMemcpy(part.data(), o.from, o.bytes, cudaMemcpyDefault));
    for (std::size_t i = 0; i < count; ++i) sums[i] += part[i];
  }
  for (operation const& o : of_rank) {
    expect(cudaMemcpyAsync(o.to, sums.data(), o.bytes, cudaMemcpyDefault, o.stream));
    expect(cudaStreamSynchronize(o.stream));
  }
}

/// The sums, from rank 0 on, of the elements [first, first + count) go to one rank.
template <class T, class Sum = T>
void add_part(std::vector<operation> const& of_rank, std::size_t first, std::size_t count, operation const& to) {
  std::vector<T> sums(count), part(count);
  for (operation const& o : of_rank) {
    expect(cudaStreamSynchronize(o.stream));
    expect(cudaMemcpy(part.data(), static_cast<T const*>(o.from) + first, count * sizeof(T), cudaMemcpyDefault));
    for (std::size_t i = 0; i < count; ++i)
      sums[i] = static_cast<T>(static_cast<Sum>(sums[i]) + static_cast<Sum>(part[i]));
  }
  expect(cudaMemcpyAsync(to.to, sums.data(), count * sizeof(T), cudaMemcpyDefault, to.stream));
  expect(cudaStreamSynchronize(to.stream));
}
void reduce(std::vector<operation> const& of_rank) {
  bool const scatters = of_rank.front().name == "ncclReduceScatter";
  for (operation const& to : of_rank) {
    if (!scatters && to.of->rank != to.peer) continue;
    auto const rank = scatters ? static_cast<std::size_t>(to.of->rank) : 0;
    if (to.type == ncclFloat)
      add_part<float>(of_rank, rank * to.bytes / 4, to.bytes / 4, to);
    else if (to.type == ncclDouble)
      add_part<double>(of_rank, rank * to.bytes / 8, to.bytes / 8, to);
    else if (to.type == ncclBfloat16)
      add_part<__nv_bfloat16, float>(of_rank, rank * to.bytes / 2, to.bytes / 2, to);
    else
      refuse("a reduction of other numbers than float, double and bfloat16");
  }
}

/// Asks the emulator, if it is there, for memory that all devices reach.
cudaError_t emulated_window(void** p, std::size_t bytes, int of_lane) {
  using function = cudaError_t (*)(void**, std::size_t, int);
  static auto const allocate = reinterpret_cast<function>(dlsym(RTLD_DEFAULT, "cudaEmulatedWindow"));
  return allocate != nullptr ? allocate(p, bytes, of_lane) : cudaErrorNotSupported;
}

/// How far apart ranks have the bytes of a window: see cudaEmulatedWindow.
constexpr std::uint64_t lane = std::uint64_t{4} << 30;

/// Gives each rank its window, or none if the ranks reach nothing of each other's.
void make_windows(std::vector<operation> const& of_rank) {
  auto* const first = static_cast<char const*>(of_rank.front().from);
  int before = 0;
  expect(cudaGetDevice(&before));
  for (operation const& o : of_rank) {
    auto* const result = static_cast<ncclWindow_t*>(o.to);
    *result = nullptr;
    if (all().reached == 1 || (!all().in_larger && static_cast<int>(of_rank.size()) > all().reached)) {
      // As NCCL 2.28, for which this is a buffer that no other rank reaches.
      *result = reinterpret_cast<ncclWindow_t>(new char);
      o.of->windows.insert(*result);
      continue;
    }
    int const lowest = o.of->rank / all().reached * all().reached;  // of the ranks that reach each other
    if (o.from != first + static_cast<std::uint64_t>(o.of->rank) * lane)
      refuse("memory of a window that is not symmetric");
    ncclWindow_vidmem window{};
    window.lsaFlatBase = const_cast<char*>(first) + static_cast<std::uint64_t>(lowest) * lane;
    window.lsaRank = o.of->rank - lowest;
    window.worldRank = o.of->rank;
    window.stride4G = 1;
    expect(cudaSetDevice(o.of->device));
    void* there = nullptr;
    expect(cudaMalloc(&there, sizeof(window)));
    expect(cudaMemcpy(there, &window, sizeof(window), cudaMemcpyDefault));
    *result = static_cast<ncclWindow_t>(there);
    o.of->windows.insert(*result);
  }
  expect(cudaSetDevice(before));
}

void carry_out(std::vector<operation>& of_rank) {
  std::string const& name = of_rank.front().name;
  std::sort(of_rank.begin(), of_rank.end(), [](auto& a, auto& b) { return a.of->rank < b.of->rank; });
  if (name == "ncclCommWindowRegister") return make_windows(of_rank);
  if (name == "ncclReduce" || name == "ncclReduceScatter") return reduce(of_rank);
  if (name == "ncclAllReduce") return add_doubles(of_rank);
  for (operation const& to : of_rank)
    for (operation const& from : of_rank) {
      auto const rank = static_cast<std::size_t>(from.of->rank);
      if (name == "ncclAllGather")
        copy(from, from.from, to, static_cast<char*>(to.to) + rank * from.bytes, from.bytes);
      else if (from.of->rank == to.peer)
        copy(from, from.from, to, to.to, from.bytes);
    }
}

/// Whether NCCL could use the memory: its device's, not the host's or another's.
bool is_on_device(operation const& o) {
  for (void const* const p : {o.from, static_cast<void const*>(o.to)}) {
    cudaPointerAttributes a{};
    if (p != nullptr && o.bytes > 0 &&
        (cudaPointerGetAttributes(&a, p) != cudaSuccess || a.type != cudaMemoryTypeDevice || a.device != o.of->device))
      return false;
  }
  return true;
}

void fail_world(world& w, std::string text) {
  refuse(std::move(text));
  for (auto const& [rank, c] : w.ranks) c->error = ncclInvalidUsage;
}

/// Carries out what both ends have come to.
void match(world& w) {
  for (auto& [ends, sends] : w.sends) {
    auto& receives = w.receives[ends];
    while (!sends.empty() && !receives.empty()) {
      operation const from = sends.front(), to = receives.front();
      sends.pop_front();
      receives.pop_front();
      if (from.bytes != to.bytes)
        return fail_world(w, "rank " + std::to_string(ends.first) + " sends " + std::to_string(from.bytes) +
                                 " bytes, rank " + std::to_string(ends.second) + " receives " +
                                 std::to_string(to.bytes));
      copy(from, from.from, to, to.to, to.bytes);
      --from.of->on_their_way;
      --to.of->on_their_way;
    }
  }
  while (!w.meetings.empty() && static_cast<int>(w.meetings.begin()->second.size()) == w.size) {
    auto of_rank = std::move(w.meetings.begin()->second);
    w.meetings.erase(w.meetings.begin());
    operation const& first = of_rank.front();
    for (operation const& o : of_rank)
      if (o.name != first.name || o.bytes != first.bytes || o.peer != first.peer || o.type != first.type)
        return fail_world(w, "ranks are in " + first.name + " of " + std::to_string(first.bytes) + " bytes and " +
                                 o.name + " of " + std::to_string(o.bytes) + " bytes");
    carry_out(of_rank);
    for (operation const& o : of_rank) --o.of->on_their_way;
  }
}

ncclResult_t submit() {
  std::vector<operation> const operations = std::exchange(group.operations, {});
  bool waits = false;
  for (operation const& o : operations)
    if (!is_live(o.of)) return refuse("a group of a communicator that has ended");
  for (operation const& o : operations) {
    ++o.of->on_their_way;
    waits = true;
    if (all().silent.count(o.of->rank) != 0) continue;
    world& w = *o.of->all;
    if (o.name == "ncclSend")
      w.sends[{o.of->rank, o.peer}].push_back(o);
    else if (o.name == "ncclRecv")
      w.receives[{o.peer, o.of->rank}].push_back(o);
    else
      w.meetings[o.of->collectives++].push_back(o);
  }
  for (operation const& o : operations) match(*o.of->all);
  if (waits) waits = std::any_of(operations.begin(), operations.end(), [](auto& o) { return is_on_its_way(o.of); });
  return waits ? ncclInProgress : ncclSuccess;
}

std::size_t size_of(ncclDataType_t type) {
  switch (type) {
    case ncclDouble: return 8;
    case ncclFloat: return 4;
    case ncclHalf:
    case ncclBfloat16: return 2;
    default: return 1;
  }
}

ncclResult_t take(operation o) {
  if (!is_live(o.of)) return refuse(o.name + " of a communicator that has ended");
  if (ncclResult_t const r = begin(o.name, o.of->rank, o.peer, o.bytes); r != ncclSuccess) return r;
  if (o.of->error != ncclSuccess) return o.of->error;
  if (!is_initialised(o.of)) return refuse(o.name + " before initialisation has finished");
  if (o.of->on_their_way > 0) return refuse(o.name + " while an earlier group is on its way");
  if (o.of->finalizing >= 0) return refuse(o.name + " after ncclCommFinalize");
  if (o.peer >= o.of->all->size) return refuse(o.name + " with rank " + std::to_string(o.peer));
  if (o.name.find("Window") == std::string::npos && !is_on_device(o))
    return refuse(o.name + " with memory that is not the device's");
  group.operations.push_back(std::move(o));
  return group.depth == 0 ? submit() : ncclSuccess;
}
ncclResult_t issue(operation o) {
  std::lock_guard const lock(all().mutex);
  ncclResult_t const result = take(std::move(o));
  if (group.depth > 0 && result != ncclSuccess) group.error = result;
  return result;
}

void leave(ncclComm_t c) {
  all().live.erase(c);
  c->all->ranks.erase(c->rank);
  delete c;
}

}  // namespace

namespace pushpull::test::stand_in {

int most_ranks() { return 4; }
void reset() {
  std::lock_guard const lock(all().mutex);
  all().calls.clear();
  all().refusals.clear();
  all().faults.clear();
  all().silent.clear();
  all().polls = all().aborts = 0;
  all().reached = most_reached;
  all().in_larger = true;
  static_cast<void>(emulated_window(nullptr, 0, 0));
}
std::vector<call> calls_of(int rank) {
  std::lock_guard const lock(all().mutex);
  std::vector<call> result;
  for (call const& c : all().calls)
    if (c.rank == rank) result.push_back(c);
  return result;
}
std::vector<std::string> refusals() {
  std::lock_guard const lock(all().mutex);
  return all().refusals;
}
int live_communicators() {
  std::lock_guard const lock(all().mutex);
  return static_cast<int>(all().live.size());
}
int aborts() {
  std::lock_guard const lock(all().mutex);
  return all().aborts;
}
void slow_initialisation(int polls) {
  std::lock_guard const lock(all().mutex);
  all().polls = polls;
}
void fail_call(std::string const& name, int rank, ncclResult_t result) {
  std::lock_guard const lock(all().mutex);
  all().faults.push_back({name, rank, result});
}
void fail_asynchronously(int rank, ncclResult_t result) {
  std::lock_guard const lock(all().mutex);
  for (ncclComm_t const c : all().live)
    if (c->rank == rank) c->error = result;
}
void silence(int rank) {
  std::lock_guard const lock(all().mutex);
  all().silent.insert(rank);
}
void reach(int ranks, bool in_larger) {
  std::lock_guard const lock(all().mutex);
  all().reached = ranks;
  all().in_larger = in_larger;
}
std::size_t live_windows() {
  std::lock_guard const lock(all().mutex);
  return all().memory.size();
}
void hang_aborts(bool hang) {
  std::lock_guard const lock(all().mutex);
  all().aborts_hang = hang;
  all().changed.notify_all();
}

}  // namespace pushpull::test::stand_in

extern "C" {

char const* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    default: return "unknown result code";
  }
}
char const* ncclGetLastError(ncclComm_t) { return "stand-in"; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard const lock(all().mutex);
  if (ncclResult_t const r = begin("ncclGetUniqueId", 0); r != ncclSuccess) return r;
  std::memset(id, 0, sizeof(*id));
  std::snprintf(id->internal, sizeof(id->internal), "stand-in %d", ++all().ids);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* c, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  std::lock_guard const lock(all().mutex);
  if (ncclResult_t const r = begin("ncclCommInitRankConfig", rank); r != ncclSuccess) return r;
  if (config == nullptr || config->blocking != 0) return refuse("a blocking communicator");
  std::string const name(id.internal, strnlen(id.internal, sizeof(id.internal)));
  auto& w = all().worlds[name];
  if (!w) {
    w = std::make_shared<world>();
    w->size = size;
  }
  if (w->size != size || rank < 0 || rank >= size || w->ranks.count(rank) != 0)
    return refuse("rank " + std::to_string(rank) + " of " + std::to_string(size) + " comes twice, or to others");
  auto made = std::make_unique<ncclComm>();
  made->all = w;
  made->rank = rank;
  if (own_lane < 0) own_lane = rank;
  expect(cudaGetDevice(&made->device));
  w->ranks[rank] = made.get();
  w->is_complete = static_cast<int>(w->ranks.size()) == size;
  all().live.insert(made.get());
  *c = made.release();
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  std::lock_guard const lock(all().mutex);
  if (!is_live(c)) return refuse("ncclCommGetAsyncError of a communicator that has ended");
  *state = c->error;
  if (c->error != ncclSuccess) return ncclSuccess;
  if (c->finalizing > 0) --c->finalizing;
  if (is_on_its_way(c)) *state = ncclInProgress;
  if (c->polls < pushpull::test::stand_in::never) ++c->polls;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t c) {
  std::lock_guard const lock(all().mutex);
  if (!is_live(c)) return refuse("ncclCommFinalize of a communicator that has ended");
  if (group.depth != 0) return refuse("ncclCommFinalize in an open group");
  if (ncclResult_t const r = begin("ncclCommFinalize", c->rank); r != ncclSuccess) return r;
  if (c->error == ncclSuccess && is_on_its_way(c)) return refuse("ncclCommFinalize while a call is on its way");
  c->finalizing = 3;
  return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  std::lock_guard const lock(all().mutex);
  if (!is_live(c)) return refuse("ncclCommDestroy of a communicator that has ended");
  if (c->finalizing < 0) return refuse("ncclCommDestroy before ncclCommFinalize");
  if (c->finalizing > 0) return refuse("ncclCommDestroy before ncclCommFinalize has finished");
  static_cast<void>(begin("ncclCommDestroy", c->rank));
  leave(c);
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
  std::unique_lock lock(all().mutex);
  if (!is_live(c)) return refuse("ncclCommAbort of a communicator that has ended");
  ++all().aborts;
  static_cast<void>(begin("ncclCommAbort", c->rank));
  all().changed.wait(lock, [] { return !all().aborts_hang; });
  for (auto const& [rank, other] : c->all->ranks)
    if (other != c && other->error == ncclSuccess) other->error = ncclRemoteError;
  for (auto* const queues : {&c->all->sends, &c->all->receives})
    for (auto& [ends, queue] : *queues)
      queue.erase(std::remove_if(queue.begin(), queue.end(), [&](auto& o) { return o.of == c; }), queue.end());
  for (auto& [number, of_rank] : c->all->meetings)
    of_rank.erase(std::remove_if(of_rank.begin(), of_rank.end(), [&](auto& o) { return o.of == c; }), of_rank.end());
  leave(c);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  std::lock_guard const lock(all().mutex);
  if (group.depth == 0) return refuse("ncclGroupEnd without a group");
  if (--group.depth > 0) return ncclSuccess;
  if (group.error == ncclSuccess) return submit();
  group.operations.clear();
  return std::exchange(group.error, ncclSuccess);
}

ncclResult_t ncclSend(void const* from, std::size_t n, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t s) {
  return issue({"ncclSend", c, peer, from, nullptr, n * size_of(type), s});
}
ncclResult_t ncclRecv(void* to, std::size_t n, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t s) {
  return issue({"ncclRecv", c, peer, nullptr, to, n * size_of(type), s});
}
ncclResult_t ncclAllGather(void const* from, void* to, std::size_t n, ncclDataType_t type, ncclComm_t c,
                           cudaStream_t s) {
  return issue({"ncclAllGather", c, -1, from, to, n * size_of(type), s});
}
ncclResult_t ncclBroadcast(void const* from, void* to, std::size_t n, ncclDataType_t type, int root, ncclComm_t c,
                           cudaStream_t s) {
  return issue({"ncclBroadcast", c, root, from, to, n * size_of(type), s});
}
ncclResult_t ncclReduceScatter(void const* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t how,
                               ncclComm_t c, cudaStream_t s) {
  if (how != ncclSum) return ncclInvalidArgument;
  return issue({"ncclReduceScatter", c, -1, from, to, n * size_of(type), s, type});
}
ncclResult_t ncclReduce(void const* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t how, int root,
                        ncclComm_t c, cudaStream_t s) {
  if (how != ncclSum) return ncclInvalidArgument;
  return issue({"ncclReduce", c, root, from, to, n * size_of(type), s, type});
}
ncclResult_t ncclAllReduce(void const* from, void* to, std::size_t n, ncclDataType_t type, ncclRedOp_t how,
                           ncclComm_t c, cudaStream_t s) {
  if (type != ncclDouble || how != ncclSum) {
    std::lock_guard const lock(all().mutex);
    return refuse("ncclAllReduce of anything but sums of doubles");
  }
  return issue({"ncclAllReduce", c, -1, from, to, n * size_of(type), s});
}

ncclResult_t ncclMemAlloc(void** p, std::size_t bytes) {
  std::lock_guard const lock(all().mutex);
  ncclResult_t const result = begin("ncclMemAlloc", std::max(own_lane, 0), -1, bytes);
  expect(emulated_window(p, bytes, std::max(own_lane, 0)));
  if (result != ncclSuccess) {  // the lanes stay level
    expect(cudaFree(std::exchange(*p, nullptr)));
    return result;
  }
  all().memory[*p] = bytes;
  return ncclSuccess;
}
ncclResult_t ncclMemFree(void* p) {
  std::lock_guard const lock(all().mutex);
  if (all().memory.erase(p) == 0) return refuse("ncclMemFree of what is not ncclMemAlloc's");
  expect(cudaFree(p));
  return ncclSuccess;
}
ncclResult_t ncclCommWindowRegister(ncclComm_t c, void* memory, std::size_t bytes, ncclWindow_t* window, int flags) {
  {
    std::lock_guard const lock(all().mutex);
    auto const found = all().memory.find(memory);
    if (flags != NCCL_WIN_COLL_SYMMETRIC || found == all().memory.end() || bytes > found->second)
      return refuse("a window of other memory than ncclMemAlloc's, or not symmetric");
  }
  return issue({"ncclCommWindowRegister", c, -1, memory, window, bytes});
}
ncclResult_t ncclCommWindowDeregister(ncclComm_t c, ncclWindow_t window) {
  std::lock_guard const lock(all().mutex);
  if (!is_live(c) || c->on_their_way > 0 || c->windows.erase(window) == 0)
    return refuse("ncclCommWindowDeregister of what is no window, or while a call is on its way");
  cudaPointerAttributes a{};
  expect(cudaPointerGetAttributes(&a, window));
  if (a.type == cudaMemoryTypeDevice)
    expect(cudaFree(window));
  else
    delete reinterpret_cast<char*>(window);
  return ncclSuccess;
}
ncclTeam_t ncclTeamLsa(ncclComm_t c) {
  std::lock_guard const lock(all().mutex);
  int const reached = std::min(all().reached > 1 ? all().reached : most_reached, c->all->size);
  return {reached, c->rank % reached, 1};
}

}  // extern "C"
