/// @file
/// Version, host/device annotations and feature detection: the only header that asks which compiler runs.
#pragma once

// Before all others: what is missing is said first.
#include <pushpull/detail/requirements.hpp>

#include <pushpull/detail/instruction_set.hpp>

#define PUSHPULL_VERSION_MAJOR 0
#define PUSHPULL_VERSION_MINOR 1
#define PUSHPULL_VERSION_PATCH 0
#define PUSHPULL_VERSION_STRING "0.1.0"

/// Annotates functions that kernels call. Rules and transforms of the user carry it so that they also build for GPUs.
#if defined(__CUDACC__)
#define PUSHPULL_HOST_DEVICE __host__ __device__
#define PUSHPULL_DEVICE_INLINE __host__ __device__ __forceinline__
#else
#define PUSHPULL_HOST_DEVICE
#define PUSHPULL_DEVICE_INLINE inline __attribute__((always_inline))
#endif

/// Annotates the host's code between memory and vector registers. A call would pass the registers through memory; g++ makes
/// such calls in translation units with many instantiations, where a pass then takes twice as long.
#define PUSHPULL_HOST_INLINE inline __attribute__((always_inline))

/// Stands before a host-device template that is instantiated for the host alone with host-only operations.
#if defined(__CUDACC__)
#define PUSHPULL_EXEC_CHECK_DISABLE _Pragma("nv_exec_check_disable")
#else
#define PUSHPULL_EXEC_CHECK_DISABLE
#endif

/// Stands behind the parameters of a lambda that must be inlined wherever it is called, so that what it captures stays
/// in registers.
#define PUSHPULL_INLINE_LAMBDA __attribute__((always_inline))

/// Stands before a loop that device code should keep small.
#if defined(__CUDA_ARCH__)
#define PUSHPULL_NO_UNROLL _Pragma("unroll 1")
#else
#define PUSHPULL_NO_UNROLL
#endif

/// Stand around CUB's headers. What g++ finds after inlining it reports even of system headers, which nvcc's host compiler
/// gets as part of one file: for several GPU architectures "-Wmaybe-uninitialized" in DeviceScan, which would stop a build
/// with -Werror.
#if defined(__GNUC__) && !defined(__clang__)
#define PUSHPULL_OTHERS_HEADERS_BEGIN                                                                            \
  _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wmaybe-uninitialized\"")                     \
      _Pragma("GCC diagnostic ignored \"-Wuninitialized\"") _Pragma("GCC diagnostic ignored \"-Warray-bounds\"") \
          _Pragma("GCC diagnostic ignored \"-Wstringop-overflow\"")                                              \
              _Pragma("GCC diagnostic ignored \"-Wnull-dereference\"")
#define PUSHPULL_OTHERS_HEADERS_END _Pragma("GCC diagnostic pop")
#else
#define PUSHPULL_OTHERS_HEADERS_BEGIN
#define PUSHPULL_OTHERS_HEADERS_END
#endif

/// Behind the parameters of an overload that refuses a call for the reason `Why`: clang says `text` where that is `name`,
/// other compilers say that the function is deleted, and show its template arguments. See store/refusal.hpp.
#if defined(__clang__) && !defined(__CUDACC__)
#define PUSHPULL_DIAGNOSED(name, text) \
  __attribute__((diagnose_if(Why == ::pushpull::detail::refusal::name, text, "error")))
#define PUSHPULL_DELETED
#else
#define PUSHPULL_DIAGNOSED(name, text)
#define PUSHPULL_DELETED = delete
#endif

/// 1 where the CUDA Toolkit's 16-bit floating-point types can be included; ours stand in elsewhere.
#if __has_include(<cuda_fp16.h>) && __has_include(<cuda_bf16.h>)
#define PUSHPULL_HAS_CUDA_FP16 1
#else
#define PUSHPULL_HAS_CUDA_FP16 0
#endif

/// 1 where the CUDA Toolkit's 8-bit floating-point types can be included too; ours stand in elsewhere.
#if PUSHPULL_HAS_CUDA_FP16 && __has_include(<cuda_fp8.h>)
#define PUSHPULL_HAS_CUDA_FP8 1
#else
#define PUSHPULL_HAS_CUDA_FP8 0
#endif

/// 1 in device code for GPUs that have instructions for 8-bit conversions; integer code with the same results elsewhere.
#if PUSHPULL_HAS_CUDA_FP8 && defined(__CUDA_ARCH__)
#define PUSHPULL_HAS_FP8_INSTRUCTIONS (__CUDA_ARCH__ >= 890)
#else
#define PUSHPULL_HAS_FP8_INSTRUCTIONS 0
#endif

/// 1 where the host has Linux's madvise, which asks for huge pages under large arenas.
#if __has_include(<sys/mman.h>) && defined(__linux__)
#define PUSHPULL_HAS_MADVISE 1
#else
#define PUSHPULL_HAS_MADVISE 0
#endif

/// Vector instruction sets that the 8- and 16-bit conversions and streaming stores have code for.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define PUSHPULL_HAS_AVX512 1
#else
#define PUSHPULL_HAS_AVX512 0
#endif
#if defined(__AVX2__) && defined(__F16C__)
#define PUSHPULL_HAS_AVX2 1
#else
#define PUSHPULL_HAS_AVX2 0
#endif
#if defined(__SSE2__)
#define PUSHPULL_HAS_SSE2 1
#else
#define PUSHPULL_HAS_SSE2 0
#endif

/// 1 where the compiler takes infinity and NaN for impossible: -ffast-math and -ffinite-math-only. What must notice them
/// goes by bits there.
#if defined(__FINITE_MATH_ONLY__)
#define PUSHPULL_ASSUMES_FINITE __FINITE_MATH_ONLY__
#else
#define PUSHPULL_ASSUMES_FINITE 0
#endif
