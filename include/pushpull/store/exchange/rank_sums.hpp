/// @file
/// A rank's own sums of micro-batches, which no message leaves before the step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/store/keys/record.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The passes of a rank over its own gradients in a store of several ranks where several pushes make a step. One adds them
/// to the rank's sum, in the accumulation type. The other writes what the rank brings to the step, its last gradients
/// included, in the store's element type, and leaves the sum as it is: the step may fail. A mean divides by the sources of
/// all ranks.
/// @tparam Types  A kv_store_types.
template <class Types, pass::memory Memory>
class rank_sums {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using A = typename Types::accumulation_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  template <class To>
  using step_type = fused_step<D, pass::assign, typename Types::reduction_type,
                               pass::element_types<T, A, To, To, To, false, true>, Memory>;

 public:
  explicit rank_sums(table_type const& table)
      : add_(table.devices().size()), bring_(table.devices().size()), staged_(table.staged().front()) {}

  void clear() {
    add_.clear();
    bring_.clear();
    staged_.clear();
    copies_.clear();
  }
  /// The sum of `size` elements from the key's first on. @param gradients  From there on, of all of the rank's sources.
  void add(table_type const& table, record const& key, std::int64_t size, std::span<T const* const> gradients) {
    A* const sum = sum_of(table, key);
    lay_out(table, add_, key, size, sum, sum, gradients);
  }
  /// Same, for what the rank brings: source 0 of the arena.
  void bring(table_type const& table, record const& key, std::int64_t size, std::span<T const* const> gradients) {
    lay_out(table, bring_, key, size, brought(key), sum_of(table, key), gradients);
  }
  /// Same as add and bring, from the resident gradients of keys. Those that follow one another in memory share a run.
  void add_resident(table_type const& table, std::span<record* const> keys) {
    for_each_resident(table, keys, [&](record const& r, std::int64_t size) { add(table, r, size, resident_); });
  }
  void bring_resident(table_type const& table, std::span<record* const> keys) {
    for_each_resident(table, keys, [&](record const& r, std::int64_t size) { bring(table, r, size, resident_); });
  }
  void commit(std::vector<D> const& devices) {
    add_.commit(devices);
    bring_.commit(devices);
  }
  void run_add(std::vector<D> const& devices) {
    copy_before(devices, copies_);
    add_.run(devices);
  }
  void run_bring(std::vector<D> const& devices) {
    copy_before(devices, copies_);
    bring_.run(devices);
  }

  /// What the rank brings for the key. There is room: see reserve.
  static T* brought(record const& key) { return key.arena->source(0) + key.offset; }
  /// Room for what the rank brings, and for its sum. All ranks call it, on the calling thread.
  static void reserve(table_type const& table, record const& key) {
    key.arena->reserve_sources(table.devices().front(), 1, table.ranks());
  }

 private:
  static A* sum_of(table_type const& table, record const& key) {
    return key.arena->rank_sum(table.devices().front()) + key.offset;
  }

  template <class F>
  void for_each_resident(table_type const& table, std::span<record* const> keys, F const& f) {
    for (std::size_t first = 0, last = 0; first < keys.size(); first = last) {
      record const& lead = *keys[first];
      for (last = first + 1; last < keys.size() && follows_in_memory(*keys[last - 1], *keys[last]) &&
                             keys[last]->accumulated() == lead.accumulated();)
        ++last;
      std::int64_t const size = keys[last - 1]->padded_range().end - lead.offset;
      resident_.clear();
      for (std::size_t m = 0; m < table.devices().size(); ++m) resident_.push_back(readable(table, lead, m, size));
      f(lead, size);
    }
  }

  /// The gradient of device number m where device number 0 reads it.
  T const* readable(table_type const& table, record const& key, std::size_t m, std::int64_t size) {
    T const* const gradient = table_type::gradient(key, m);
    if (table.reach()(0, m)) return gradient;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(T);
    void* const staged = staged_.take(table.devices().front(), bytes);
    copies_.push_back({0, staged, gradient, bytes});
    return static_cast<T const*>(staged);
  }

  template <class To>
  static void lay_out(table_type const& table, step_type<To>& step, record const& key, std::int64_t size, To* to,
                      A* sum, std::span<T const* const> gradients) {
    if (size == 0) return;
    typename step_type<To>::run_type run{};
    run.size = size;
    run.master = to;
    run.reduced = sum;
    run.accumulated = key.accumulated();
    run.sources = static_cast<std::int32_t>(gradients.size() * table.owners().ranks());
    step.add(0, run, gradients, {});
  }

  step_type<A> add_;
  step_type<T> bring_;
  std::vector<T const*> resident_;
  staging<D> staged_;  // of resident gradients that device number 0 does not reach
  std::vector<staged_copy> copies_;
};

}  // namespace pushpull::detail
