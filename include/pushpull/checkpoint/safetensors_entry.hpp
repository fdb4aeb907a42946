/// @file
/// The entries of a safetensors file: tensors by name, and metadata.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian, and bytes are copied as they are");

/// Text that goes with a file: names and values, both UTF-8.
using metadata_map = std::map<std::string, std::string, std::less<>>;

/// One tensor of a file. Does not own `bytes`: those of a file that was read live as long as its `safetensors_file`.
struct entry {
  std::string name;                  ///< UTF-8; any but "__metadata__"
  std::string dtype;                 ///< the format's name of the element type: "F32", also types that C++ has not
  pushpull::shape shape;             ///< of elements
  std::span<std::byte const> bytes;  ///< row-major, little-endian, without gaps; not always aligned to the element
};

/// The format's `name` of element type `T`.
template <class T>
struct safetensors_dtype {};

// clang-format off
template <> struct safetensors_dtype<float>        { static constexpr std::string_view name = "F32"; };
template <> struct safetensors_dtype<double>       { static constexpr std::string_view name = "F64"; };
template <> struct safetensors_dtype<half>         { static constexpr std::string_view name = "F16"; };
template <> struct safetensors_dtype<bfloat16>     { static constexpr std::string_view name = "BF16"; };
template <> struct safetensors_dtype<float8_e4m3>  { static constexpr std::string_view name = "F8_E4M3"; };
template <> struct safetensors_dtype<float8_e5m2>  { static constexpr std::string_view name = "F8_E5M2"; };
template <> struct safetensors_dtype<std::int32_t> { static constexpr std::string_view name = "I32"; };
template <> struct safetensors_dtype<std::int64_t> { static constexpr std::string_view name = "I64"; };
template <> struct safetensors_dtype<std::uint8_t> { static constexpr std::string_view name = "U8"; };
// clang-format on

/// Bits of one element of the type that the format calls `dtype`; nothing for a name that it does not have.
constexpr std::optional<std::size_t> dtype_bits(std::string_view dtype) {
  constexpr std::pair<std::string_view, std::size_t> table[] = {
      {"F32", 32}, {"F64", 64},        {"F16", 16},    {"BF16", 16},   {"I32", 32},    {"I64", 64},
      {"U8", 8},   {"I8", 8},          {"BOOL", 8},    {"I16", 16},    {"U16", 16},    {"U32", 32},
      {"U64", 64}, {"C64", 64},        {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F4", 4},   {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6},
  };
  for (auto const& [name, bits] : table)
    if (name == dtype) return bits;
  return std::nullopt;
}

namespace detail {

template <class T>
concept LastingHostTensor =
    LastingTensorLike<T> &&
    std::same_as<typename decltype(view_of(std::declval<T&>()))::device_type::memory_space, host_memory>;

}  // namespace detail

/// The entry of a tensor in host memory: a view, or a contiguous range of elements. The tensor must outlive the entry.
template <detail::LastingHostTensor T>
entry entry_of(std::string name, T&& tensor) {
  auto const view = view_of(tensor);
  return {std::move(name), std::string(safetensors_dtype<element_of<T>>::name), view.shape(),
          std::as_bytes(std::span(view.data(), view.size()))};
}

namespace detail {

/// Longer headers are refused, by us as by other readers.
inline constexpr std::uint64_t max_header_bytes = 100'000'000;
inline constexpr std::string_view metadata_name = "__metadata__";

/// `text` for a message: in quotes, shortened, without control characters, whoever wrote it.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t limit = 80;
  std::size_t length = std::min(text.size(), limit);
  while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;  // between two characters
  std::string result = "\"";
  for (char const c : text.substr(0, length)) result += (c >= 0 && c < ' ') || c == 0x7F ? '?' : c;
  return result + (length < text.size() ? "...\"" : "\"");
}

/// Bytes of a tensor. @throws Error if there is no such tensor; the message begins with `where()`.
template <class Error, class Where>
std::uint64_t bytes_of(std::string_view dtype, shape const& shape, Where const& where) {
  using pushpull::detail::expects;
  auto const bits = dtype_bits(dtype);
  expects<Error>(bits.has_value(), [&] { return where() + "a dtype of the format expected, got " + in_quotes(dtype); });
  expects<Error>(shape.size() <= std::numeric_limits<std::uint64_t>::max() / *bits, [&] {
    return where() + "less than 2^64 bits expected, got " + to_string(shape) + " elements of " + std::to_string(*bits) +
           " bits";
  });
  std::uint64_t const total = shape.size() * *bits;
  expects<Error>(total % 8 == 0, [&] {
    return where() + "whole bytes expected, got " + to_string(shape) + " elements of " + std::to_string(*bits) +
           " bits";
  });
  return total / 8;
}

}  // namespace detail

}  // namespace pushpull::checkpoint
