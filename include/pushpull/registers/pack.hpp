/// @file
/// The value type that rules are written on: one element, or a register full of them.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <cuda/std/cmath>
#include <cuda/std/functional>
#include <pushpull/config.hpp>
#include <pushpull/registers/detail/product.hpp>
#include <pushpull/registers/detail/register.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The result of comparing packs, for `select`; combined by `&&` and `||`, negated by `!`. Converts to bool only
/// if the pack holds one element.
template <class Register>
struct mask {
  Register value;

  PUSHPULL_DEVICE_INLINE operator bool() const {
    static_assert(std::same_as<Register, bool>,
                  "pack: a rule branches on a whole register; use select, or write in the rule: "
                  "static constexpr bool one_element_at_a_time = true;");
    return value;
  }
};

/// Elements of type `A` in `Register`: `A` itself on GPUs and in the scalar fallback, an xsimd batch on CPUs.
/// Arithmetic (+ - * / and their assignments), comparisons, `sqrt`, `abs`, `sign`, `min`, `max`, `select`, `is_finite`
/// and `is_nan` work elementwise; `exp`, `log`, `pow`, `sin` and `cos` too, by pass/pack_math.hpp. Any arithmetic
/// scalar joins in by conversion to `A`, so that a rule may keep its hyperparameters in double and still compute in
/// `A`.
template <class A, class Register = A>
struct pack {
  using element_type = A;
  static constexpr std::size_t size = sizeof(Register) / sizeof(A);

  Register value;

  pack() = default;
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
    requires std::is_arithmetic_v<T>
  PUSHPULL_DEVICE_INLINE pack(T x) : value(static_cast<A>(x)) {}
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class T>
    requires(std::same_as<T, Register> && !std::is_arithmetic_v<T>)
  PUSHPULL_DEVICE_INLINE pack(T x) : value(x) {}
};

// The operations are free templates, not members: nvcc refuses vector registers in the signature of every host-device
// function that is not a template.

#define PUSHPULL_PACK_WITH_SCALAR(op)                                 \
  PUSHPULL_EXEC_CHECK_DISABLE                                         \
  template <class A, class R, class T>                                \
    requires std::is_arithmetic_v<T>                                  \
  PUSHPULL_DEVICE_INLINE auto operator op(pack<A, R> const& a, T b) { \
    return a op pack<A, R>(b);                                        \
  }                                                                   \
  PUSHPULL_EXEC_CHECK_DISABLE                                         \
  template <class A, class R, class T>                                \
    requires std::is_arithmetic_v<T>                                  \
  PUSHPULL_DEVICE_INLINE auto operator op(T a, pack<A, R> const& b) { \
    return pack<A, R>(a) op b;                                        \
  }

// Behind the operator: its result.
#define PUSHPULL_PACK_BINARY(op, ...)                                                 \
  PUSHPULL_EXEC_CHECK_DISABLE                                                         \
  template <class A, class R>                                                         \
  PUSHPULL_DEVICE_INLINE auto operator op(pack<A, R> const& a, pack<A, R> const& b) { \
    return __VA_ARGS__;                                                               \
  }                                                                                   \
  PUSHPULL_PACK_WITH_SCALAR(op)

#define PUSHPULL_PACK_ARITHMETIC(op, ...)                                                 \
  PUSHPULL_PACK_BINARY(op, pack<A, R>{__VA_ARGS__})                                       \
  PUSHPULL_EXEC_CHECK_DISABLE                                                             \
  template <class A, class R>                                                             \
  PUSHPULL_DEVICE_INLINE pack<A, R>& operator op##=(pack<A, R>& a, pack<A, R> const& b) { \
    return a = a op b;                                                                    \
  }                                                                                       \
  PUSHPULL_EXEC_CHECK_DISABLE                                                             \
  template <class A, class R, class T>                                                    \
    requires std::is_arithmetic_v<T>                                                      \
  PUSHPULL_DEVICE_INLINE pack<A, R>& operator op##=(pack<A, R>& a, T b) {                 \
    return a = a op pack<A, R>(b);                                                        \
  }

PUSHPULL_PACK_ARITHMETIC(+, a.value + b.value)
PUSHPULL_PACK_ARITHMETIC(-, a.value - b.value)
PUSHPULL_PACK_ARITHMETIC(*, detail::product(a.value, b.value))
PUSHPULL_PACK_ARITHMETIC(/, a.value / b.value)
PUSHPULL_PACK_BINARY(<, mask<decltype(a.value < b.value)>{a.value < b.value})
PUSHPULL_PACK_BINARY(<=, mask<decltype(a.value < b.value)>{a.value <= b.value})
PUSHPULL_PACK_BINARY(>, mask<decltype(a.value < b.value)>{a.value > b.value})
PUSHPULL_PACK_BINARY(>=, mask<decltype(a.value < b.value)>{a.value >= b.value})
#undef PUSHPULL_PACK_ARITHMETIC
#undef PUSHPULL_PACK_BINARY

namespace detail {

/// a == b of registers and of scalars; exact, which the function object says to -Wfloat-equal too.
PUSHPULL_EXEC_CHECK_DISABLE
template <class R>
PUSHPULL_DEVICE_INLINE auto equal(R const& a, R const& b) {
  if constexpr (std::is_arithmetic_v<R>) {
    return cuda::std::equal_to<R>{}(a, b);
  } else {
    return a == b;
  }
}

}  // namespace detail

PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE auto operator==(pack<A, R> const& a, pack<A, R> const& b) {
  return mask<decltype(a.value < b.value)>{detail::equal(a.value, b.value)};
}
PUSHPULL_PACK_WITH_SCALAR(==)
// By way of ==, because vector instructions call a NaN neither equal nor unequal.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE auto operator!=(pack<A, R> const& a, pack<A, R> const& b) {
  return mask<decltype(a.value < b.value)>{!detail::equal(a.value, b.value)};
}
PUSHPULL_PACK_WITH_SCALAR(!=)
#undef PUSHPULL_PACK_WITH_SCALAR

/// Elementwise; both sides are evaluated.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M>
PUSHPULL_DEVICE_INLINE mask<M> operator&&(mask<M> const& a, mask<M> const& b) {
  return {a.value && b.value};
}
/// Elementwise; both sides are evaluated.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M>
PUSHPULL_DEVICE_INLINE mask<M> operator||(mask<M> const& a, mask<M> const& b) {
  return {a.value || b.value};
}
PUSHPULL_EXEC_CHECK_DISABLE
template <class M>
PUSHPULL_DEVICE_INLINE mask<M> operator!(mask<M> const& a) {
  return {!a.value};
}

PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> operator-(pack<A, R> const& a) {
  return {R(-a.value)};
}

/// Elementwise square root.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> sqrt(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {static_cast<A>(cuda::std::sqrt(x.value))};
  } else {
    return {detail::simd_sqrt(x.value)};
  }
}

/// Elementwise absolute value.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> abs(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return {x.value < A(0) ? A(-x.value) : x.value};
  } else {
    return {detail::simd_abs(x.value)};
  }
}

/// Elementwise `m ? a : b`; one of the two may be an arithmetic scalar.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M, class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> select(mask<M> const& m, pack<A, R> const& a,
                                         std::type_identity_t<pack<A, R>> const& b) {
  if constexpr (std::same_as<A, R>) {
    return m.value ? a : b;
  } else {
    return {detail::simd_select(m.value, a.value, b.value)};
  }
}
/// Same, with a number in the place of the first pack.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M, class A, class R, class T>
  requires std::is_arithmetic_v<T>
PUSHPULL_DEVICE_INLINE pack<A, R> select(mask<M> const& m, T a, pack<A, R> const& b) {
  return select(m, pack<A, R>(a), b);
}

/// Elementwise whether x is neither infinite nor NaN, under any flags of the compiler.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE auto is_finite(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return mask<bool>{detail::is_finite(x.value)};
  } else {
    return mask<decltype(x.value == x.value)>{detail::simd_is_finite(x.value)};
  }
}

/// Elementwise whether x is NaN, under any flags of the compiler.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE auto is_nan(pack<A, R> const& x) {
  if constexpr (std::same_as<A, R>) {
    return mask<bool>{detail::is_nan(x.value)};
  } else {
    return mask<decltype(x.value == x.value)>{detail::simd_is_nan(x.value)};
  }
}

/// Whether the mask holds anywhere in the pack.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M>
PUSHPULL_DEVICE_INLINE bool any(mask<M> const& m) {
  if constexpr (std::same_as<M, bool>) {
    return m.value;
  } else {
    return detail::simd_any(m.value);
  }
}

namespace detail {

/// 0 where the mask holds, elsewhere a b. One instruction of AVX-512, which compilers would not make of a product that `hide` keeps
/// from what follows.
PUSHPULL_EXEC_CHECK_DISABLE
template <class M, class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> product_unless(mask<M> const& m, pack<A, R> const& a, pack<A, R> const& b) {
#if !defined(__CUDA_ARCH__) && PUSHPULL_HAS_AVX512
  if constexpr (requires {
                  R::size;
                  m.value.data;
                } && sizeof(R) == 64 && std::same_as<A, float>) {
    R result(_mm512_maskz_mul_ps(static_cast<__mmask16>(~m.value.data), a.value, b.value));
    hide(result.data);
    return {result};
  }
#endif
  return a * select(m, 0, b);
}

/// `result`, or `a` where that is NaN: compilers that assume finite numbers may let a minimum lose it.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> or_nan([[maybe_unused]] pack<A, R> const& a, pack<A, R> const& result) {
  if constexpr (PUSHPULL_ASSUMES_FINITE && std::is_floating_point_v<A>) {
    return select(is_nan(a), a, result);
  } else {
    return result;
  }
}

}  // namespace detail

/// Elementwise maximum. Where `a` is NaN the result is NaN; where only `b` is, it is `a`.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> max(pack<A, R> const& a, std::type_identity_t<pack<A, R>> const& b) {
  if constexpr (std::same_as<A, R>) {
    return detail::or_nan(a, select(a < b, b, a));
  } else {
    return detail::or_nan(a, pack<A, R>{detail::simd_max(a.value, b.value)});
  }
}

/// Elementwise minimum; NaN as in `max`.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> min(pack<A, R> const& a, std::type_identity_t<pack<A, R>> const& b) {
  if constexpr (std::same_as<A, R>) {
    return detail::or_nan(a, select(b < a, b, a));
  } else {
    return detail::or_nan(a, pack<A, R>{detail::simd_min(a.value, b.value)});
  }
}

/// The greater of a number and each element.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R, class T>
  requires std::is_arithmetic_v<T>
PUSHPULL_DEVICE_INLINE pack<A, R> max(T a, pack<A, R> const& b) {
  return max(pack<A, R>(a), b);
}
/// The lesser of a number and each element.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R, class T>
  requires std::is_arithmetic_v<T>
PUSHPULL_DEVICE_INLINE pack<A, R> min(T a, pack<A, R> const& b) {
  return min(pack<A, R>(a), b);
}

/// Elementwise 1, -1, or 0 where x is 0 or NaN.
PUSHPULL_EXEC_CHECK_DISABLE
template <class A, class R>
PUSHPULL_DEVICE_INLINE pack<A, R> sign(pack<A, R> const& x) {
  return select(x > 0, 1, select(x < 0, pack<A, R>(-1), 0));
}

}  // namespace pushpull
