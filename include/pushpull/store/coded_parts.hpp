/// @file
/// Codes of a device's part of a state, from and to floats in memory of the host.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/registers/detail/state_codes.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/tensor/copy_bytes.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Of a state that is on its way.
inline constexpr std::int64_t staged_states = std::int64_t{1} << 16;

/// f(codes on the host, codes on the device, first element, bytes of codes, bytes of units) for so many elements of state number s at a time that no
/// memory is allocated.
/// @param there  An element that begins a block.
template <CodedStates S, class F>
void for_each_staged_part(coded_pointer<S::block> const& there, std::size_t s, std::int64_t size, F const& f) {
  std::byte codes[staged_states];
  float units[staged_states / S::block];
  for (std::int64_t i = 0; i < size; i += staged_states) {
    std::int64_t const blocks = (std::min(size - i, staged_states) + S::block - 1) / S::block;
    f(coded_pointer<S::block>{codes, units, 0}, there + i, i,
      static_cast<std::size_t>(blocks * S::block * S::bits[s] / 8), static_cast<std::size_t>(blocks) * sizeof(float));
  }
}

/// Decodes `size` elements of state number `s`, from one on that begins a block. Waits.
template <CodedStates S, std::size_t States, Device D>
void read_coded_part(D const& device, coded_pointer<S::block> const& from, std::size_t s, std::int64_t size,
                     float* to) {
  if constexpr (HostDevice<D>) {
    decode_state<S, States>(s, from, size, to);
  } else if (!S::is_code(s)) {
    copy_bytes(cpu_device<>(), to, device, from.elements(), static_cast<std::size_t>(size) * sizeof(float));
  } else {
    for_each_staged_part<S>(
        from, s, size, [&](auto const& here, auto const& there, std::int64_t i, std::size_t codes, std::size_t units) {
          copy_bytes(cpu_device<>(), here.codes(S::bits[s]), device, there.codes(S::bits[s]), codes);
          copy_bytes(cpu_device<>(), here.unit(), device, there.unit(), units);
          decode_state<S, States>(s, here, std::min(size - i, staged_states), to + i);
        });
  }
}

/// Encodes them. What is left of the last block becomes zero. @param from  Floats, of any alignment.
template <CodedStates S, std::size_t States, Device D>
void write_coded_part(D const& device, coded_pointer<S::block> const& to, std::size_t s, std::int64_t size,
                      void const* from) {
  if constexpr (HostDevice<D>) {
    encode_state<S, States>(s, from, size, to);
  } else if (!S::is_code(s)) {
    copy_bytes(device, to.elements(), cpu_device<>(), from, static_cast<std::size_t>(size) * sizeof(float));
  } else {
    for_each_staged_part<S>(
        to, s, size, [&](auto const& here, auto const& there, std::int64_t i, std::size_t codes, std::size_t units) {
          encode_state<S, States>(s, static_cast<std::byte const*>(from) + static_cast<std::size_t>(i) * sizeof(float),
                                  std::min(size - i, staged_states), here);
          copy_bytes(device, there.codes(S::bits[s]), cpu_device<>(), here.codes(S::bits[s]), codes);
          copy_bytes(device, there.unit(), cpu_device<>(), here.unit(), units);
        });
  }
}

}  // namespace pushpull::detail
