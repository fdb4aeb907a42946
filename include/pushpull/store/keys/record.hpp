/// @file
/// The record of one key in a store.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/factored_plan.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/encoder.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Any order in which equal shapes are equivalent.
struct shape_order {
  bool operator()(pushpull::shape const& a, pushpull::shape const& b) const {
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  }
};

/// The memory of a key that few keys need: allocated when first needed, so that a million small keys stay small.
template <Device D>
struct rare_memory {
  std::vector<buffer<D>> own_gradient = {};           ///< Resident, outside the arena. One per local device.
  std::vector<compressed_source<D>> compressed = {};  ///< One per source, where gradients are compressed.
  buffer<D> factors = {};  ///< Of a Factored rule, on the owner: the states of rows, columns and matrices.

  /// On local device n. @param owns  Whether it holds elements of the key.
  memory_use use(D const& device, std::size_t n, bool owns) const {
    memory_use result;
    if (!own_gradient.empty()) result.gradients = own_gradient[n].bytes();
    if (owns) result.states = factors.bytes();
    for (compressed_source<D> const& source : compressed) {
      if (!(source.device == device)) continue;
      result.residuals += source.residual.bytes() + source.kept.bytes() + source.before.bytes();
      result.exchange += source.codes.bytes();
    }
    return result;
  }
};

/// A number that stays 0 and takes no memory. @tparam N  What it stands for.
template <class N>
struct no_number {
  constexpr operator N() const noexcept { return 0; }
  constexpr no_number& operator=(N) noexcept { return *this; }
};
/// A number of records that captures change: devices that capture nothing need no room for it.
template <class D, class N>
using number_of_captures = std::conditional_t<CapturingDevice<D>, N, no_number<N>>;

/// The record of one key in a store. It never moves. For an owner's part of the key see shard.
template <class Key, Device D, class Arena>
struct key_record {
  Key key;
  pushpull::shape const& shape;  ///< The table's: keys of equal shapes share one.
  Arena* arena;
  std::int64_t offset;         ///< Of its first element in the arena.
  std::int64_t first_element;  ///< The number of its first element in the store, wherever keys lie: see pass::run.
  std::int32_t leaf_phase;     ///< Elements between the last boundary of a norm's leaf and the key.
  std::int32_t index;          ///< In order of init; also the entry of its clock.
  std::int32_t parameter_group = 0;
  bool has_gradient = false;  ///< Resident.
  bool due = false;           ///< The operation at work on the key makes a step.
  std::unique_ptr<rare_memory<D>> rare = {};
  std::int64_t updates = 0;   ///< The clock's t, as far as operations have run.
  std::uint64_t history = 0;  ///< Where steps may be skipped: of which operations it was part.
  /// Of which captured operations it is part, whose graphs update it unseen.
  [[no_unique_address]] number_of_captures<D, std::uint64_t> captures = {};
  /// Of these, the run that it shares with others: see captured_calls.
  [[no_unique_address]] number_of_captures<D, std::int32_t> captured_run = {};
  variable order = {};                   ///< Among the operations on the key.
  std::int64_t micro_batches = 0;        ///< Pushes since its last step, whose sum the owners hold.
  std::string const* swapped = nullptr;  ///< The name of the state that a swap has put in the place of the weights.

  /// @throws std::bad_alloc
  rare_memory<D>& with_rare() {
    if (rare == nullptr) rare = std::make_unique<rare_memory<D>>();
    return *rare;
  }
  /// Whether its gradients are outside of the arena.
  bool has_own_gradient() const { return rare != nullptr && !rare->own_gradient.empty(); }

  std::int64_t size() const { return static_cast<std::int64_t>(shape.size()); }
  /// Its elements in the arena.
  slice range() const { return {offset, offset + size()}; }
  /// Its elements in the arena, with the padding after them.
  slice padded_range() const { return {offset, offset + Arena::padded(shape.size())}; }
  /// Whether the owners hold a sum of micro-batches.
  bool accumulated() const { return micro_batches > 0; }
};

/// A number for the operations of a key, with one more. Keys that were part of the same ones have the same t.
constexpr std::uint64_t joined_history(std::uint64_t history, std::uint64_t operation) {
  return (history ^ operation) * 0x9E3779B97F4A7C15U + (history >> 29);
}

/// Finds records by their keys.
template <class Record, class View>
struct record_hash {
  using is_transparent = void;
  std::size_t operator()(std::unique_ptr<Record> const& r) const noexcept { return (*this)(View(r->key)); }
  std::size_t operator()(View key) const noexcept { return key_hash<decltype(Record::key)>()(key); }
};
template <class Record, class View>
struct same_key {
  using is_transparent = void;
  bool operator()(std::unique_ptr<Record> const& a, std::unique_ptr<Record> const& b) const noexcept {
    return a->key == b->key;
  }
  bool operator()(View key, std::unique_ptr<Record> const& r) const noexcept { return key == View(r->key); }
  bool operator()(std::unique_ptr<Record> const& r, View key) const noexcept { return key == View(r->key); }
};

/// Whether key b comes right after key a in every array of one arena, and in the numbers of elements.
template <class Record>
bool follows_in_memory(Record const& a, Record const& b) {
  return a.arena == b.arena && b.offset == a.padded_range().end &&
         b.first_element - a.first_element == b.offset - a.offset && !a.has_own_gradient() && !b.has_own_gradient();
}

/// Whether the leaves of norms also go on from key a into key b, which follows it in memory.
template <class Record>
bool continues_leaves(Record const& a, Record const& b) {
  return leaf_phase_after(a.leaf_phase, b.offset - a.offset) == b.leaf_phase;
}

/// The name of the state that stands in the place of the key's weights, or null. Operations on the key may be running.
template <class Record>
std::string const* swapped_state(Record& r) {
  return std::atomic_ref(r.swapped).load(std::memory_order_acquire);
}

/// @throws invalid_argument if a state stands in the place of the key's weights
template <class View, class Record>
void expect_weights(char const* call, View key, Record& r) {
  std::string const* const state = swapped_state(r);
  expects<invalid_argument>(state == nullptr, [&] {
    return std::string(call) + ": " + key_text(key) + ": its state \"" + *state +
           "\" stands in the place of the weights: swap it back first";
  });
}

/// The states of the key's rows, columns and matrices on its owner, one after the other; allocated when first asked for.
template <class Rule, class S, Device D, class Record>
S* factor_states(D const& owner, Record& r) {
  std::int64_t count = 0;
  for (std::int64_t const size : pass::factor_sizes<Rule>(r.shape)) count += size;
  std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(S);
  auto& factors = r.with_rare().factors;
  if (factors.bytes() < bytes) {
    factors = buffer<D>(owner, bytes);
    owner.fill_zero(factors.data(), bytes);
  }
  return static_cast<S*>(factors.data());
}

/// The same as the pass takes them.
template <class Rule, class S, Device D, class Record>
pass::factor_memory<S> factor_memory_of(D const& owner, Record& r) {
  return {factor_states<Rule, S>(owner, r), &r,
          [](void const* key) { return key_text(static_cast<Record const*>(key)->key); }};
}

}  // namespace pushpull::detail
