/// @file
/// The rows of a table as row-sparse keys of a store: one more key each time that the table grows.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/table/slot_map.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Gradients of one source: row i of `rows` is of ids[i]. Both belong to the caller.
template <class T>
struct table_gradient {
  std::span<std::int64_t const> ids;
  std::span<T const> rows;  ///< ids.size() x row length, row-major
};

namespace detail {

/// Slots [0, rows()) of a table, in keys of the store: the first one has `first` rows, each later one as many as all before it, and
/// the last one ends at the capacity. So a slot never moves, and neither do its weights and states.
/// @tparam S  A TableStore.
template <class S>
class row_segments {
  using T = typename S::value_type;
  using W = typename S::master_type;
  using D = typename S::device_type;
  using state_type = typename S::state_type;

 public:
  row_segments(S& store, std::string name, std::int64_t row_length, std::int64_t first, std::int64_t capacity)
      : store_(store),
        name_(std::move(name)),
        length_(row_length),
        first_(std::min(first, capacity)),
        capacity_(capacity) {
    grow(first_);
  }

  std::int64_t length() const { return length_; }
  std::int64_t rows() const { return rows_; }
  D const& device() const { return store_.devices().front(); }
  std::string const& name() const { return name_; }
  S& store() const { return store_; }
  std::vector<typename S::key_type> const& keys() const { return keys_; }

  /// Makes room for at least `rows` rows, no more than the capacity. @throws out_of_memory, std::bad_alloc
  void grow(std::int64_t rows) {
    while (rows_ < rows) {
      std::int64_t const more = keys_.empty() ? first_ : std::min(rows_, capacity_ - rows_);
      typename S::key_type const key(name_ + "." + std::to_string(keys_.size()));
      keys_.reserve(keys_.size() + 1);
      shapes_.reserve(shapes_.size() + 1);
      pushpull::shape const whole{more, length_};
      if (made_ == keys_.size()) {  // else an attempt to grow stopped after this
        store_.init(key, row_sparse_view<T const, D>(nullptr, nullptr, 0, whole, device()));
        ++made_;
      }
      // Memory of numbers that the rule keeps per row: made here, since several threads may read.
      store_.with_rows(std::vector{key}, true, [](auto const) {});
      if (!keys_.empty()) store_.set_steps(key, store_.steps(keys_.front()));
      keys_.push_back(key);
      shapes_.push_back(whole);
      rows_ += more;
    }
  }

  /// One row-sparse push to all keys, so that t counts in each. @param slots  One per id of all sources; no_slot: the gradient is dropped
  /// @param meanwhile  Called while the push runs; throws nothing.
  template <class Meanwhile>
  void push(std::span<table_gradient<T> const> sources, std::span<std::int64_t const> slots,
            Meanwhile const& meanwhile) {
    using view_type = row_sparse_view<T const, D>;
    bool const as_given = keys_.size() == 1 && std::find(slots.begin(), slots.end(), no_slot) == slots.end();
    std::vector<std::vector<view_type>> gradients(keys_.size());
    std::vector<sorted_rows> sorted(as_given ? 0 : sources.size());
    for (std::size_t k = 0; k < sources.size(); ++k) {
      auto const own = slots.first(sources[k].ids.size());
      slots = slots.subspan(own.size());
      if (as_given) {
        gradients[0].emplace_back(sources[k].rows.data(), own.data(), std::ssize(own), shapes_[0], device());
        continue;
      }
      sort(sources[k].rows.data(), own, sorted[k]);
      for (std::size_t n = 0; n < keys_.size(); ++n) {
        std::int64_t const begin = sorted[k].begin[n];
        gradients[n].emplace_back(sorted[k].rows.data() + begin * length_, sorted[k].ids.data() + begin,
                                  sorted[k].begin[n + 1] - begin, shapes_[n], device());
      }
    }
    completion const pushed =
        keys_.size() == 1 ? store_.push(keys_.front(), gradients.front()) : store_.push(keys_, gradients);
    meanwhile();
    pushed.wait();
  }

  /// Copies the rows of slots, converted, to `to`; those of no_slot stay as they are. @param also  also(part of the slots), before it
  template <class Also>
  void read(std::span<std::int64_t const> slots, T* to, Also const& also) const {
    store_.with_rows(keys_, false, [&](auto const keys) {
      for_each_range(device(), slots.size(), [&](std::size_t first, std::size_t last) {
        also(slots.subspan(first, last - first));
        auto const address = [&](std::size_t i) {
          auto const [key, place] = place_of(std::max<std::int64_t>(slots[i], 0));
          return keys[key].address(place);
        };
        for_each_prefetched(
            first, last, address,
            [&](std::size_t i) {
              if (slots[i] == no_slot) return;
              T* const row = to + static_cast<std::int64_t>(i) * length_;
              auto const [key, place] = place_of(slots[i]);
              keys[key].read(place, [row](W const* from, std::int64_t count, std::int64_t offset) {
                std::transform(from, from + count, row + offset, [](W w) { return convert<T>(w); });
              });
            },
            static_cast<std::size_t>(length_) * sizeof(W));
      });
    });
  }
  /// Replaces rows. @param states  One list per state of the rule, in rows; or none, and all states become zero
  void write(std::span<std::int64_t const> slots, W const* values, std::span<state_type const* const> states) {
    store_.with_rows(keys_, true, [&](auto const keys) {
      for_each_range(device(), slots.size(), [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) {
          auto const number = static_cast<std::int64_t>(i);
          auto const [key, place] = place_of(slots[i]);
          keys[key].write(place, values + number * length_);
          for (std::size_t s = 0; s < keys[key].state_count; ++s)
            keys[key].write_state(place, s, states.empty() ? nullptr : states[s] + number * keys[key].state_length(s));
        }
      });
    });
  }
  /// Copies rows and their states. The memory is the caller's.
  void copy(std::span<std::int64_t const> slots, W* values, std::span<state_type* const> states) const {
    store_.with_rows(keys_, false, [&](auto const keys) {
      for_each_range(device(), slots.size(), [&](std::size_t first, std::size_t last) {
        for (std::size_t i = first; i < last; ++i) {
          auto const number = static_cast<std::int64_t>(i);
          auto const [key, place] = place_of(slots[i]);
          keys[key].read(place, [&](W const* from, std::int64_t count, std::int64_t offset) {
            std::copy_n(from, count, values + number * length_ + offset);
          });
          for (std::size_t s = 0; s < states.size(); ++s)
            keys[key].read_state(place, s, states[s] + number * keys[key].state_length(s));
        }
      });
    });
  }
  /// Elements of a row of each state.
  std::vector<std::int64_t> state_lengths() const {
    std::vector<std::int64_t> result;
    store_.with_rows(keys_, false, [&](auto const keys) {
      for (std::size_t s = 0; s < keys.front().state_count; ++s) result.push_back(keys.front().state_length(s));
    });
    return result;
  }

  std::int64_t steps() const { return store_.steps(keys_.front()); }
  void set_steps(std::int64_t t) {
    for (auto const& key : keys_) store_.set_steps(key, t);
  }

 private:
  /// The rows of one source, those of each key together, in their order.
  struct sorted_rows {
    std::vector<std::int64_t> ids, begin;  // begin: per key, and the end
    std::vector<T> rows;
  };

  std::pair<std::size_t, std::int64_t> place_of(std::int64_t slot) const {
    if (slot < first_) return {0, slot};
    auto const doublings = std::bit_width(static_cast<std::uint64_t>(slot / first_));  // 1 for the second key
    return {static_cast<std::size_t>(doublings), slot - (first_ << (doublings - 1))};
  }

  void sort(T const* rows, std::span<std::int64_t const> slots, sorted_rows& to) const {
    to.begin.assign(keys_.size() + 1, 0);
    for (std::int64_t const slot : slots)
      if (slot != no_slot) ++to.begin[place_of(slot).first + 1];
    for (std::size_t n = 0; n < keys_.size(); ++n) to.begin[n + 1] += to.begin[n];
    to.ids.resize(static_cast<std::size_t>(to.begin.back()));
    to.rows.resize(static_cast<std::size_t>(to.begin.back() * length_));
    std::vector<std::int64_t> next(to.begin.begin(), to.begin.end() - 1), targets(slots.size(), no_slot);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] == no_slot) continue;
      auto const [key, place] = place_of(slots[i]);
      targets[i] = next[key]++;
      to.ids[static_cast<std::size_t>(targets[i])] = place;
    }
    for_each_range(device(), slots.size(), [&](std::size_t first, std::size_t last) {
      for (std::size_t i = first; i < last; ++i)
        if (targets[i] != no_slot)
          std::copy_n(rows + static_cast<std::int64_t>(i) * length_, length_, to.rows.data() + targets[i] * length_);
    });
  }

  S& store_;
  std::string name_;
  std::int64_t length_, first_, capacity_, rows_ = 0;
  std::size_t made_ = 0;  // keys of the store
  std::vector<typename S::key_type> keys_;
  std::vector<pushpull::shape> shapes_;
};

}  // namespace detail
}  // namespace pushpull
