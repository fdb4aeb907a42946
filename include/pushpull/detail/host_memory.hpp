/// @file
/// Page-aligned host memory for arenas, on huge pages where the system gives them.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

#if PUSHPULL_HAS_MADVISE
#include <sys/mman.h>
#endif

namespace pushpull::inline PUSHPULL_ABI::detail {

/// At least `bytes` bytes, aligned to 4 KiB; blocks of 4 MiB or more to 2 MiB.
/// @throws out_of_memory
inline void* allocate_host_memory(std::size_t bytes) {
  constexpr std::size_t page = 4096;
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  std::size_t const alignment = bytes >= 2 * huge_page ? huge_page : page;
  std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const p = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  expects<out_of_memory>(p != nullptr,
                         [&] { return "cpu_device: cannot allocate " + std::to_string(bytes) + " bytes"; });
#if PUSHPULL_HAS_MADVISE
  if (alignment == huge_page) ::madvise(p, rounded, MADV_HUGEPAGE);  // advice: a refusal costs speed, nothing else
#endif
  return p;
}

inline void deallocate_host_memory(void* p) noexcept { std::free(p); }

}  // namespace pushpull::detail
