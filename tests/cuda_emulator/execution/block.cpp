// The scheduler of a block: threads run in turn until they end or wait for others.
#include <algorithm>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "execution/grid.hpp"
#include "instructions/groups.hpp"
#include "report.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

class block_scheduler {
 public:
  explicit block_scheduler(grid& g) : grid_(g), order_(g.threads.size()) {
    std::iota(order_.begin(), order_.end(), 0U);
  }

  void run() {
    while (!everybody_exited()) {
      if (setting().shuffled()) std::shuffle(order_.begin(), order_.end(), random());
      for (std::uint32_t const k : order_) run_for_a_while(grid_.threads[k]);
      if (grid_.steps > setting().steps) throw_endless();
      if (count(thread_status::running) == 0 && !everybody_exited()) release_waiting();
    }
  }

 private:
  static std::mt19937_64& random() {
    static std::mt19937_64 engine(setting().seed);
    return engine;
  }

  std::size_t count(thread_status s) const {
    return static_cast<std::size_t>(
        std::count_if(grid_.threads.begin(), grid_.threads.end(), [&](thread const& t) { return t.status == s; }));
  }
  bool everybody_exited() const { return count(thread_status::exited) == grid_.threads.size(); }

  void run_for_a_while(thread& t) {
    if (t.status != thread_status::running) return;
    std::vector<instruction> const& code = grid_.kernel->code;
    std::uint64_t slice = setting().shuffled() ? 1 + random()() % 200 : 100'000;
    for (; t.status == thread_status::running && slice > 0; --slice) {
      instruction const& i = code[t.pc++];
      ++grid_.steps;
      if (i.guard < 0 || is_taken(grid_, t, i)) i.execute(grid_, t, i);
    }
    if (t.status == thread_status::at_warp) arrive(t);
  }

  /// A thread is at an instruction of its warp, which runs once all lanes of its mask have come or ended.
  void arrive(thread& t) {
    instruction const& i = *t.waiting;
    reg const mask = t.r[static_cast<std::size_t>(mask_register(i))];
    auto const lanes = static_cast<std::uint32_t>(mask.v);
    if (setting().undefined && (mask.u & 0xFFFFFFFF) != 0)
      grid_.report(i, "the mask of an instruction of warps is uninitialised");
    if ((lanes >> t.index % warp_size & 1) == 0)
      grid_.fail(t, i, "a thread outside the mask of an instruction of warps");
    std::span<thread> const warp = warp_of(t);
    for (std::size_t l = 0; l < warp.size(); ++l) {
      if ((lanes >> l & 1) == 0 || warp[l].status == thread_status::exited) continue;
      if (warp[l].status != thread_status::at_warp || warp[l].waiting != &i) return;
    }
    complete_warp(warp, lanes, i);
    for (std::size_t l = 0; l < warp.size(); ++l)
      if ((lanes >> l & 1) != 0 && warp[l].status == thread_status::at_warp) warp[l].status = thread_status::running;
  }

  /// The last warp of a block may have fewer lanes.
  std::span<thread> warp_of(thread const& t) const {
    std::size_t const first = t.index / warp_size * warp_size;
    return std::span(grid_.threads).subspan(first, std::min<std::size_t>(warp_size, grid_.threads.size() - first));
  }

  /// Nobody runs: those at a barrier go on, or something is wrong.
  void release_waiting() {
    if (count(thread_status::at_warp) == 0) {
      pass_barrier();
      return;
    }
    // Lanes that ended make a group complete.
    for (auto& t : grid_.threads)
      if (t.status == thread_status::at_warp) arrive(t);
    if (count(thread_status::running) > 0) return;
    for (auto const& t : grid_.threads)
      if (t.status == thread_status::at_warp)
        grid_.fail(t, *t.waiting, "deadlock: an instruction of warps whose mask names lanes that do not come");
  }

  void pass_barrier() {
    instruction const* barrier = nullptr;
    bool differ = false;
    for (auto const& t : grid_.threads) {
      if (t.status != thread_status::at_barrier) continue;
      if (barrier == nullptr) barrier = t.waiting;
      if (t.waiting != barrier && !differ) {
        differ = true;
        grid_.report(*t.waiting, "threads of a block wait at different barriers");
      }
    }
    if (count(thread_status::exited) > 0) grid_.report(*barrier, "a barrier that some threads of the block have left");
    complete_barrier(grid_.threads, *barrier);
    for (auto& t : grid_.threads) {
      if (t.status != thread_status::at_barrier) continue;
      t.status = thread_status::running;
      ++t.epoch;
    }
  }

  [[noreturn]] void throw_endless() const {
    std::string const text = "a launch that does not end: " + demangled(grid_.kernel->name);
    report(text);
    throw launch_failure(text);
  }

  grid& grid_;
  std::vector<std::uint32_t> order_;
};

}  // namespace

bool is_taken(grid const& g, thread const& t, instruction const& i) {
  reg const& p = t.r[static_cast<std::size_t>(i.guard)];
  if (setting().undefined && (p.u & 1) != 0) g.report(i, "a branch or guard depends on uninitialised memory");
  return (p.v & 1) != i.guard_negated;
}

void run_block(grid& g) { block_scheduler(g).run(); }

}  // namespace emulator
