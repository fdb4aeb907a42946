/// @file
/// The keys of one call, in order, with their sources and outputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/heap_sort.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/gathered_call.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Takes keys and tensors, and checks them. Kept from call to call: in the steady state nothing is allocated.
/// @tparam Table  The store's key_table.
/// @tparam G, M   Element types of sources and outputs.
template <class Table, Device D, class G, class M>
class call_tensors {
 public:
  using record = typename Table::record;
  using key_view = typename Table::key_view;

  /// Appends a gathered call. While no key is added.
  /// @throws unknown_key, shape_mismatch; invalid_argument if a key should come with a source and has none, or if another
  /// tensor is in the place of its weights
  template <class E>
  void take(Table const& table, gathered_call<key_view, D, E> const& from) {
    auto source = from.sources().begin();
    auto output = from.outputs().begin();
    for (auto const& x : from.keys()) {
      record& r = table.find(from.caller(), x.key);
      add_key(r);
      for (auto const end = source + static_cast<std::ptrdiff_t>(x.sources); source != end; ++source) {
        expect_shape(from.caller(), x.key, r.shape, source->shape);
        if constexpr (std::is_same_v<E, G>) add_source(source->memory);
      }
      if (from.has_sources()) {
        expects<invalid_argument>(x.sources > 0, [&] {
          return std::string(from.caller()) + ": " + key_text(x.key) + " came with no gradient";
        });
        expect_weights(from.caller(), x.key, r);
      }
      for (auto const end = output + static_cast<std::ptrdiff_t>(x.outputs); output != end; ++output) {
        expect_shape(from.caller(), x.key, r.shape, output->shape);
        if constexpr (std::is_same_v<E, M>) add_output(output->memory);
      }
      work_ += r.size() * (1 + static_cast<std::int64_t>(x.sources + x.outputs));
    }
  }

  /// Names a key; its tensors follow. A key that is named again gets further tensors.
  void add_key(record& key) { items_.push_back({&key, sources_.size(), 0, outputs_.size(), 0}); }
  /// A source of the key named last, of its shape.
  void add_source(operand<G const, D> const& source) {
    sources_.push_back(source);
    ++items_.back().sources;
  }
  /// An output of the key named last, of its shape.
  void add_output(operand<M, D> const& output) {
    outputs_.push_back(output);
    ++items_.back().outputs;
  }

  /// Elements to read and to write, roughly.
  std::int64_t work() const { return work_; }

  /// Calls f(record) for each key; for one that was named several times perhaps as often.
  template <class F>
  void for_each_key(F const& f) const {
    for (item const& x : items_) f(*x.key);
  }

  /// Calls f(record) once for each key that is chosen.
  template <class F>
  void for_each_distinct_key(F const& f) const {
    any_key([&](std::span<item const> same) {
      f(*same.front().key);
      return false;
    });
  }

  /// Leaves keys for which `chosen(record)` is false out of what follows until the next choice. @returns whether any remains
  template <class Chosen>
  bool choose(Chosen const& chosen) {
    bool any = false;
    for (item& x : items_) any = !(x.left_out = !chosen(*x.key)) || any;
    return any;
  }

  /// Calls f(record) for each key once, in the order of their registration, and g(output) for each of its
  /// outputs.
  template <class F, class G2>
  void for_each_key_and_output(F const& f, G2 const& g) {
    any_key([&](std::span<item const> same) {
      f(*same.front().key);
      for (item const& x : same)
        for (std::size_t k = x.output; k < x.output + x.outputs; ++k) g(outputs_[k]);
      return false;
    });
  }

 protected:
  struct item {
    record* key;
    std::size_t source, sources, output, outputs;
    std::size_t position = 0;
    bool left_out = false;
  };

  void forget() {
    items_.clear();
    sources_.clear();
    outputs_.clear();
    work_ = 0;
  }

  /// Keys in the order in which they were registered, each key's tensors in the order of the call: sums over several
  /// keys do not depend on the caller's order.
  void sort() {
    auto const before = [](item const& a, item const& b) {
      return a.key->index != b.key->index ? a.key->index < b.key->index : a.position < b.position;
    };
    for (std::size_t i = 0; i < items_.size(); ++i) items_[i].position = i;
    if (!std::is_sorted(items_.begin(), items_.end(), before)) heap_sort(items_, before);
  }

  /// Calls f(items of one key) for each key until one returns true.
  template <class F>
  bool any_key(F const& f) const {
    for (std::size_t first = 0; first < items_.size();) {
      std::size_t last = first + 1;
      while (last < items_.size() && items_[last].key == items_[first].key) ++last;
      if (!items_[first].left_out && f(std::span(items_).subspan(first, last - first))) return true;
      first = last;
    }
    return false;
  }

  std::vector<item> items_;
  std::vector<operand<G const, D>> sources_;
  std::vector<operand<M, D>> outputs_;

 private:
  std::int64_t work_ = 0;
};

}  // namespace pushpull::detail
