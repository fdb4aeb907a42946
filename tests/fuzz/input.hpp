/// @file
/// The bytes that a fuzzer is given, as decisions of a random program; what a program must not do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace pushpull::test {

/// Behind the last byte all decisions are 0.
class fuzz_input {
 public:
  explicit fuzz_input(std::span<std::uint8_t const> bytes) : bytes_(bytes) {}

  bool ended() const { return bytes_.empty(); }
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    std::uint8_t const first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }
  /// A number below `count`, which is 65,536 at most.
  std::size_t below(std::size_t count) {
    if (count <= 1) return 0;
    std::size_t number = byte();
    if (count > 256) number = number * 256 + byte();
    return number % count;
  }
  /// True once in `count` times.
  bool once_in(std::size_t count) { return below(count) == count - 1; }

 private:
  std::span<std::uint8_t const> bytes_;
};

/// Ends the program unless `holds`; the driver says which input it was.
inline void fuzz_check(bool holds, char const* rule) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", rule);
  std::abort();
}

}  // namespace pushpull::test
