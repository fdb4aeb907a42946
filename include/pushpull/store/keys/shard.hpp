/// @file
/// An owner's part of one key, and the operands of a pass over it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The numbers of a range's first element, for a pass.
struct element_numbers {
  std::int64_t first_element = 0;  ///< Its number among all elements of the store.
  std::int64_t leaf_phase = 0;     ///< Elements since the last boundary of a norm's leaf.
  std::int32_t clock = 0;
};

/// A local owner's part of a range of an arena's elements: of a key, or of several that follow one another. Only a
/// shard turns a place in a key into a place in memory.
/// @tparam Arena  A key_arena.
template <class Arena>
class shard {
 public:
  using device_type = typename Arena::device_type;
  using A = typename Arena::A;
  using W = typename Arena::W;
  using S = typename Arena::S;
  using M = typename Arena::M;

  /// @param on  Local device number `n`, as an owner.
  shard(Arena& in, device_type const& on, std::size_t n, slice const& range, element_numbers const& numbers)
      : arena_(&in),
        device_(&on),
        device_number_(n),
        range_(range),
        part_(common(range, in.part(n))),
        numbers_(numbers) {}

  bool empty() const { return part_.size() <= 0; }
  device_type const& device() const { return *device_; }
  /// Among the store's local devices.
  std::size_t device_number() const { return device_number_; }
  std::int64_t size() const { return part_.size(); }
  /// Elements of the range before the shard.
  std::int64_t offset() const { return part_.begin - range_.begin; }
  bool resident() const { return arena_->resident(); }
  Arena const& arena() const { return *arena_; }
  /// Elements of the arena before the shard.
  std::int64_t arena_offset() const { return part_.begin; }
  /// Whether it has elements of the key, or of the padding after them.
  template <class Record>
  bool has_elements_of(Record const& key) const {
    slice const of_key = key.padded_range();
    return of_key.end > part_.begin && of_key.begin < part_.end;
  }

  /// Its first element.
  W* master() const { return arena_->master(device_number_) + local(); }
  auto state(std::size_t s) const { return arena_->state(device_number_, s) + local(); }
  /// Where a phase before the pass leaves the reduced gradient, or pushes leave the sum of micro-batches; allocated when
  /// first asked for.
  A* reduced() const { return arena_->reduced(*device_, device_number_) + local(); }
  /// In the mirror of a resident arena on local device m.
  M* mirror(std::size_t m) const { return arena_->mirror(m) + part_.begin; }
  /// The range's first element there, which may be another owner's.
  M* whole_mirror(std::size_t m) const { return arena_->mirror(m) + range_.begin; }

  /// The shard as an operand of a pass. Gradients, mirrors and what else the pass reads are the caller's to set.
  template <class Run>
  Run run() const {
    Run result = numbered<Run>();
    result.master = master();
    if constexpr (Run::states > 0)
      for (std::size_t s = 0; s != Run::states; ++s) result.state[s] = state(s);
    return result;
  }
  /// Same as run, but for a pass that changes the sums of micro-batches in the place of masters.
  template <class Run>
  Run sum_run() const {
    Run result = numbered<Run>();
    result.master = reduced();
    return result;
  }
  /// Same as run, but for an exchange of masters with state number `s`.
  template <class Run>
  Run swap_run(std::size_t s) const {
    Run result = numbered<Run>();
    result.master = master();
    if constexpr (CodedStates<S>) {
      result.state[0] = state(s).elements();
    } else {
      result.state[0] = state(s);
    }
    return result;
  }

  /// The operands of a pass over rows of the key: rows are counted from the key's first element.
  template <class Operands>
  Operands row_operands(std::int64_t row_length) const {
    Operands result{};
    result.row_length = row_length;
    result.begin = offset();
    result.end = offset() + size();
    result.slice = run<decltype(result.slice)>();
    result.slice.first_element = numbers_.first_element;
    return result;
  }
  /// The rows [first, second) that it has elements of.
  std::pair<std::int64_t, std::int64_t> rows(std::int64_t row_length) const {
    if (empty()) return {0, 0};
    return {offset() / row_length, (offset() + size() + row_length - 1) / row_length};
  }

 private:
  /// Elements of the owner's part of the arena before the shard.
  std::int64_t local() const { return part_.begin - arena_->part(device_number_).begin; }

  template <class Run>
  Run numbered() const {
    Run result{};
    result.size = size();
    result.first_element = numbers_.first_element + offset();
    result.leaf_phase = leaf_phase_after(numbers_.leaf_phase, offset());
    result.clock = numbers_.clock;
    return result;
  }

  Arena* arena_;
  device_type const* device_;
  std::size_t device_number_;
  slice range_, part_;
  element_numbers numbers_;
};

/// The numbers of the key's first element, for a pass.
template <class Record>
element_numbers numbers_of(Record const& key) {
  return {key.first_element, key.leaf_phase, key.index};
}

/// The part of the key on local device number n; it may be empty.
template <class Table>
auto shard_of(Table const& table, typename Table::record const& key, std::size_t n) {
  return shard<typename Table::arena_type>(*key.arena, table.devices()[n], n, key.range(), numbers_of(key));
}

/// f(shard) for each local owner that holds elements of a range of an arena.
template <class Table, class F>
void for_each_shard(Table const& table, typename Table::arena_type& arena, slice const& range,
                    element_numbers const& numbers, F const& f) {
  for (std::size_t n = 0; n < table.devices().size(); ++n) {
    shard<typename Table::arena_type> const s(arena, table.devices()[n], n, range, numbers);
    if (!s.empty()) f(s);
  }
}
/// f(shard) for each local owner that holds elements of the key.
template <class Table, class F>
void for_each_shard(Table const& table, typename Table::record const& key, F const& f) {
  for_each_shard(table, *key.arena, key.range(), numbers_of(key), f);
}
/// f(shard) for each local owner that holds elements of keys that follow one another in memory, padding included.
template <class Table, class F>
void for_each_shard(Table const& table, std::span<typename Table::record* const> keys, F const& f) {
  auto const& first = *keys.front();
  for_each_shard(table, *first.arena, {first.offset, keys.back()->padded_range().end}, numbers_of(first), f);
}

/// Elements of a range that another process holds, counted from the range's first.
struct distant_part {
  std::int64_t offset, size;
  std::size_t rank, device;  ///< Of the owner.
};

/// f(shard) for each local owner that holds elements of a range, g(distant_part) for each other owner: in the order of the
/// owners.
template <class Table, class F, class G>
void for_each_owner(Table const& table, typename Table::arena_type& arena, slice const& range,
                    element_numbers const& numbers, F const& f, [[maybe_unused]] G const& g) {
  if constexpr (Table::collective) {
    topology const& all = table.owners();
    for (std::size_t owner = 0; owner < all.owners(); ++owner) {
      if (auto const n = all.local(owner)) {
        shard<typename Table::arena_type> const s(arena, table.devices()[*n], *n, range, numbers);
        if (!s.empty()) f(s);
      } else {
        slice const part = common(range, arena.parts()[owner]);
        std::size_t const rank = all.rank_of(owner);
        if (part.size() > 0)
          g(distant_part{part.begin - range.begin, part.size(), rank, owner - all.first_owner(rank)});
      }
    }
  } else {
    for_each_shard(table, arena, range, numbers, f);
  }
}
/// Same, for a key.
template <class Table, class F, class G>
void for_each_owner(Table const& table, typename Table::record const& key, F const& f, G const& g) {
  for_each_owner(table, *key.arena, key.range(), numbers_of(key), f, g);
}

/// An operand of a pass over a whole key whose elements are in memory of the caller's, not in an arena.
template <class Run, class Record, class T>
Run whole_key_run(Record const& key, T* memory) {
  Run result{};
  result.size = key.size();
  result.master = memory;
  return result;
}
/// Same, of a pass over rows of the key.
template <class Operands, class Record, class T>
Operands whole_key_row_operands(Record const& key, T* memory, std::int64_t row_length) {
  Operands result{};
  result.row_length = row_length;
  result.end = key.size();
  result.slice = whole_key_run<decltype(result.slice)>(key, memory);
  result.slice.first_element = key.first_element;
  return result;
}

}  // namespace pushpull::detail
