/// @file
/// The memory of messages between one message and the next.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Lets malloc keep the memory of freed messages. libzmq allocates each message that it receives. glibc gives freed memory back to the
/// system, so that the pages of a next message of 1 MiB have to be mapped anew: up to a third of the time of a `pushpull` over loopback.
/// From the sizes of freed blocks glibc learns how much to keep, and this frees one block of the largest size that counts. For the
/// whole process allocations of up to 32 MiB then come from glibc's arenas, each of which keeps up to 64 MiB. Limits that the
/// program has set (`mallopt`, `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) stay.
inline void keep_freed_memory() noexcept {
#if defined(__GLIBC__)
  static bool const kept = [] {
    constexpr std::size_t most = std::size_t{32} << 20, page = 4096;
    void* volatile const block =
        std::malloc(most - 4 * page);  // volatile: compilers remove an allocation without a use
    std::free(block);
    return true;
  }();
  static_cast<void>(kept);
#endif
}

}  // namespace pushpull::remote
