#include "execution/grid.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include "execution/memory.hpp"
#include "report.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

std::string where(grid const& g, instruction const& i) {
  return "in " + demangled(g.kernel->name) + "\n    PTX line " + std::to_string(i.line) + ": " + i.text;
}

/// Blocks of pushpull's own kernels do not wait for each other; some of CUB's count on blocks that started before them.
bool may_run_in_any_order(std::string const& kernel) {
  return kernel.find("pushpull") != std::string::npos && kernel.find("3cub") == std::string::npos;
}

std::array<unsigned, 3> coordinates(std::size_t number, std::array<unsigned, 3> const& extents) {
  return {static_cast<unsigned>(number % extents[0]), static_cast<unsigned>(number / extents[0] % extents[1]),
          static_cast<unsigned>(number / extents[0] / extents[1])};
}

}  // namespace

void grid::report(instruction const& i, std::string const& what) const {
  emulator::report(what + "\n    " + where(*this, i));
}

void grid::fail(thread const& t, instruction const& i, std::string const& what) const {
  std::string const text = what + "\n    block " + std::to_string(block_number) + " of " + std::to_string(blocks[0]) +
                           ", thread " + std::to_string(t.index) + " of " + std::to_string(threads.size()) + ", " +
                           where(*this, i);
  emulator::report(text);
  throw launch_failure(text);
}

void grid::run() {
  static std::mt19937_64 random(setting().seed + 1);
  threads.resize(std::size_t{threads_per_block[0]} * threads_per_block[1] * threads_per_block[2]);
  std::vector<std::size_t> order(std::size_t{blocks[0]} * blocks[1] * blocks[2]);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (setting().shuffled() && may_run_in_any_order(kernel->name)) std::shuffle(order.begin(), order.end(), random);
  for (std::size_t const number : order) {
    start_block(number);
    run_block(*this);
  }
}

void grid::start_block(std::size_t number) {
  block_number = static_cast<std::uint32_t>(number);
  block_index = coordinates(number, blocks);
  std::fill(shared.begin(), shared.end(), std::uint8_t{0xA5});
  shared_shadow.assign(shared.size(), 1);
  if (setting().races) shared_records.assign(shared.size(), {});
  for (std::size_t k = 0; k < threads.size(); ++k) start_thread(threads[k], k);
}

void grid::start_thread(thread& t, std::size_t number) {
  t.r = kernel->initial;
  t.pc = 0;
  t.status = thread_status::running;
  t.index = static_cast<std::uint32_t>(number);
  t.epoch = t.warp_epoch = 0;
  t.local.assign(kernel->local_bytes, 0xA5);
  t.local_shadow.assign(kernel->local_bytes, device_memory::unwritten);
  t.param.assign(param.begin(), kernel->calls ? param.end() : param.begin());
  t.param_shadow.assign(t.param.size(), device_memory::written);
  t.products.clear();
  for (auto const& [r, name] : kernel->special) t.r[static_cast<std::size_t>(r)] = {special_register(name, number), 0};
}

std::uint64_t grid::special_register(std::string const& name, std::size_t thread_number) const {
  std::uint32_t const lane = static_cast<std::uint32_t>(thread_number) % warp_size;
  std::uint32_t const up_to_lane = static_cast<std::uint32_t>((std::uint64_t{2} << lane) - 1);
  auto const axis = static_cast<std::size_t>(name.back() - 'x');
  if (name.starts_with("%tid.")) return coordinates(thread_number, threads_per_block).at(axis);
  if (name.starts_with("%ntid.")) return threads_per_block.at(axis);
  if (name.starts_with("%ctaid.")) return block_index.at(axis);
  if (name.starts_with("%nctaid.")) return blocks.at(axis);
  if (name == "%laneid") return lane;
  if (name == "%warpid") return thread_number / warp_size;
  if (name == "%nwarpid") return (threads.size() + warp_size - 1) / warp_size;
  if (name == "%lanemask_eq") return 1U << lane;
  if (name == "%lanemask_lt") return (1U << lane) - 1;
  if (name == "%lanemask_le") return up_to_lane;
  if (name == "%lanemask_gt") return ~up_to_lane;
  if (name == "%lanemask_ge") return ~((1U << lane) - 1);
  if (name == "%smid" || name == "%gridid") return 0;
  if (name == "%nsmid") return 1;
  if (name == "%dynamic_smem_size") return shared.size() - kernel->shared_bytes;
  if (name == "%total_smem_size") return shared.size();
  if (name.starts_with("%clock") || name.starts_with("%globaltimer")) return steps;
  std::string const text =
      "a special register that is not implemented: " + name + "\n    in " + demangled(kernel->name);
  emulator::report(text);
  throw launch_failure(text);
}

}  // namespace emulator
