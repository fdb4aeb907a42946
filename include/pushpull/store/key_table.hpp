/// @file
/// The keys of a store: names, shapes, memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/encoder.hpp>
#include <pushpull/store/key_directory.hpp>
#include <pushpull/store/key_group.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/placement.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// An initial value that `fill(record)` writes into memory of zeros.
template <class Fill>
struct filled_value {
  pushpull::shape extents;
  Fill fill;

  pushpull::shape const& shape() const { return extents; }
  std::size_t size() const { return extents.size(); }
};

/// What a store knows of one key. It never moves.
template <class Key, Device D, class Group>
struct key_record {
  Key key;
  pushpull::shape shape;
  Group* group;
  std::int64_t offset;                  ///< Of its first element in the group.
  std::int64_t number;                  ///< Of its first element in the store, wherever keys lie: see pass::run.
  std::int32_t leaf_phase;              ///< Elements between the last boundary of a norm's leaf and the key.
  std::int32_t clock;                   ///< Number of the key, in order of init.
  bool has_gradient;                    ///< Resident.
  std::vector<buffer<D>> own_gradient;  ///< Resident, outside the group's arenas.
  std::vector<compressed_source<D>> compressed;  ///< One per source, where gradients are compressed.
  std::int64_t updates = 0;                      ///< The clock's t, as far as operations have run.
  std::int32_t rule = 0;                         ///< Number of its parameter group.
  std::uint64_t history = 0;                     ///< Where steps may be left out: of which operations it was part.
  variable order;                                ///< Among the operations on the key.

  std::int64_t micro_batches = 0;  ///< Pushes since its last step, whose sum the owners hold.
  bool due = false;                ///< The operation at work on the key makes a step.

  buffer<D> factors = {};                ///< Of a Factored rule, on the owner: the states of rows and columns.
  std::string const* swapped = nullptr;  ///< The name of the state that stands in the place of the weights.

  std::int64_t size() const { return static_cast<std::int64_t>(shape.size()); }
  /// Whether the owners hold a sum of micro-batches.
  bool accumulated() const { return micro_batches > 0; }

  /// Elements between the last boundary of a norm's leaf and element `place` of the group, which is the key's or follows it.
  std::int64_t leaf_phase_at(std::int64_t place) const { return (leaf_phase + place - offset) % pass::leaf_size; }

  /// The key's elements that device number n owns, in the group's coordinates.
  slice part(std::size_t n) const {
    slice const& whole = group->part(n);
    return {std::max(whole.begin, offset), std::min(whole.end, offset + size())};
  }
};

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

/// The states of the key's rows and columns on its owner, one behind the other; allocated when first asked for.
template <class Rule, class S, Device D, class Record>
S* factor_states(D const& owner, Record& r) {
  std::int64_t count = 0;
  for (std::int64_t const size : pass::factor_sizes<Rule>(r.shape)) count += size;
  std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(S);
  if (r.factors.bytes() < bytes) {
    r.factors = buffer<D>(owner, bytes);
    owner.fill_zero(r.factors.data(), bytes);
  }
  return static_cast<S*>(r.factors.data());
}

/// Keys by name, and the groups that hold their memory.
/// @tparam Keys    string_keys or integer_keys.
/// @tparam Types   The element types of the store's pass.
/// @tparam States  State tensors per key.
template <class Keys, Device D, class Types, std::size_t States>
class key_table {
 public:
  using T = typename Types::gradient;
  using W = typename Types::master;
  using state_type = typename Types::state;
  using accumulation_type = typename Types::accumulation;
  using key_type = typename Keys::key_type;
  using key_view = typename Keys::key_view;
  using group_type = key_group<D, Types, States>;
  using record = key_record<key_type, D, group_type>;
  /// From masters to mirrors of the store's element type.
  using pull_step = fused_step<D, pass::hold, reduce::sum,
                               pass::element_types<T, typename Types::accumulation, W, W, T>, pass::memory::foreign>;

  static constexpr std::size_t state_count = States;
  using directory_type = key_directory<key_type, key_view>;
  using index_type = std::unordered_map<key_type, std::unique_ptr<record>, key_hash<key_type>, std::equal_to<>>;

  /// A group that has room for further keys, behind its first `used` elements.
  struct open_group {
    group_type* group = nullptr;
    std::int64_t used = 0;
  };

  /// More elements than a store can have: with all states in any type their bytes can be counted, and their numbers are
  /// below those of the next store with the same directory.
  static constexpr std::int64_t max_elements = std::int64_t{1} << 48;

  /// @param directory   Of all stores that share a space of names; null if there are no others.
  /// @param number      This store's in the directory.
  /// @param whole_keys  Whether keys are not cut: see placement::owners.
  /// @param may_skip    Whether the rule may leave steps out, so that the host does not know a key's t.
  key_table(std::vector<D> const& devices, std::shared_ptr<directory_type> directory, std::size_t number,
            bool whole_keys, bool may_skip)
      : devices_(devices),
        reach_(devices),
        directory_(std::move(directory)),
        place_{number, dtype_traits<T>::name},
        whole_keys_(whole_keys),
        may_skip_(may_skip),
        next_number_(static_cast<std::int64_t>(number) * max_elements),
        loads_(devices.size()),
        open_(3 * devices.size()) {}

  std::vector<D> const& devices() const { return devices_; }
  /// Which devices reach the memory of which.
  device_reach const& reach() const { return reach_; }
  bool whole_keys() const { return whole_keys_; }
  std::size_t size() const { return index_.size(); }
  bool contains(key_view key) const { return index_.find(key) != index_.end(); }

  /// In the order of their registration.
  std::vector<key_type> keys() const {
    std::vector<key_type> result;
    for (record const* const r : records()) result.push_back(r->key);
    return result;
  }

  /// Likewise what the store knows of them.
  std::vector<record*> records() const {
    std::vector<record*> result(index_.size());
    for (auto const& [key, r] : index_) result[static_cast<std::size_t>(r->clock)] = r.get();
    return result;
  }

  /// f(record) for each key, in no order.
  template <class F>
  void for_each(F const& f) const {
    for (auto const& [key, r] : index_) f(*r);
  }

  /// Bytes on device number n.
  std::size_t bytes(std::size_t n) const {
    std::size_t total = 0;
    for (auto const& group : groups_) total += group->bytes(n);
    for (auto const& [key, r] : index_) {
      if (!r->own_gradient.empty()) total += r->own_gradient[n].bytes();
      if (r->part(n).size() > 0) total += r->factors.bytes();
      for (auto const& source : r->compressed)
        if (source.device == devices_[n])
          total += source.residual.bytes() + source.codes.bytes() + source.kept.bytes() + source.before.bytes();
    }
    return total;
  }

  record& find(char const* call, key_view key) const {
    auto const found = index_.find(key);
    if (found == index_.end() && directory_ != nullptr) {
      auto const other = directory_->find(key);
      expects<invalid_argument>(!other, [&] {
        return std::string(call) + ": " + key_text(key) + " has elements of type " + std::string(other->dtype) +
               ", a call for " + std::string(place_.dtype) + " named it";
      });
    }
    expects<unknown_key>(found != index_.end(),
                         [&] { return std::string(call) + ": " + key_text(key) + " was never given to init"; });
    return *found->second;
  }

  record& find_resident(char const* call, key_view key) const {
    record& r = find(call, key);
    expects<invalid_argument>(
        r.group->resident(), [&] { return std::string(call) + ": " + key_text(key) + " has no mirrors in the store"; });
    return r;
  }

  record& find_with_gradient(char const* call, key_view key) const {
    record& r = find_resident(call, key);
    expects<invalid_argument>(
        r.has_gradient, [&] { return std::string(call) + ": " + key_text(key) + " has no gradient in the store"; });
    return r;
  }

  /// Keys that have been made and are not in the table. Dropped, they leave no trace.
  class addition {
   public:
    addition(addition&& other) noexcept = default;
    addition& operator=(addition&&) = delete;
    ~addition() {
      if (directory != nullptr) directory->leave(names);
    }

    /// f(record) for each key.
    template <class F>
    void for_each(F const& f) {
      for (auto& [key, r] : records) f(*r);
    }
    std::size_t size() const { return records.size(); }

   private:
    friend key_table;
    addition() = default;

    std::shared_ptr<directory_type> directory;  // the names are entered there
    std::vector<key_view> names;                // the caller's
    index_type records;
    std::unique_ptr<group_type> group;  // null: they lie in one that there is
    open_group* open = nullptr;
    open_group opened;  // what it becomes
    std::vector<std::int64_t> loads;
    std::int64_t elements = 0;
  };

  /// Makes keys: all that may fail. One at a time; names and values must stay until `commit`.
  template <class View>
  addition prepare(std::span<key_view const> keys, std::span<View const> values, bool resident,
                   std::vector<bool> const& needs_gradient) {
    addition result;
    result.names.assign(keys.begin(), keys.end());
    if (directory_ != nullptr) {
      directory_->enter(keys, place_);
      result.directory = directory_;
    }
    make(result, keys, values, resident, needs_gradient);
    std::size_t const count = index_.size() + result.records.size();
    if (count >= index_.bucket_count()) index_.reserve(2 * count);
    if (groups_.size() == groups_.capacity()) groups_.reserve(2 * groups_.size() + 1);
    return result;
  }

  /// Adds them.
  void commit(addition& made) noexcept {
    made.directory = nullptr;
    if (made.group != nullptr) groups_.push_back(std::move(made.group));
    if (made.open != nullptr) {
      shared_elements_ += made.opened.used - (made.open->group == made.opened.group ? made.open->used : 0);
      *made.open = made.opened;
    }
    loads_ = std::move(made.loads);
    next_number_ += made.elements;
    index_.merge(made.records);
  }

  /// Counts one operation's update of the keys for which `for_each_key(f)` calls f(record).
  template <class ForEachKey>
  void count(ForEachKey const& for_each_key) const {
    std::uint64_t const operation = may_skip_ ? ++operations_ : 0;
    for_each_key([&](record& r) {
      ++r.updates;
      // Keys that were part of the same operations have the same t.
      if (may_skip_) r.history = (r.history ^ operation) * 0x9E3779B97F4A7C15U + (r.history >> 29);
    });
  }

  /// Gives a resident key gradients on every device, if it has none.
  void require_gradient(key_view key) {
    record& r = find_resident("require_gradient", key);
    if (r.has_gradient) return;
    std::vector<buffer<D>> memory;
    for (D const& device : devices_) {
      memory.emplace_back(device, static_cast<std::size_t>(padded(r.shape.size())) * sizeof(T));
      device.fill_zero(memory.back().data(), memory.back().bytes());
    }
    r.own_gradient = std::move(memory);
    r.has_gradient = true;
  }

  /// The first element of a resident key's gradient on device number n.
  static T* gradient(record const& r, std::size_t n) {
    return r.own_gradient.empty() ? r.group->gradient(n) + r.offset : static_cast<T*>(r.own_gradient[n].data());
  }

  /// Appends what the pass of device number n writes beside its master, for the part of a group from element `first` on:
  /// the mirrors that the device reaches, without the one that is its master.
  void add_mirrors(std::vector<T*>& mirrors, group_type const& group, std::size_t n, std::int64_t first) const {
    for (std::size_t m = 0; m < devices_.size(); ++m)
      if (reach_(n, m) && !(group_type::mirror_is_master && m == n)) mirrors.push_back(group.mirror(m) + first);
  }

  /// Appends the copies behind that pass: from the device's own mirror to those that it does not reach.
  void add_mirror_copies(std::vector<staged_copy>& copies, group_type const& group, std::size_t n,
                         slice const& part) const {
    if (reach_.complete()) return;
    for (std::size_t m = 0; m < devices_.size(); ++m)
      if (!reach_(n, m))
        copies.push_back({n, group.mirror(m) + part.begin, group.mirror(n) + part.begin,
                          static_cast<std::size_t>(part.size()) * sizeof(T)});
  }

 private:
  template <class View>
  void make(addition& result, std::span<key_view const> keys, std::span<View const> values, bool resident,
            std::vector<bool> const& needs_gradient) {
    std::vector<std::size_t> sizes;
    std::int64_t elements = next_number_ % max_elements;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      expects<duplicate_key>(!contains(keys[i]),
                             [&] { return "init: " + key_text(keys[i]) + " was given to init before"; });
      auto const size = static_cast<std::int64_t>(values[i].size());
      expects<out_of_memory>(size < max_elements && (elements += padded(values[i].size())) < max_elements, [&] {
        return "init: " + key_text(keys[i]) + " has shape " + to_string(values[i].shape()) + " of " +
               std::string(place_.dtype) + ": a store holds less than 2^48 elements";
      });
      sizes.push_back(values[i].size());
    }
    auto const has_gradient = [&](std::size_t i) { return resident && needs_gradient[i]; };
    std::vector<bool> first(keys.size());  // keys with a gradient: the gradient arrays then cover no other
    for (std::size_t i = 0; i < keys.size(); ++i) first[i] = has_gradient(i);
    layout const numbers = lay_out_slices(sizes, first, 1);
    result.elements = numbers.size;
    result.loads = loads_;
    bool const alike = std::adjacent_find(first.begin(), first.end(), std::not_equal_to<>()) == first.end();
    bool const shared = numbers.size <= pass::leaf_size && alike && (!whole_keys_ || keys.size() == 1);
    layout const where =
        shared ? numbers
               : (whole_keys_ ? lay_out_owners(sizes, result.loads) : lay_out_slices(sizes, first, devices_.size()));
    std::int64_t begin = 0;  // of the keys in their group
    group_type* group = nullptr;
    if (shared) {
      group = share(result, numbers.size, resident, first.front());
      begin = result.opened.used - numbers.size;
    } else {
      std::int64_t gradients = 0;
      for (std::size_t i = 0; i < keys.size(); ++i)
        if (first[i]) gradients = std::max(gradients, where.offsets[i] + padded(sizes[i]));
      result.group = std::make_unique<group_type>(devices_, where.size, where.parts, resident, gradients);
      group = result.group.get();
    }
    group->clear(devices_, begin, begin + where.size);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      // Where keys are not cut, leaves begin with the key; else with the keys of an init.
      auto const phase = static_cast<std::int32_t>(whole_keys_ ? 0 : where.offsets[i] % pass::leaf_size);
      auto r = std::make_unique<record>(record{key_type(keys[i]),
                                               values[i].shape(),
                                               group,
                                               begin + where.offsets[i],
                                               next_number_ + numbers.offsets[i],
                                               phase,
                                               static_cast<std::int32_t>(index_.size() + i),
                                               has_gradient(i),
                                               {},
                                               {},
                                               0,
                                               0,
                                               0,
                                               {},
                                               0,
                                               false});
      store_value(*r, values[i]);
      expects<duplicate_key>(result.records.emplace(key_type(keys[i]), std::move(r)).second,
                             [&] { return "init: " + key_text(keys[i]) + " stands twice in one call"; });
    }
    if (resident) fill_mirrors(*group, begin, begin + where.size);
  }

  /// Room for a few elements of one owner in a group that further keys will share: keys that come one by one would else
  /// have pages each. Such groups grow with what they hold, so that their number and their free room stay small.
  group_type* share(addition& result, std::int64_t size, bool resident, bool gradients) {
    std::size_t const kind = resident ? (gradients ? 2 : 1) : 0;
    std::size_t const owner =
        whole_keys_ ? static_cast<std::size_t>(std::min_element(loads_.begin(), loads_.end()) - loads_.begin()) : 0;
    if (whole_keys_) result.loads[owner] += size;
    open_group& open = open_[kind * devices_.size() + owner];
    result.open = &open;
    result.opened = open;
    if (open.group == nullptr || open.group->size() - open.used < size) {
      std::int64_t const room = std::clamp(shared_elements_ / 4, pass::leaf_size, std::int64_t{1} << 20);
      std::int64_t const whole = padded(static_cast<std::size_t>(room));
      std::vector<slice> parts;
      for (std::size_t n = 0; n < devices_.size(); ++n) parts.push_back({n > owner ? whole : 0, n < owner ? 0 : whole});
      result.group = std::make_unique<group_type>(devices_, whole, std::move(parts), resident, gradients ? whole : 0);
      result.opened = {result.group.get(), 0};
    }
    result.opened.used += size;
    return result.opened.group;
  }

  /// Writes the master of every owner. The value is read before this returns, or before later work on its device.
  template <class View>
  void store_value(record const& r, View const& value) {
    using element = std::remove_const_t<typename View::value_type>;
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      slice const part = r.part(n);
      if (part.size() <= 0) continue;
      pushpull::shape const extent{part.size()};
      copy(tensor_view<element const, typename View::device_type>(value.data() + (part.begin - r.offset), extent,
                                                                  value.device()),
           tensor_view<W, D>(r.group->master(n) + (part.begin - r.group->part(n).begin), extent, devices_[n]));
    }
  }

  template <class Fill>
  void store_value(record& r, filled_value<Fill> const& value) {
    value.fill(r);
  }

  /// Of the group's elements [begin, end).
  void fill_mirrors(group_type& group, std::int64_t begin, std::int64_t end) {
    pull_step step(devices_.size());
    std::vector<staged_copy> copies;
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      slice const part{std::max(begin, group.part(n).begin), std::min(end, group.part(n).end)};
      if (part.size() <= 0) continue;
      typename pull_step::run_type run{};
      run.size = part.size();
      run.master = group.master(n) + (part.begin - group.part(n).begin);
      std::vector<T*> mirrors;
      add_mirrors(mirrors, group, n, part.begin);
      step.add(n, run, {}, mirrors);
      add_mirror_copies(copies, group, n, group.part(n));
    }
    step.commit(devices_);
    step.run(devices_);
    copy_behind(devices_, copies);
  }

  std::vector<D> devices_;
  device_reach reach_;
  std::shared_ptr<directory_type> directory_;
  typename directory_type::place place_;
  bool whole_keys_;
  bool may_skip_;
  mutable std::atomic<std::uint64_t> operations_ = 0;
  std::int64_t next_number_;         // of an element; stores that share a directory count from numbers far apart
  std::vector<std::int64_t> loads_;  // elements that each device owns, counted where keys are not cut
  std::vector<std::unique_ptr<group_type>> groups_;
  std::vector<open_group> open_;      // by kind and owner
  std::int64_t shared_elements_ = 0;  // in such groups
  index_type index_;
};

}  // namespace pushpull::detail
