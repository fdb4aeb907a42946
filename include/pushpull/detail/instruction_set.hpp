/// @file
/// PUSHPULL_ABI: the inline namespace of the library, whose name lists the instruction sets that this translation unit is
/// compiled for.
///
/// A program may compile parts for different processors and choose between them at run time. Inline functions and templates
/// of the same name are then different code in each part, and the linker would keep one for all. With this namespace their
/// names differ.
#pragma once

#if defined(__x86_64__) || defined(__i386__)

#if defined(__SSE4_2__)
#define PUSHPULL_ISA_SSE s42
#elif defined(__SSE4_1__)
#define PUSHPULL_ISA_SSE s41
#elif defined(__SSSE3__)
#define PUSHPULL_ISA_SSE s31
#elif defined(__SSE3__)
#define PUSHPULL_ISA_SSE s30
#else
#define PUSHPULL_ISA_SSE s20
#endif

#if defined(__AVX2__)
#define PUSHPULL_ISA_AVX _avx2
#elif defined(__AVX__)
#define PUSHPULL_ISA_AVX _avx
#else
#define PUSHPULL_ISA_AVX
#endif

// One letter for each further set that a compiler uses unasked.
#if defined(__FMA__)
#define PUSHPULL_ISA_FMA f
#else
#define PUSHPULL_ISA_FMA
#endif
#if defined(__F16C__)
#define PUSHPULL_ISA_F16C h
#else
#define PUSHPULL_ISA_F16C
#endif
#if defined(__POPCNT__)
#define PUSHPULL_ISA_POPCNT p
#else
#define PUSHPULL_ISA_POPCNT
#endif
#if defined(__LZCNT__)
#define PUSHPULL_ISA_LZCNT l
#else
#define PUSHPULL_ISA_LZCNT
#endif
#if defined(__BMI__)
#define PUSHPULL_ISA_BMI b
#else
#define PUSHPULL_ISA_BMI
#endif
#if defined(__BMI2__)
#define PUSHPULL_ISA_BMI2 c
#else
#define PUSHPULL_ISA_BMI2
#endif
#if defined(__MOVBE__)
#define PUSHPULL_ISA_MOVBE m
#else
#define PUSHPULL_ISA_MOVBE
#endif

#if defined(__AVX512F__)
#define PUSHPULL_ISA_512F _512
#else
#define PUSHPULL_ISA_512F
#endif
#if defined(__AVX512VL__)
#define PUSHPULL_ISA_512VL v
#else
#define PUSHPULL_ISA_512VL
#endif
#if defined(__AVX512BW__)
#define PUSHPULL_ISA_512BW b
#else
#define PUSHPULL_ISA_512BW
#endif
#if defined(__AVX512DQ__)
#define PUSHPULL_ISA_512DQ d
#else
#define PUSHPULL_ISA_512DQ
#endif
#if defined(__AVX512CD__)
#define PUSHPULL_ISA_512CD c
#else
#define PUSHPULL_ISA_512CD
#endif
#if defined(__AVX512VBMI__)
#define PUSHPULL_ISA_512VBMI x
#else
#define PUSHPULL_ISA_512VBMI
#endif
#if defined(__AVX512VBMI2__)
#define PUSHPULL_ISA_512VBMI2 y
#else
#define PUSHPULL_ISA_512VBMI2
#endif
#if defined(__AVX512VPOPCNTDQ__)
#define PUSHPULL_ISA_512VPOPCNTDQ p
#else
#define PUSHPULL_ISA_512VPOPCNTDQ
#endif
#if defined(__AVX512FP16__)
#define PUSHPULL_ISA_512FP16 h
#else
#define PUSHPULL_ISA_512FP16
#endif

#define PUSHPULL_JOIN(sse, avx, a, b, c, d, e, f, g, wide, h, i, j, k, l, m, n, o) \
  isa_##sse##avx##_##a##b##c##d##e##f##g##wide##h##i##j##k##l##m##n##o
#define PUSHPULL_JOIN_EXPANDED(...) PUSHPULL_JOIN(__VA_ARGS__)
#define PUSHPULL_ABI                                                                                                   \
  PUSHPULL_JOIN_EXPANDED(PUSHPULL_ISA_SSE, PUSHPULL_ISA_AVX, PUSHPULL_ISA_FMA, PUSHPULL_ISA_F16C, PUSHPULL_ISA_POPCNT, \
                         PUSHPULL_ISA_LZCNT, PUSHPULL_ISA_BMI, PUSHPULL_ISA_BMI2, PUSHPULL_ISA_MOVBE,                  \
                         PUSHPULL_ISA_512F, PUSHPULL_ISA_512VL, PUSHPULL_ISA_512BW, PUSHPULL_ISA_512DQ,                \
                         PUSHPULL_ISA_512CD, PUSHPULL_ISA_512VBMI, PUSHPULL_ISA_512VBMI2, PUSHPULL_ISA_512VPOPCNTDQ,   \
                         PUSHPULL_ISA_512FP16)

#elif defined(__ARM_FEATURE_SVE2)
#define PUSHPULL_ABI isa_sve2
#elif defined(__ARM_FEATURE_SVE)
#define PUSHPULL_ABI isa_sve
#elif defined(__ARM_NEON)
#define PUSHPULL_ABI isa_neon
#else
#define PUSHPULL_ABI isa_generic
#endif
