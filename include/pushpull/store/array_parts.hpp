/// @file
/// The elements of a key's arrays that this process holds: copied to host memory, and replaced.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The elements that this process holds of an array of `count` elements: those of its part of the key; all, or none, of rows or
/// columns, which the owner of a whole key has. Of a key without elements rank 0 has them.
template <class Table>
slice local_part(Table const& table, typename Table::record const& r, std::int64_t count) {
  slice const part = part_of_rank(table, r, table.owners().rank());
  bool const holds = r.size() == 0 ? table.owners().rank() == 0 : part.size() > 0;
  if (!holds) return {};
  bool const by_element = count == r.size() && count > 0;
  return by_element ? slice{std::max<std::int64_t>(part.begin, 0), part.end} : slice{0, count};
}

/// Copies elements of type E. @param read  read(E* to, std::int64_t first): element number `first` on goes to `to`.
template <class E, class Read>
array_part copied_part(slice const& range, bool copies, Read const& read) {
  array_part result{dtype_traits<E>::name, range.begin, range.end};
  if (!copies || range.size() <= 0) return result;
  result.bytes.resize(static_cast<std::size_t>(range.size()) * sizeof(E));
  read(reinterpret_cast<E*>(result.bytes.data()), range.begin);
  return result;
}

/// The masters.
template <class Table>
array_part value_part(Table const& table, typename Table::record const& r, bool copies) {
  using W = typename Table::W;
  return copied_part<W>(local_part(table, r, r.size()), copies, [&](W* to, std::int64_t first) {
    for_each_shard(table, r, [&](auto const& shard) {
      copy_bytes(cpu_device<>(), to + (shard.offset() - first), shard.device(), shard.master(),
                 static_cast<std::size_t>(shard.size()) * sizeof(W));
    });
  });
}
/// The mirror on the first device of rank 0, in the masters' type; the masters of a key without mirrors.
template <class Table>
array_part untrained_value_part(Table const& table, typename Table::record const& r, bool copies) {
  using W = typename Table::W;
  using T = typename Table::T;
  if (!r.arena->resident()) return value_part(table, r, copies);
  slice const range{0, table.owners().rank() == 0 ? r.size() : 0};
  return copied_part<W>(range, copies, [&](W* to, std::int64_t) {
    std::vector<T> mirror(r.shape.size());
    copy_bytes(cpu_device<>(), mirror.data(), table.devices().front(), Table::mirror(r, 0), mirror.size() * sizeof(T));
    copy(tensor_view<T const, cpu_device<>>(mirror.data(), r.shape), tensor_view<W, cpu_device<>>(to, r.shape));
  });
}
/// State number `s`.
template <class Rule, class Table>
array_part state_part(Table const& table, typename Table::record& r, std::size_t s, bool copies) {
  using S = typename Table::state_type;
  auto const count = static_cast<std::int64_t>(state_shape<Rule>(r, s).size());
  return copied_part<S>(local_part(table, r, count), copies,
                        [&](S* to, std::int64_t begin) { copy_local_state<Rule>(table, r, s, to, begin); });
}
/// The sum of micro-batches. If `copies`, all ranks call it; else the part that a load takes.
template <class Table>
array_part sum_part(Table const& table, typename Table::record const& r, bool copies) {
  using A = typename Table::accumulation_type;
  if constexpr (Table::collective)
    if (table.is_distributed()) {
      if (!copies) return {dtype_traits<A>::name, 0, table.owners().rank() == 0 ? r.size() : 0};  // see write_sum
      slice const range = local_part(table, r, r.size());
      array_part result{dtype_traits<A>::name, range.begin, range.end};
      if (!r.accumulated()) return result;
      result.bytes.resize(static_cast<std::size_t>(range.size()) * sizeof(A));
      copy_local_sum(table, r, reinterpret_cast<A*>(result.bytes.data()), range.begin);
      return result;
    }
  return copied_part<A>(local_part(table, r, r.size()), copies && r.accumulated(),
                        [&](A* to, std::int64_t begin) { copy_local_sum(table, r, to, begin); });
}

/// Another value for a key. What may fail for lack of memory comes first.
template <class Table>
class value_change {
  using W = typename Table::W;
  using D = typename Table::device_type;

 public:
  /// @param value  In the masters' type, where it stays: all elements if the key has mirrors.
  value_change(Table const& table, typename Table::record const& r, saved_range const& value)
      : table_(table), key_(r), value_(value), to_mirrors_(table.devices().size()) {
    if (!r.arena->resident()) return;
    for_each_shard(table, r, [&](auto const& shard) { table.add_own_mirrors(to_mirrors_, copies_, shard); });
    // The pass from masters to mirrors only reads them.
    auto* whole = reinterpret_cast<W*>(const_cast<std::byte*>(value.bytes.data()));
    if constexpr (!HostDevice<D>)
      if (table.is_distributed()) {
        D const& device = table.devices().front();
        masters_ = buffer<D>(device, static_cast<std::size_t>(padded(r.shape.size())) * sizeof(W));  // read by blocks
        copy_bytes(device, masters_.data(), cpu_device<>(), value.bytes.data(), value.bytes.size());
        whole = static_cast<W*>(masters_.data());
      }
    add_distant_mirrors(table, to_mirrors_, copies_, r, whole);
    to_mirrors_.commit(table.devices());
  }

  /// Writes the masters of this process and all of its mirrors.
  void make() {
    for_each_shard(table_, key_, [&](auto const& shard) {
      copy_bytes(shard.device(), shard.master(), cpu_device<>(), value_.at(shard.offset(), sizeof(W)),
                 static_cast<std::size_t>(shard.size()) * sizeof(W));
    });
    if (!key_.arena->resident()) return;
    to_mirrors_.run(table_.devices());
    copy_behind(table_.devices(), copies_);
  }

 private:
  Table const& table_;
  typename Table::record const& key_;
  saved_range value_;
  buffer<D> masters_;  // where the pass does not read them on the host
  typename Table::pull_step to_mirrors_;
  std::vector<staged_copy> copies_;
};

}  // namespace pushpull::detail
