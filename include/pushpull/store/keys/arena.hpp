/// @file
/// The memory of keys that were initialised together, cut into slices, one per owner.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/block.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Places of arrays in one allocation. Each begins 4,416 bytes further into its page than the one before,
/// because arrays that begin at equal offsets modulo 4 KiB evict each other from the caches.
struct staggered_places {
  std::vector<std::size_t> offsets;
  std::size_t end = 0;  ///< Bytes of the allocation.

  /// @param first  Number of arrays in earlier allocations that the same pass reads: staggering goes on from there.
  staggered_places(std::span<std::size_t const> bytes, std::size_t first) : offsets(bytes.size()) {
    constexpr std::size_t page = 4096, stagger = 4416;
    for (std::size_t j = 0; j < bytes.size(); ++j) {
      if (bytes[j] == 0) continue;
      offsets[j] = (end + page - 1) / page * page + (first + j) * stagger % page;
      end = offsets[j] + bytes[j];
    }
  }
};

/// Several arrays in one allocation.
template <Device D>
class staggered_arrays {
 public:
  /// @param first  See staggered_places.
  staggered_arrays(D const& device, std::span<std::size_t const> bytes, std::size_t first)
      : places_(bytes, first), memory_(device, places_.end) {}

  template <class T>
  T* array(std::size_t j) const {
    return reinterpret_cast<T*>(static_cast<char*>(memory_.data()) + places_.offsets[j]);
  }
  std::size_t bytes() const { return memory_.bytes(); }

 private:
  staggered_places places_;
  buffer<D> memory_;
};

/// Masters and states of keys, which `clear` begins, each element on its owner: of all owners the arena knows the parts, and
/// it allocates those of the local ones. A resident arena also holds a full mirror and a full gradient on every local
/// device; where mirrors have the masters' type, the owner's part of its mirror is the master.
template <Device D, class Types>
class key_arena {
 public:
  using device_type = D;
  using G = typename Types::gradient;
  using A = typename Types::accumulation;
  using W = typename Types::master;
  using S = typename Types::state;
  using M = typename Types::mirror;
  static constexpr bool mirror_is_master = std::is_same_v<W, M>;
  /// Each key takes a multiple of so many elements: blocks of the pass, and of states that are encoded.
  static constexpr std::int64_t padding = std::max(pass::padding, state_memory<S>::block);
  static std::int64_t padded(std::integral auto size) {
    return detail::padded(static_cast<std::size_t>(size), padding);
  }

  /// @param states          Arrays of states.
  /// @param element_count   Elements, padding between keys included.
  /// @param all_parts       What each owner holds of them.
  /// @param gradient_count  Elements of the gradient arrays: the keys after them need none.
  /// @param ranks           All processes; null if there is one. If they share memory, mirrors and gradients lie in it.
  /// @param number          Among the store's arenas, which every process makes in the same order.
  key_arena(std::vector<D> const& devices, topology const& all, std::size_t states, std::int64_t element_count,
            std::vector<slice> all_parts, bool is_resident, std::int64_t gradient_count, rank_group* ranks = nullptr,
            std::size_t number = 0)
      : number_(number),
        states_(states),
        size_(element_count),
        gradients_(gradient_count),
        resident_(is_resident),
        rank_(all.rank()),
        first_owner_(all.owner_of(0)),
        parts_(std::move(all_parts)) {
    bool const shares = resident_ && ranks != nullptr && ranks->shares_memory();
    std::size_t count = 0;
    std::vector<std::size_t> shared_bytes;
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const own = static_cast<std::size_t>(part(n).size());
      auto const whole = static_cast<std::size_t>(size_);
      std::vector<std::size_t> bytes(states_ + 3);
      for (std::size_t s = 0; s != states_; ++s) bytes[s] = static_cast<std::size_t>(state_bytes<S>(s, part(n).size()));
      bytes[states_] = resident_ && mirror_is_master ? 0 : own * sizeof(W);
      bytes[states_ + 1] = resident_ ? whole * sizeof(M) : 0;
      bytes[states_ + 2] = resident_ ? static_cast<std::size_t>(gradients_) * sizeof(G) : 0;
      if (shares) {
        shared_bytes.insert(shared_bytes.end(), bytes.end() - 2, bytes.end());
        bytes[states_ + 1] = bytes[states_ + 2] = 0;
      }
      arrays_.emplace_back(devices[n], bytes, count);
      count += bytes.size();
    }
    reduced_.resize(devices.size());
    if (!shares) return;
    staggered_places const places(shared_bytes, count);
    shared_places_ = places.offsets;
    shared_bytes_ = places.end / devices.size();
    shared_ = ranks->allocate_shared(places.end);
  }

  std::size_t number() const { return number_; }
  std::int64_t size() const { return size_; }
  bool resident() const { return resident_; }

  /// Enqueues zeros for elements [begin, end) of all arrays: the initial value of keys.
  void clear(std::vector<D> const& devices, std::int64_t begin, std::int64_t end) {
    for (std::size_t n = 0; n < devices.size(); ++n) {
      auto const zero = [&]<class T>(T* first, std::int64_t count) {
        if (count > 0) devices[n].fill_zero(first, static_cast<std::size_t>(count) * sizeof(T));
      };
      slice const own = common({begin, end}, part(n));
      if (own.size() > 0) {
        std::int64_t const local = own.begin - part(n).begin;
        for (std::size_t s = 0; s != states_; ++s) clear_state(devices[n], state(n, s) + local, s, own.size());
        zero(master(n) + local, own.size());
      }
      if (!resident_) continue;
      zero(mirror(n) + begin, end - begin);
      zero(gradient(n) + begin, std::min(end, gradients_) - begin);
    }
  }

  /// What each owner holds.
  std::vector<slice> const& parts() const { return parts_; }
  /// What local device number n holds as an owner.
  slice const& part(std::size_t n) const { return parts_[first_owner_ + n]; }
  /// What all owners of a process hold, which follow one another.
  slice part_of_rank(topology const& all, std::size_t rank) const {
    return {parts_[all.first_owner(rank)].begin, parts_[all.first_owner(rank + 1) - 1].end};
  }

  /// The first element of local device n's part.
  W* master(std::size_t n) const {
    if constexpr (mirror_is_master) {
      if (resident_) return mirror(n) + part(n).begin;
    }
    return arrays_[n].template array<W>(states_);
  }
  state_pointer<S> state(std::size_t n, [[maybe_unused]] std::size_t s) const {
    if constexpr (CodedStates<S>) {
      auto* const first = arrays_[n].template array<std::byte>(s);
      return {first, reinterpret_cast<float*>(first + part(n).size() * S::bits[s] / 8), 0};
    } else {
      return arrays_[n].template array<S>(s);
    }
  }
  /// Enqueues zeros for elements of a state, from one on that begins a block of codes.
  static void clear_state(D const& device, state_pointer<S> const& first, [[maybe_unused]] std::size_t s,
                          std::int64_t count) {
    if constexpr (CodedStates<S>) {
      std::int64_t const blocks = (count + S::block - 1) / S::block;
      if (S::is_code(s)) {
        device.fill_zero(first.codes(S::bits[s]), static_cast<std::size_t>(blocks * S::block * S::bits[s] / 8));
        device.fill_zero(first.unit(), static_cast<std::size_t>(blocks) * sizeof(float));
      } else {
        device.fill_zero(first.elements(), static_cast<std::size_t>(count) * sizeof(float));
      }
    } else {
      device.fill_zero(first, static_cast<std::size_t>(count) * sizeof(S));
    }
  }
  /// The arena's first element, on local device n.
  M* mirror(std::size_t n) const { return shared_ ? mirror(rank_, n) : arrays_[n].template array<M>(states_ + 1); }
  G* gradient(std::size_t n) const { return shared_ ? gradient(rank_, n) : arrays_[n].template array<G>(states_ + 2); }
  /// Whether other processes reach its mirrors and gradients.
  bool is_shared() const { return shared_ != nullptr; }
  /// Of a shared arena, in the memory of a process.
  M* mirror(std::size_t rank, std::size_t n) const {
    return reinterpret_cast<M*>(shared_->of(rank) + shared_places_[2 * n]);
  }
  G* gradient(std::size_t rank, std::size_t n) const {
    return reinterpret_cast<G*>(shared_->of(rank) + shared_places_[2 * n + 1]);
  }

  /// Where a phase before the pass leaves the reduced gradient of local device n's part; allocated when first asked for.
  A* reduced(D const& device, std::size_t n) { return zeros(reduced_[n], device, part(n).size()); }

  /// Of several processes: this one's sums of micro-batches, of all elements; allocated when first asked for.
  A* rank_sum(D const& device) { return zeros(rank_sum_, device, size_); }

  /// Of several processes: makes `count` arrays of all elements for sources that this one brings to a step. In a shared
  /// arena the other processes of the node reach them; then all ranks call it, on the calling thread.
  void reserve_sources(D const& device, std::size_t count, rank_group& ranks) {
    for (;;) {
      std::size_t place = 0;
      {
        std::lock_guard const lock(mutex_);
        if (sources_.size() >= count) return;
        place = sources_.size();
      }
      std::size_t const own[] = {static_cast<std::size_t>(size_) * sizeof(G)};
      staggered_places const places(own, arrays_.size() * (states_ + 3) + place);
      source_array made{places.offsets[0], places.end, {}, {}};
      if (is_shared()) {
        made.shared = ranks.allocate_shared(places.end);
      } else {
        made.own = buffer<D>(device, places.end);
      }
      std::lock_guard const lock(mutex_);
      sources_.push_back(std::move(made));
    }
  }
  /// The first element of array number k of a process that is reached.
  G* source(std::size_t rank, std::size_t k) const {
    std::lock_guard const lock(mutex_);
    source_array const& x = sources_[k];
    void* const first = x.shared ? x.shared->of(rank) : x.own.data();
    return reinterpret_cast<G*>(static_cast<std::byte*>(first) + x.offset);
  }
  /// Of this process.
  G* source(std::size_t k) const { return source(rank_, k); }

  /// The bytes that the arena holds on local device n.
  memory_use use(std::size_t n) const {
    auto const own = static_cast<std::size_t>(part(n).size());
    memory_use result{.masters = own * sizeof(W)};
    for (std::size_t s = 0; s != states_; ++s)
      result.states += static_cast<std::size_t>(state_bytes<S>(s, part(n).size()));
    if (resident_) {
      result.mirrors = static_cast<std::size_t>(size_) * sizeof(M) - (mirror_is_master ? result.masters : 0);
      result.gradients = static_cast<std::size_t>(gradients_) * sizeof(G);
    }
    result.padding = arrays_[n].bytes() + shared_bytes_ - result.total();
    result.sums = reduced_[n].bytes();
    if (n != 0) return result;
    std::lock_guard const lock(mutex_);
    result.sums += rank_sum_.bytes();
    for (source_array const& x : sources_) {
      result.exchange += x.bytes - x.offset;
      result.padding += x.offset;
    }
    return result;
  }

 private:
  struct source_array {
    std::size_t offset, bytes;
    std::unique_ptr<shared_blocks> shared;
    buffer<D> own;
  };

  A* zeros(buffer<D>& memory, D const& device, std::int64_t elements) {
    std::lock_guard const lock(mutex_);  // other keys of the arena may be in other operations
    std::size_t const count = static_cast<std::size_t>(elements) * sizeof(A);
    if (memory.bytes() < count) {
      memory = buffer<D>(device, count);
      device.fill_zero(memory.data(), count);
    }
    return static_cast<A*>(memory.data());
  }

  std::size_t number_, states_;
  std::int64_t size_, gradients_;
  bool resident_;
  std::size_t rank_;
  std::size_t first_owner_;  // of the local ones
  std::vector<slice> parts_;
  std::vector<staggered_arrays<D>> arrays_;
  std::unique_ptr<shared_blocks> shared_;  // mirrors and gradients of all local devices
  std::vector<std::size_t> shared_places_;
  std::size_t shared_bytes_ = 0;  // on each device
  std::vector<buffer<D>> reduced_;
  buffer<D> rank_sum_;
  std::vector<source_array> sources_;
  mutable std::mutex mutex_;
};

}  // namespace pushpull::detail
