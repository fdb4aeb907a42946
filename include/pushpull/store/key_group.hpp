/// @file
/// The memory of keys that were initialised together: one arena per device, cut into slices.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/placement.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Several arrays in one allocation. Each begins 4,416 bytes further into its page than the one before,
/// because arrays that begin at equal offsets modulo 4 KiB evict each other from the caches.
template <Device D>
class arena {
 public:
  arena() = default;

  /// @param first  Number of arrays in arenas that the same pass reads: staggering goes on from there.
  arena(D const& device, std::span<std::size_t const> bytes, std::size_t first) : offsets_(bytes.size()) {
    constexpr std::size_t page = 4096, stagger = 4416;
    std::size_t end = 0;
    for (std::size_t j = 0; j < bytes.size(); ++j) {
      if (bytes[j] == 0) continue;
      offsets_[j] = (end + page - 1) / page * page + (first + j) * stagger % page;
      end = offsets_[j] + bytes[j];
    }
    memory_ = buffer<D>(device, end);
  }

  template <class T>
  T* array(std::size_t j) const {
    return reinterpret_cast<T*>(static_cast<char*>(memory_.data()) + offsets_[j]);
  }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  buffer<D> memory_;
  std::vector<std::size_t> offsets_;
};

/// Masters and states of a group's keys, which `clear` begins, each element on its owner. A resident group also holds a full mirror and a
/// full gradient on every device; where mirrors have the masters' type, the owner's part of its mirror is the master.
template <Device D, class Types, std::size_t States>
class key_group {
 public:
  using G = typename Types::gradient;
  using A = typename Types::accumulation;
  using W = typename Types::master;
  using S = typename Types::state;
  using M = typename Types::mirror;
  static constexpr bool mirror_is_master = std::is_same_v<W, M>;

  /// @param size       Elements, padding between keys included.
  /// @param parts      What each device owns of them.
  /// @param gradients  Elements of the gradient arrays: the keys behind need none.
  key_group(std::vector<D> const& devices, std::int64_t size, std::vector<slice> parts, bool resident,
            std::int64_t gradients)
      : size_(size), gradients_(gradients), resident_(resident), slices_(std::move(parts)) {
    std::size_t arrays = 0;
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const part = static_cast<std::size_t>(slices_[n].size());
      auto const whole = static_cast<std::size_t>(size);
      std::array<std::size_t, States + 3> bytes{};
      for (std::size_t s = 0; s != States; ++s) bytes[s] = part * sizeof(S);
      bytes[States] = resident && mirror_is_master ? 0 : part * sizeof(W);
      bytes[States + 1] = resident ? whole * sizeof(M) : 0;
      bytes[States + 2] = resident ? static_cast<std::size_t>(gradients) * sizeof(G) : 0;
      arenas_.emplace_back(devices[n], bytes, arrays);
      arrays += bytes.size();
    }
    reduced_.resize(devices.size());
  }

  std::int64_t size() const { return size_; }
  bool resident() const { return resident_; }

  /// Enqueues zeros for elements [begin, end) of all arrays: what keys begin with.
  void clear(std::vector<D> const& devices, std::int64_t begin, std::int64_t end) {
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const zero = [&]<class T>(T* first, std::int64_t size) {
        if (size > 0) devices[n].fill_zero(first, static_cast<std::size_t>(size) * sizeof(T));
      };
      slice const own{std::max(begin, slices_[n].begin), std::min(end, slices_[n].end)};
      if (own.size() > 0) {
        std::int64_t const local = own.begin - slices_[n].begin;
        for (std::size_t s = 0; s != States; ++s) zero(state(n, s) + local, own.size());
        zero(master(n) + local, own.size());
      }
      if (!resident_) continue;
      zero(mirror(n) + begin, end - begin);
      zero(gradient(n) + begin, std::min(end, gradients_) - begin);
    }
  }

  slice const& part(std::size_t n) const { return slices_[n]; }

  /// The first element of device n's slice.
  W* master(std::size_t n) const {
    if constexpr (mirror_is_master) {
      if (resident_) return mirror(n) + slices_[n].begin;
    }
    return arenas_[n].template array<W>(States);
  }
  S* state(std::size_t n, std::size_t s) const { return arenas_[n].template array<S>(s); }
  /// The group's first element, on device n.
  M* mirror(std::size_t n) const { return arenas_[n].template array<M>(States + 1); }
  G* gradient(std::size_t n) const { return arenas_[n].template array<G>(States + 2); }

  /// Where a phase before the pass leaves the reduced gradient of device n's slice; allocated when first asked for.
  A* reduced(D const& device, std::size_t n) {
    std::lock_guard const lock(mutex_);  // other keys of the group may be in other operations
    std::size_t const bytes = static_cast<std::size_t>(slices_[n].size()) * sizeof(A);
    if (reduced_[n].bytes() < bytes) {
      reduced_[n] = buffer<D>(device, bytes);
      device.fill_zero(reduced_[n].data(), bytes);
    }
    return static_cast<A*>(reduced_[n].data());
  }

  /// Bytes that the group holds on device n.
  std::size_t bytes(std::size_t n) const { return arenas_[n].bytes() + reduced_[n].bytes(); }

 private:
  std::int64_t size_, gradients_;
  bool resident_;
  std::vector<slice> slices_;
  std::vector<arena<D>> arenas_;
  std::vector<buffer<D>> reduced_;
  std::mutex mutex_;
};

}  // namespace pushpull::detail
