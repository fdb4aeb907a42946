/// @file
/// Whole-array primitives for encoders on CPUs: the largest magnitude, a histogram of digits, prefix sums.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>

#include <pushpull/compress/encode.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/static_for.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/registers/block.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

namespace detail {

/// The bits of a magnitude, which order as magnitudes do. NaN is above infinity.
PUSHPULL_HOST_DEVICE inline std::uint32_t magnitude_bits(float x) {
  return pushpull::detail::float_to_bits(x) & 0x7FFFFFFFU;
}

/// partial[task] = the largest finite magnitude in 2^15 elements.
template <class T>
struct max_magnitude_body {
  using block_type = pass::host_execution::block_type<float>;
  static constexpr std::int64_t grain = pass::host_execution::grain;

  addends<T> sum;
  float* partial;

  void operator()(std::int64_t task) const {
    using V = typename block_type::pack_type;
    V largest[block_type::count];
    for (V& x : largest) x = V(0);
    for (std::int64_t i = task * grain; i < std::min((task + 1) * grain, sum.size); i += block_type::size) {
      block_type x;
      sum.load(x, i);
      pushpull::detail::static_for<block_type::count>([&](auto j) PUSHPULL_INLINE_LAMBDA {
        V const magnitude = abs(x.x[j]);
        largest[j] = max(largest[j], select(is_finite(magnitude), magnitude, 0.0F));
      });
    }
    auto const* const lanes = reinterpret_cast<float const*>(&largest);
    partial[task] = *std::max_element(lanes, lanes + block_type::size);
  }
};

/// *to = the bits of the largest of `size` floats.
struct largest_of {
  float const* from;
  std::int64_t size;
  std::uint32_t* to;

  void operator()(std::int64_t) const { *to = magnitude_bits(*std::max_element(from, from + size)); }
};

/// rows[task][d] = how many of 2^15 elements have digit d. Elements come in whole blocks of 64.
template <class Digit>
struct histogram_body {
  static constexpr std::int64_t grain = pass::host_execution::grain, block = 64;

  Digit digit;
  float const* from;
  std::int64_t size;
  std::uint32_t bins;
  std::uint32_t* rows;

  void operator()(std::int64_t task) const {
    std::uint32_t* const row = rows + task * bins;
    std::fill_n(row, bins, 0U);
    auto const digit_of = digit.on_host();
    for (std::int64_t i = task * grain; i < std::min((task + 1) * grain, size); i += block) {
      std::uint32_t digits[block], counted = 0;
      for (std::int64_t j = 0; j < block; ++j) digits[j] = digit_of(from[i + j]);
      for (std::int64_t j = 0; j < block; ++j) counted += digits[j] < bins ? 1 : 0;
      if (counted == 0) continue;
      for (std::int64_t j = 0; j < block; ++j)
        if (digits[j] < bins) ++row[digits[j]];
    }
  }
};

/// counts[d] = the sum of rows[...][d], for 64 digits per task.
struct sum_rows {
  static constexpr std::uint32_t width = 64;

  std::uint32_t const* rows;
  std::int64_t size;
  std::uint32_t bins;
  std::uint32_t* counts;

  void operator()(std::int64_t task) const {
    std::uint32_t sums[width] = {};
    std::uint32_t const first = static_cast<std::uint32_t>(task) * width;
    for (std::int64_t r = 0; r < size; ++r)
      for (std::uint32_t d = 0; d < width; ++d) sums[d] += rows[r * bins + first + d];
    std::copy_n(sums, width, counts + first);
  }
};

struct exclusive_sum_body {
  std::uint64_t* x;
  std::int64_t size;

  void operator()(std::int64_t) const { std::exclusive_scan(x, x + size, x, std::uint64_t{0}); }
};

}  // namespace detail

/// Specialised per execution. The ..._bytes are what a function needs as scratch memory.
template <class Execution>
struct primitives {
  static_assert(sizeof(Execution) == 0, "Compressor: on GPUs it needs #include <pushpull/compress/primitives.cuh>");
};

template <>
struct primitives<pass::host_execution> {
  /// Bits of a magnitude that one histogram tells apart.
  static constexpr int digit_bits = 11;

  template <class T, Device D>
  static std::size_t max_magnitude_bytes(D const&, std::int64_t size) {
    return static_cast<std::size_t>(tasks(size)) * sizeof(float);
  }
  /// *to = the bits of the largest finite magnitude, 0 if there is none. `sum` has elements.
  template <Device D, class T>
  static void max_magnitude(D const& device, addends<T> const& sum, void* scratch, std::uint32_t* to) {
    auto* const partial = static_cast<float*>(scratch);
    device.for_each(tasks(sum.size), detail::max_magnitude_body<T>{sum, partial});
    device.for_each(1, detail::largest_of{partial, tasks(sum.size), to});
  }

  template <class Digit, Device D>
  static std::size_t histogram_bytes(D const&, std::int64_t size) {
    return static_cast<std::size_t>(tasks(size)) * (sizeof(std::uint32_t) << digit_bits);
  }
  /// counts[d] = how many elements have digit d < 2^digit_bits; others do not count. `size`: a multiple of 64.
  template <Device D, class Digit>
  static void histogram(D const& device, Digit const& digit, float const* from, std::int64_t size, void* scratch,
                        std::uint32_t* counts) {
    constexpr std::uint32_t bins = 1U << digit_bits;
    auto* const rows = static_cast<std::uint32_t*>(scratch);
    device.for_each(tasks(size), detail::histogram_body<Digit>{digit, from, size, bins, rows});
    device.for_each(bins / detail::sum_rows::width, detail::sum_rows{rows, tasks(size), bins, counts});
  }

  template <Device D>
  static std::size_t exclusive_sum_bytes(D const&, std::int64_t) {
    return 0;
  }
  /// x[i] = x[0] + ... + x[i - 1].
  template <Device D>
  static void exclusive_sum(D const& device, std::uint64_t* x, std::int64_t size, void*) {
    device.for_each(1, detail::exclusive_sum_body{x, size});
  }

 private:
  static std::int64_t tasks(std::int64_t size) {
    return (size + pass::host_execution::grain - 1) / pass::host_execution::grain;
  }
};

}  // namespace pushpull::compress
