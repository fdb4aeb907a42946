/// @file
/// Annotations for the thread sanitizer: it does not see how libraries that are compiled without it synchronise.
#pragma once

#include <cstddef>

#include <pushpull/config.hpp>

#if defined(__SANITIZE_THREAD__)
#define PUSHPULL_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PUSHPULL_THREAD_SANITIZER 1
#endif
#endif

#if defined(PUSHPULL_THREAD_SANITIZER)
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
/// For functions whose closure such a library hands from thread to thread: reading the closure itself looks like a
/// race.
#define PUSHPULL_UNSEEN_CLOSURE __attribute__((no_sanitize("thread")))
#else
#define PUSHPULL_UNSEEN_CLOSURE
#endif

namespace pushpull::inline PUSHPULL_ABI::detail {

#if defined(PUSHPULL_THREAD_SANITIZER)
inline constexpr bool thread_sanitizer = true;
/// Threads that observe the same mark later see all earlier work of this thread.
inline void publish(void const* mark) { __tsan_release(const_cast<void*>(mark)); }
inline void observe(void const* mark) { __tsan_acquire(const_cast<void*>(mark)); }
/// Same, but for the counters that such a library had on this thread's stack, in frames that have ended: a frame that takes their
/// place would look like a race with the last thread that counted.
inline void observe_ended_frames() {
  auto* const frame = static_cast<char*>(__builtin_frame_address(0));
  for (std::ptrdiff_t below = 0; below < 4096; below += 8) __tsan_acquire(frame - below);
}
#else
inline constexpr bool thread_sanitizer = false;
inline void publish(void const*) {}
inline void observe(void const*) {}
inline void observe_ended_frames() {}
#endif

}  // namespace pushpull::detail
