/// @file
/// Copies the elements of a safetensors entry into a tensor, of another element type too.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// Which element types `copy` converts into one another.
enum class conversion {
  exact,  ///< Only where every value of the file's type is one of the tensor's: BF16, F16 or U8 into float, F32 into double.
  rounded  ///< Any two: to nearest even as pushpull::copy does, so that bits may be lost.
};

namespace detail {

/// The values that an element type has: significant bits, the exponents of its smallest and above its largest value.
struct value_range {
  int digits, smallest, largest;
  bool infinite;
};
// clang-format off
template <class T> inline constexpr value_range values_of{};
template <> inline constexpr value_range values_of<double>{53, -1074, 1024, true};
template <> inline constexpr value_range values_of<float>{24, -149, 128, true};
template <> inline constexpr value_range values_of<half>{11, -24, 16, true};
template <> inline constexpr value_range values_of<bfloat16>{8, -133, 128, true};
template <> inline constexpr value_range values_of<float8_e5m2>{3, -16, 16, true};
template <> inline constexpr value_range values_of<float8_e4m3>{4, -9, 9, false};
template <> inline constexpr value_range values_of<std::int64_t>{63, 0, 63, false};
template <> inline constexpr value_range values_of<std::int32_t>{31, 0, 31, false};
template <> inline constexpr value_range values_of<std::uint8_t>{8, 0, 8, false};
// clang-format on

/// Whether every value of `From` is one of `To`.
template <class From, class To>
inline constexpr bool converts_exactly =
    std::same_as<From, To> ||
    ((std::integral<From> || !std::integral<To>) && values_of<From>.digits <= values_of<To>.digits &&
     values_of<From>.smallest >= values_of<To>.smallest && values_of<From>.largest <= values_of<To>.largest &&
     (!values_of<From>.infinite || values_of<To>.infinite) &&
     !(std::signed_integral<From> && std::unsigned_integral<To>));

using readable_types =
    std::tuple<float, double, half, bfloat16, float8_e4m3, float8_e5m2, std::int32_t, std::int64_t, std::uint8_t>;

/// f(std::type_identity<T>) for the element type that the format calls `dtype`. @returns whether there is one
template <class F>
bool visit_dtype(std::string_view dtype, F const& f) {
  return [&]<class... Ts>(std::type_identity<std::tuple<Ts...>>) {
    return ((safetensors_dtype<Ts>::name == dtype && (f(std::type_identity<Ts>()), true)) || ...);
  }(std::type_identity<readable_types>());
}

/// Converts elements that may lie at any address.
template <class From, class To>
void convert_bytes(entry const& from, tensor_view<To> const& to) {
  tensor_view<From const> source(reinterpret_cast<From const*>(from.bytes.data()), from.shape);
  std::vector<From> aligned;
  if (reinterpret_cast<std::uintptr_t>(from.bytes.data()) % alignof(From) != 0) {
    aligned.resize(to.size());
    std::memcpy(static_cast<void*>(aligned.data()), from.bytes.data(), from.bytes.size());
    source = {aligned.data(), from.shape};
  }
  pushpull::copy(source, to);
}

}  // namespace detail

/// Copies the elements of an entry to a tensor of its shape in host memory. Other element types than the file's are
/// converted where no bit is lost, and with conversion::rounded also where bits may be.
/// @throws file_error unless the entry has the tensor's shape and an element type that may be converted to the tensor's;
/// the tensor then holds what it held
/// Cost: a read and a write of each element.
template <OutputTensor T>
  requires detail::LastingHostTensor<T>
void copy(entry const& from, T&& to, conversion allowed = conversion::exact) {
  using pushpull::detail::expects;
  using element = element_of<T>;
  auto const view = view_of(to);
  std::string_view const dtype = safetensors_dtype<element>::name;
  auto const expect = [&](bool good, char const* advice) {
    expects<file_error>(good, [&] {
      return "copy: tensor " + detail::in_quotes(from.name) + ": " + std::string(dtype) + " of shape " +
             to_string(view.shape()) + " expected, the file has " + detail::in_quotes(from.dtype) + " of shape " +
             to_string(from.shape) + advice;
    });
  };
  expect(from.shape == view.shape(), "");
  if (from.dtype == dtype) {
    if (!from.bytes.empty()) std::memcpy(static_cast<void*>(view.data()), from.bytes.data(), from.bytes.size());
    return;
  }
  bool const known = detail::visit_dtype(from.dtype, [&]<class From>(std::type_identity<From>) {
    expect(detail::converts_exactly<From, element> || allowed == conversion::rounded,
           ", whose values are not all values of that type: conversion::rounded rounds them");
    detail::convert_bytes<From>(from, tensor_view<element>(view.data(), view.shape()));
  });
  expect(known, ", a type that no tensor has");
}

}  // namespace pushpull::checkpoint
