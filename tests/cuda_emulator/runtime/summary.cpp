#include "runtime/summary.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>

#include "execution/memory.hpp"
#include "report.hpp"
#include "runtime/stream.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

constexpr int reported_exit_code = 97;

struct counters {
  std::map<std::string, unsigned long> launches;  // of each kernel
  std::uint64_t steps = 0, copies = 0;
};
counters& counted() {
  static auto& never_ends = *new counters;  // programs release memory at exit
  return never_ends;
}

void tell_what_ran() {
  unsigned long launches = 0;
  for (auto const& [kernel, n] : counted().launches) launches += n;
  std::fprintf(
      stderr,
      "== emulator: %lu launches of %zu kernels, %lu instructions, %lu copies and fills, %zu allocations left\n",
      launches, counted().launches.size(), counted().steps, counted().copies, live_allocations());
}

void end() {
  finish_all_streams();
  summarize_reports();
  if (setting().summary) tell_what_ran();
  if (!setting().strict || !reported_anything()) return;
  std::fflush(nullptr);
  std::_Exit(reported_exit_code);
}

}  // namespace

void announce() {
  static bool const once = [] {
    settings const& s = setting();
    char const* const peers = s.devices < 2 ? "" : s.peers ? ", peers" : ", no peers";
    std::fprintf(stderr, "== emulator: no GPU but a PTX emulator: PUSHPULL_EMULATOR_SEED=%lu, %d device%s%s\n", s.seed,
                 s.devices, s.devices == 1 ? "" : "s", peers);
    return true;
  }();
  static_cast<void>(once);
}

void summarize_at_exit() {
  static int const once = std::atexit(end);
  static_cast<void>(once);
}

void count_launch(std::string const& kernel) { ++counted().launches[kernel]; }
void count_steps(std::uint64_t instructions) { counted().steps += instructions; }
void count_copy() { ++counted().copies; }

}  // namespace emulator
