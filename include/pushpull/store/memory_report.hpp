/// @file
/// The bytes that a store holds on one rank, by their purpose.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Bytes on one device, or on several.
struct memory_use {
  std::size_t masters = 0;    ///< Of the slices that the device owns, also where they are a part of its mirror.
  std::size_t states = 0;     ///< Of these slices, those of rows, columns and matrices included.
  std::size_t mirrors = 0;    ///< Without the part that is the master.
  std::size_t gradients = 0;  ///< Of a parameter_store.
  std::size_t residuals = 0;  ///< Of compressed gradients.
  std::size_t sums = 0;       ///< Of micro-batches, or of all sources before the phases of a norm.
  std::size_t exchange = 0;   ///< Codes, and copies of tensors on their way to an owner or from it.
  std::size_t padding = 0;    ///< Between arrays.

  std::size_t total() const { return masters + states + mirrors + gradients + residuals + sums + exchange + padding; }
  memory_use& operator+=(memory_use const& other) {
    masters += other.masters;
    states += other.states;
    mirrors += other.mirrors;
    gradients += other.gradients;
    residuals += other.residuals;
    sums += other.sums;
    exchange += other.exchange;
    padding += other.padding;
    return *this;
  }
  friend bool operator==(memory_use const&, memory_use const&) = default;
};

/// The bytes that a store holds on the devices of this rank: all of the size of its tensors. Names and clocks of keys,
/// partial sums of norms, tables of rows, and the copies and workspaces of steps over whole matrices are left out.
struct memory_report {
  int rank = 0;
  std::vector<memory_use> devices;

  memory_use total() const {
    memory_use sum;
    for (memory_use const& each : devices) sum += each;
    return sum;
  }
  memory_report& operator+=(memory_report const& other) {
    if (devices.size() < other.devices.size()) devices.resize(other.devices.size());
    for (std::size_t n = 0; n < other.devices.size(); ++n) devices[n] += other.devices[n];
    return *this;
  }
  friend bool operator==(memory_report const&, memory_report const&) = default;
};

namespace detail {

/// "512 B", "1.5 KiB", "3.0 GiB"
inline std::string text_of_bytes(std::size_t bytes) {
  static constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  auto number = static_cast<double>(bytes);
  for (; number >= 1024 && unit + 1 < units.size(); ++unit) number /= 1024;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.1f %s", number, units[unit]);
  return text.data();
}

}  // namespace detail

/// "1.5 KiB: masters 512 B, states 1.0 KiB", without the purposes of no bytes.
inline std::string to_string(memory_use const& use) {
  std::string text = detail::text_of_bytes(use.total());
  char const* before = ": ";
  for (auto const& [name, bytes] :
       {std::pair{"masters", use.masters}, std::pair{"states", use.states}, std::pair{"mirrors", use.mirrors},
        std::pair{"gradients", use.gradients}, std::pair{"residuals", use.residuals}, std::pair{"sums", use.sums},
        std::pair{"exchange", use.exchange}, std::pair{"padding", use.padding}}) {
    if (bytes == 0) continue;
    text.append(std::exchange(before, ", ")).append(name).append(" ").append(detail::text_of_bytes(bytes));
  }
  return text;
}
/// A line per device, and one for their total if there are several.
inline std::string to_string(memory_report const& report) {
  std::string const rank = "rank " + std::to_string(report.rank);
  std::string text;
  for (std::size_t n = 0; n < report.devices.size(); ++n)
    text += rank + ", device " + std::to_string(n) + ": " + to_string(report.devices[n]) + "\n";
  if (report.devices.size() != 1) text += rank + ", in total: " + to_string(report.total()) + "\n";
  return text;
}
inline std::ostream& operator<<(std::ostream& out, memory_use const& use) { return out << to_string(use); }
inline std::ostream& operator<<(std::ostream& out, memory_report const& report) { return out << to_string(report); }

}  // namespace pushpull
