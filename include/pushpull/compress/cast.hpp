/// @file
/// Gradients that travel as a narrower element type.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include <cuda/std/limits>
#include <pushpull/compress/encode.hpp>
#include <pushpull/compress/primitives.hpp>
#include <pushpull/concepts/compressor.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/code.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

namespace detail {

/// 16-bit elements travel as they are, those of 8 bits with a scale.
template <class E>
struct cast_code {
  using type = E;
};
template <pushpull::detail::Float8 E>
struct cast_code<E> {
  using type = scaled_code<E>;
};

}  // namespace detail

/// Every gradient element is rounded to the nearest `E`, an element type narrower than the gradients', which are float,
/// half or bfloat16.
/// half: what exceeds 65504 becomes infinite, what is below 2^-25 zero. bfloat16: float's range, 8 significant bits.
/// float8_e4m3, float8_e5m2: elements are divided by a scale per source and key, and multiplied by it in the pass: the
/// least power of two, and at least 2^-126, for which all finite elements of this push fit (up to 448 or 57344 times
/// the scale); 1 where all are zero. NaN and infinity become NaN. One more read of the gradient, for its maximum.
/// 2 bytes per element on the way, or 1 and a scale; with error feedback 4 bytes of residual per element and source.
template <class E>
  requires std::same_as<E, half> || std::same_as<E, bfloat16> || pushpull::detail::Float8<E>
struct cast {
  using policy_kind = compressor_tag;
  template <class T>
  static constexpr bool takes = FloatingElement<T> && std::same_as<accumulation_t<T>, float> && (sizeof(E) < sizeof(T));
  template <class T>
  using encoded_type = typename detail::cast_code<E>::type;

  /// Whether what rounding takes from an element is kept and added to the next push's. Dropped where it is not finite.
  bool error_feedback = false;
};

namespace detail {

/// The scale, from the bits of the largest finite magnitude. Both formats reach up to 1.75 times a power of two.
template <pushpull::detail::Float8 E>
PUSHPULL_HOST_DEVICE inline std::uint32_t scale_exponent(std::uint32_t magnitude) {
  constexpr std::uint32_t largest = std::same_as<E, float8_e4m3> ? 8 : 15;
  if (magnitude == 0) return 127;
  std::uint32_t const needed = (magnitude >> 23) + ((magnitude & 0x7FFFFFU) > 0x600000U ? 1 : 0);
  return needed > largest ? needed - largest : 1;
}

/// Converts `sum` to `E`, scaled where `E` has 8 bits, and leaves what rounding took in the residual if there is one.
/// 4 bytes read per float gradient, 1 or 2 written; 8 more for a residual.
template <class E, class T, class Execution>
struct cast_body {
  using block_type = typename Execution::template block_type<float, float, T, E>;
  static constexpr std::int64_t grain = pass::grain_of<Execution, block_type>;

  addends<T> sum;
  E* codes;
  std::uint32_t const* largest;  ///< Bits of the largest finite magnitude, for 8 bits.
  float* scale;

  static std::int64_t tasks(std::int64_t size) { return (size + grain - 1) / grain; }

  PUSHPULL_EXEC_CHECK_DISABLE
  PUSHPULL_HOST_DEVICE void operator()(std::int64_t task) const {
    float up = 1, down = 1;
    if constexpr (pushpull::detail::Float8<E>) {
      std::uint32_t const exponent = scale_exponent<E>(*largest);
      up = pushpull::detail::bits_to_float(exponent << 23);
      down = pushpull::detail::bits_to_float((254 - exponent) << 23);
      if (task == 0) *scale = up;
    }
    std::int64_t const first = task * grain;
    std::int64_t const last = first + grain < sum.size ? first + grain : sum.size;
    for (std::int64_t i = first; i < last; i += block_type::size) {
      block_type x;
      sum.load(x, i);
      block_type y = x;
      if constexpr (pushpull::detail::Float8<E>)
        pushpull::detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
          y.x[j] = select(is_finite(x.x[j]), x.x[j] * down, cuda::std::numeric_limits<float>::quiet_NaN());
        });
      y.store(codes + i);
      if (sum.residual == nullptr) continue;
      block_type sent;
      sent.load(static_cast<E const*>(codes) + i);
      pushpull::detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        auto const rest = x.x[j] - sent.x[j] * up;
        x.x[j] = select(is_finite(rest), rest, 0.0F);
      });
      x.store(sum.residual + i);
    }
  }
};

}  // namespace detail

/// Codes are the elements; behind those of 8 bits stand the scale, the largest magnitude and what finding it needs.
template <class E, class T, Device D>
struct encoder<cast<E>, T, D> {
  using C = cast<E>;
  using primitives = compress::primitives<typename D::execution>;
  static constexpr bool is_scaled = pushpull::detail::Float8<E>;
  static constexpr std::int64_t header = 64;

  static std::size_t residual_bytes(C const& compressor, std::int64_t size) {
    return compressor.error_feedback ? static_cast<std::size_t>(padded(size)) * sizeof(float) : 0;
  }
  static std::size_t code_bytes(D const& device, C const&, std::int64_t size) {
    auto const elements = static_cast<std::size_t>(padded(size)) * sizeof(E);
    if constexpr (is_scaled) return elements + header + primitives::template max_magnitude_bytes<T>(device, size);
    return elements;
  }
  static std::size_t wire_bytes(C const&, std::int64_t size) {
    return static_cast<std::size_t>(padded(size)) * sizeof(E) + (is_scaled ? sizeof(float) : 0);
  }
  static void encode(D const& device, C const& compressor, T const* gradient, std::int64_t size, void* residual,
                     void* codes) {
    addends<T> const sum(gradient, compressor.error_feedback ? static_cast<float*>(residual) : nullptr, size);
    auto* const elements = static_cast<E*>(codes);
    std::uint32_t* largest = nullptr;
    if constexpr (is_scaled) {
      if (size == 0) return;
      largest = reinterpret_cast<std::uint32_t*>(behind(codes, size)) + 1;
      primitives::max_magnitude(device, sum, behind(codes, size) + header, largest);
    }
    using body = detail::cast_body<E, T, typename D::execution>;
    device.for_each(body::tasks(size), body{sum, elements, largest, reinterpret_cast<float*>(behind(codes, size))});
  }
  template <class F>
  static auto source(C const&, void const* codes, std::int64_t size, std::int64_t first, std::int64_t count,
                     F const& readable) {
    auto const* const elements = static_cast<E const*>(
        readable(static_cast<E const*>(codes) + first, static_cast<std::size_t>(padded(count)) * sizeof(E)));
    if constexpr (is_scaled) {
      auto const* const scale =
          static_cast<float const*>(readable(behind(const_cast<void*>(codes), size), sizeof(float)));
      return typename scaled_code<E>::source_type{elements, scale};
    } else {
      return elements;
    }
  }

 private:
  static char* behind(void* codes, std::int64_t size) {
    return static_cast<char*>(codes) + padded(size) * std::int64_t{sizeof(E)};
  }
};

static_assert(Compressor<cast<half>> && Compressor<cast<bfloat16>>);
static_assert(Compressor<cast<float8_e4m3>> && Compressor<cast<float8_e5m2>>);

}  // namespace pushpull::compress
