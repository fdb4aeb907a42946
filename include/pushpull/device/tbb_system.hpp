/// @file
/// Thrust's oneTBB system.
#pragma once

#include <cstdint>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/system/tbb/execution_policy.h>
#include <pushpull/config.hpp>
#include <pushpull/detail/thread_sanitizer.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Runs work on oneTBB's threads; the caller's arena and limits apply. Link TBB::tbb.
struct tbb_system {
  template <class F>
  static void for_each(std::int64_t n, F const& f) {
    if constexpr (detail::thread_sanitizer) {
      char begun = 0, ended = 0;
      auto const task = [&](std::int64_t i) {
        f(i);
        detail::publish(&ended);
      };
      detail::publish(&begun);
      run(n, [mark = &begun, of = &task](std::int64_t i) PUSHPULL_UNSEEN_CLOSURE {
        detail::observe(mark);
        call(of, i);
      });
      detail::observe(&ended);
      detail::observe_ended_frames();
    } else {
      run(n, f);
    }
  }

 private:
  template <class Task>
  static void call(Task const* task, std::int64_t i) {
    (*task)(i);
  }
  template <class F>
  static void run(std::int64_t n, F const& f) {
    thrust::for_each_n(thrust::tbb::par, thrust::make_counting_iterator<std::int64_t>(0), n, f);
  }
};

}  // namespace pushpull
