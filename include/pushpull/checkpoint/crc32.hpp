/// @file
/// The checksum of files: CRC-32 as in zlib, gzip and PNG, so that other programs can compare it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// The checksum of bytes that come in pieces.
class crc32 {
 public:
  void add(std::span<std::byte const> bytes) {
    for (; bytes.size() >= 8; bytes = bytes.subspan(8)) {  // eight table look-ups that do not wait for one another
      std::uint64_t word = 0;
      std::memcpy(&word, bytes.data(), sizeof(word));
      word ^= state_;
      state_ = 0;
      for (std::size_t i = 0; i < 8; ++i) state_ ^= tables[7 - i][word >> (8 * i) & 0xFF];
    }
    for (std::byte const b : bytes)
      state_ = tables[0][(state_ ^ std::to_integer<std::uint32_t>(b)) & 0xFF] ^ state_ >> 8;
  }

  std::uint32_t value() const { return ~state_; }
  /// Eight hexadecimal digits.
  std::string text() const {
    std::string result(8, '0');
    std::uint32_t rest = value();
    for (std::size_t i = 8; i-- > 0; rest >>= 4) result[i] = "0123456789abcdef"[rest & 0xF];
    return result;
  }

 private:
  using table = std::array<std::uint32_t, 256>;
  /// Of a byte that 0 to 7 bytes follow.
  static constexpr std::array<table, 8> tables = [] {
    std::array<table, 8> result{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t x = i;
      for (int bit = 0; bit < 8; ++bit) x = x >> 1 ^ (x & 1 ? 0xEDB88320U : 0U);
      result[0][i] = x;
    }
    for (std::size_t n = 1; n < 8; ++n)
      for (std::size_t i = 0; i < 256; ++i) result[n][i] = result[n - 1][i] >> 8 ^ result[0][result[n - 1][i] & 0xFF];
    return result;
  }();

  std::uint32_t state_ = ~std::uint32_t{0};
};

inline std::string crc32_of(std::string const& text) {
  crc32 sum;
  sum.add(std::as_bytes(std::span(text)));
  return sum.text();
}

}  // namespace pushpull::checkpoint::detail
