/// @file
/// A function that runs on several ranks, each a thread.
#pragma once

#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

#include <pushpull/comm/thread_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Calls `f(communicator)` for each of `ranks` ranks, on a thread of its own, and returns when all have returned.
/// A rank that throws fails the communicator.
/// @throws the exception of the rank that failed by itself first, if any, and not those that it caused on others
template <class F>
void run_ranks(int ranks, threads_options const& options, F const& f) {
  std::vector<threads> const all = threads::make(ranks, options);
  std::vector<std::exception_ptr> thrown(all.size());
  auto const run = [&](std::size_t rank) {
    try {
      f(all[rank]);
    } catch (std::exception const& e) {
      all[rank].fail(e.what());
      thrown[rank] = std::current_exception();
    } catch (...) {
      all[rank].fail("an exception of an unknown type");
      thrown[rank] = std::current_exception();
    }
  };
  std::vector<std::thread> running;
  std::exception_ptr unstarted;
  try {
    running.reserve(all.size());
    for (std::size_t rank = 0; rank < all.size(); ++rank) running.emplace_back(run, rank);
  } catch (...) {
    unstarted = std::current_exception();
    all.back().fail("its thread did not start");
  }
  for (std::thread& each : running) each.join();
  if (unstarted) std::rethrow_exception(unstarted);
  if (int const rank = all[0].failed_by(); rank >= 0 && thrown[static_cast<std::size_t>(rank)])
    std::rethrow_exception(thrown[static_cast<std::size_t>(rank)]);
  for (std::exception_ptr const& each : thrown)  // a rank that called fail and returned
    if (each) std::rethrow_exception(each);
}

/// With the default options.
template <class F>
void run_ranks(int ranks, F const& f) {
  run_ranks(ranks, threads_options{}, f);
}

}  // namespace pushpull::comm
