/// @file
/// First values of the rows of a table.
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/pack.hpp>
#include <pushpull/update/random.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Writes all values of the first row of an id. They should depend on the id alone: then runs agree, and an id that comes back
/// after its eviction begins as it did before.
/// Needs:  copies; a const call operator (std::int64_t id, std::span<W> row), where W is the store's master type.
/// Models: zero_rows, normal_rows, uniform_rows, and lambdas.
template <class I, class W>
concept RowInitializer = std::copy_constructible<I> && requires(I const& i, std::int64_t id, std::span<W> row) {
  { i(id, row) } -> std::same_as<void>;
};

/// Zeros.
struct zero_rows {
  template <ElementType W>
  void operator()(std::int64_t, std::span<W> row) const {
    for (W& w : row) w = W{};
  }
};

/// Normal with mean 0 and standard deviation `sigma`: update::standard_normal of seed, id and the place in the row.
struct normal_rows {
  double sigma = 0.01;     ///< Of the normal distribution.
  std::uint64_t seed = 0;  ///< Other seeds, other values.

  /// @throws invalid_argument
  void validate() const {
    detail::expects<invalid_argument>(std::isfinite(sigma) && sigma >= 0, [&] {
      return "normal_rows: a finite sigma of at least 0 expected, got " + std::to_string(sigma);
    });
  }
  template <ElementType W>
  void operator()(std::int64_t id, std::span<W> row) const {
    std::int64_t place = 0;
    for (W& w : row) w = convert<W>(sigma * update::standard_normal<pack<double>>(seed, id, place++).value);
  }
};

/// Uniform in (-scale, scale), from update::philox of seed, id and the place in the row.
struct uniform_rows {
  double scale = 0.01;     ///< Half the width of the interval.
  std::uint64_t seed = 0;  ///< Other seeds, other values.

  /// @throws invalid_argument
  void validate() const {
    detail::expects<invalid_argument>(std::isfinite(scale) && scale >= 0, [&] {
      return "uniform_rows: a finite scale of at least 0 expected, got " + std::to_string(scale);
    });
  }
  template <ElementType W>
  void operator()(std::int64_t id, std::span<W> row) const {
    auto const bits = static_cast<std::uint64_t>(id);
    for (std::size_t i = 0; i < row.size(); ++i) {
      auto const numbers = update::philox({static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(i / 4 >> 32),
                                           static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)},
                                          seed);
      row[i] = convert<W>(scale * ((static_cast<double>(numbers[i % 4]) + 0.5) * 0x1p-31 - 1));
    }
  }
};

static_assert(RowInitializer<zero_rows, float> && RowInitializer<normal_rows, float> &&
              RowInitializer<uniform_rows, bfloat16>);

}  // namespace pushpull
