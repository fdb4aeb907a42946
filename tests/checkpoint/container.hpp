/// @file
/// Files in the format's own terms, right or wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace pushpull::test {

/// The length of `json`, then `json`, then `data`.
inline std::string container(std::string_view json, std::string_view data = "") {
  std::uint64_t const length = json.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes.append(json).append(data);
}

}  // namespace pushpull::test
