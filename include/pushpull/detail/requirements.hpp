/// @file
/// Refuses compilers, flags and libraries that the rest of the library cannot be compiled with, each by one message.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#error \
    "pushpull: g++ 12 or clang++ 14, or newer, expected; this compiler lacks attributes that the pass is written with"
#elif !defined(__clang__) && defined(__GNUC__) && __GNUC__ < 12
#error "pushpull: g++ 12 or newer expected"
#elif defined(__clang__) && !defined(__apple_build_version__) && __clang_major__ < 14
#error "pushpull: clang++ 14 or newer expected"
#endif

#if __cplusplus < 202002L
#error "pushpull: C++20 expected: compile with -std=c++20 or newer"
#endif

#if !defined(__cpp_exceptions)
#error "pushpull: exceptions expected: compile without -fno-exceptions"
#endif

#if defined(__SIZEOF_POINTER__) && __SIZEOF_POINTER__ < 8
#error "pushpull: a 64-bit target expected: compile without -m32"
#endif

#if defined(__CUDACC_VER_MAJOR__) && __CUDACC_VER_MAJOR__ < 13
#error "pushpull: nvcc 13.0 or newer expected"
#endif

#if __has_include(<version>)
#include <version>
#endif
#if defined(_GLIBCXX_RELEASE) && _GLIBCXX_RELEASE < 12
#error \
    "pushpull: libstdc++ 12 or newer expected; clang++ takes that of the newest g++ that is installed, or --gcc-toolchain's"
#elif defined(_LIBCPP_VERSION) && !defined(__cpp_lib_atomic_ref)
#error \
    "pushpull: this libc++ has no std::atomic_ref, which comes with libc++ 19: use that, or libstdc++ (-stdlib=libstdc++)"
#endif

#if !__has_include(<cuda/std/__cccl/version.h>)
#error "pushpull: CCCL 3.0 or newer not found; the CUDA Toolkit 13.0 has it in include/cccl, and no GPU is needed"
#else
#include <cuda/std/__cccl/version.h>
#if CCCL_VERSION < 3000000
#error \
    "pushpull: CCCL 3.0 or newer expected, an older one found; put the include/cccl of the CUDA Toolkit 13.0 before it"
#endif
#endif

#if !__has_include(<xsimd/config/xsimd_config.hpp>)
#error "pushpull: xsimd 8.1 or newer not found (Debian: libxsimd-dev)"
#else
#include <xsimd/config/xsimd_config.hpp>
#if XSIMD_VERSION_MAJOR < 8 || (XSIMD_VERSION_MAJOR == 8 && XSIMD_VERSION_MINOR < 1)
#error "pushpull: xsimd 8.1 or newer expected, an older one found (Debian: libxsimd-dev)"
#endif
#endif

#if !__has_include(<oneapi/tbb/version.h>)
#error "pushpull: oneTBB 2021.8 or newer not found (Debian: libtbb-dev)"
#else
#include <oneapi/tbb/version.h>
#if TBB_VERSION_MAJOR < 2021 || (TBB_VERSION_MAJOR == 2021 && TBB_VERSION_MINOR < 8)
#error "pushpull: oneTBB 2021.8 or newer expected, an older one found (Debian: libtbb-dev)"
#endif
#endif
