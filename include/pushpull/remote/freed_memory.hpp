/// @file
/// The memory of messages between one message and the next.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Lets malloc keep the memory of freed messages. libzmq allocates each message that it receives; glibc gives freed memory back to the
/// system from 128 KiB on, and all pages of the next message of 1 MiB are then mapped anew, which takes as long as a third of its
/// way over loopback. From freed blocks glibc learns how much to keep, up to 64 MiB in each of its arenas: this frees one block
/// of the largest size that it learns from, which nobody touches. Limits that the program has set (`mallopt`,
/// `MALLOC_TRIM_THRESHOLD_`) stay.
inline void keep_freed_memory() noexcept {
#if defined(__GLIBC__)
  static bool const kept = [] {
    constexpr std::size_t most = std::size_t{32} << 20, page = 4096;
    void* volatile const block = std::malloc(most - 4 * page);  // volatile: compilers remove an allocation without a use
    std::free(block);
    return true;
  }();
  static_cast<void>(kept);
#endif
}

}  // namespace pushpull::remote
