/// @file
/// DLPack's C structs: those of a dlpack.h, and of DLPack 1 where it is older.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(DLPACK_VERSION) && !defined(DLPACK_MAJOR_VERSION)
#if !__has_include(<dlpack/dlpack.h>)
#error \
    "pushpull/interop/dlpack.hpp needs <dlpack/dlpack.h> (Debian: libdlpack-dev), or LibTorch's <ATen/dlpack.h> before it"
#endif
#include <dlpack/dlpack.h>
#endif

#if !defined(DLPACK_FLAG_BITMASK_READ_ONLY)
/// Which layout a tensor has. A reader of another major version must not touch more than the deleter.
struct DLPackVersion {
  std::uint32_t major, minor;
};
/// A tensor of DLPack 1 and its deleter. The C names and layout are the standard's.
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  std::uint64_t flags;  ///< 1: read-only. 2: a copy.
  DLTensor dl_tensor;
};
#endif

static_assert(offsetof(DLManagedTensorVersioned, manager_ctx) == 8 &&
              offsetof(DLManagedTensorVersioned, deleter) == 8 + sizeof(void*) &&
              offsetof(DLManagedTensorVersioned, flags) == 8 + 2 * sizeof(void*) &&
              offsetof(DLManagedTensorVersioned, dl_tensor) == 16 + 2 * sizeof(void*));
