/// @file
/// Ranks of comm::nccl that only a file connects.
#pragma once

#include <pushpull/comm/nccl.hpp>
#include <pushpull/device/cuda_device.cuh>

#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/temporary_folder.hpp"

namespace pushpull::test::stand_in {

/// f(communicator) on each of `ranks` ranks of `each` devices, which meet at a file in a folder that former runs have left files in.
template <class F>
void on_ranks_of_a_file(int ranks, comm::nccl_options const& options, F const& f, std::size_t each = 1) {
  auto const devices = logical_devices(ranks * static_cast<int>(each));
  if (devices.empty()) return;
  reset();
  temporary_folder const folder;
  std::string const path = folder.file("meeting").string();
  {
    std::ofstream answer(path), rank_1(path + ".1");
    for (std::ofstream* const file : {&answer, &rank_1}) *file << "pushpull 1 " << ranks << " \"job\"\n";
    rank_1 << "1.2.3\n";
    for (int rank = 1; rank < ranks; ++rank) answer << "1.2.3\n";
    answer << std::string(2 * 3 * sizeof(ncclUniqueId), '0') << "\n4.5.6\n";  // the ids of three communicators
  }
  std::mutex mutex;
  std::exception_ptr thrown;
  std::vector<std::thread> threads;
  for (int rank = ranks - 1; rank >= 0; --rank)
    threads.emplace_back([&, rank] {
      try {
        auto const first = devices.begin() + rank * static_cast<std::ptrdiff_t>(each);
        f(comm::nccl(std::vector(first, first + static_cast<std::ptrdiff_t>(each)),
                     comm::nccl_file{path, "job", rank, ranks}, options));
      } catch (...) {
        std::lock_guard const lock(mutex);
        if (!thrown) thrown = std::current_exception();
      }
    });
  for (auto& thread : threads) thread.join();
  if (thrown) std::rethrow_exception(thrown);
  CHECK(!std::filesystem::exists(path));
  if (ranks > 1) CHECK(!std::filesystem::exists(path + ".1"));
}

}  // namespace pushpull::test::stand_in
