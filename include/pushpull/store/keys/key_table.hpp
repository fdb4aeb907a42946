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
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_set>
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
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/addition.hpp>
#include <pushpull/store/keys/arena.hpp>
#include <pushpull/store/keys/arena_list.hpp>
#include <pushpull/store/keys/directory.hpp>
#include <pushpull/store/keys/filled_value.hpp>
#include <pushpull/store/keys/record.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Keys by name, and the arenas that hold their memory.
/// @tparam Keys    string_keys or integer_keys.
/// @tparam Types   The element types of arenas.
/// @tparam Collective  Whether owners may be in several processes.
template <class Keys, Device D, class Types, bool Collective = false>
class key_table {
 public:
  static constexpr bool collective = Collective;
  using T = typename Types::gradient;
  using W = typename Types::master;
  using device_type = D;
  using state_type = state_value<typename Types::state>;
  using stored_state = typename Types::state;
  using accumulation_type = typename Types::accumulation;
  using key_type = typename Keys::key_type;
  using key_view = typename Keys::key_view;
  using arena_type = key_arena<D, Types>;
  using record = key_record<key_type, D, arena_type>;
  using shard_type = shard<arena_type>;
  /// From masters to mirrors of the store's element type.
  using pull_step = fused_step<D, pass::hold, reduce::sum,
                               pass::element_types<T, typename Types::accumulation, W, W, T>, pass::memory::foreign>;

  using directory_type = key_directory<key_type, key_view>;
  using index_type =
      std::unordered_set<std::unique_ptr<record>, record_hash<record, key_view>, same_key<record, key_view>>;

  using addition = key_addition<record, directory_type, index_type, arena_type>;

  /// More elements than a store can have: with all states in any type their bytes can be counted, and their numbers are
  /// below those of the next store with the same directory.
  static constexpr std::int64_t max_elements = std::int64_t{1} << 48;

  /// @param devices     The local owners.
  /// @param all         All owners.
  /// @param directory   Of all stores that share a space of names; null if there are no others.
  /// @param number      This store's in the directory.
  /// @param placement   How keys are placed.
  /// @param states      State tensors per key.
  /// @param may_skip    Whether the rule may skip steps, so that the host does not know a key's t.
  /// @param ranks       All processes, if there are several.
  key_table(std::vector<D> const& devices, topology const& all, std::shared_ptr<directory_type> directory,
            std::size_t number, placement_rule const& placement, std::size_t states, bool may_skip,
            rank_group* ranks = nullptr)
      : devices_(devices),
        topology_(all),
        ranks_(ranks),
        reach_(devices),
        directory_(std::move(directory)),
        place_{number, dtype_traits<T>::name},
        placement_(placement),
        states_(states),
        may_skip_(may_skip),
        next_element_(static_cast<std::int64_t>(number) * max_elements),
        staged_(devices.size()),
        arenas_(all, states, placement, is_distributed() ? ranks : nullptr) {}

  /// Those of this process, which are the local owners.
  std::vector<D> const& devices() const { return devices_; }
  topology const& owners() const { return topology_; }
  /// Whether there are owners in other processes. Every process then has mirrors of all keys but those without.
  bool is_distributed() const { return Collective && topology_.ranks() > 1; }
  rank_group& ranks() const { return *ranks_; }
  /// Which devices reach the memory of which.
  device_reach const& reach() const { return reach_; }
  placement_rule const& placement() const { return placement_; }
  std::size_t state_count() const { return states_; }
  std::size_t size() const { return index_.size(); }
  bool contains(key_view key) const { return index_.find(key) != index_.end(); }

  /// In the order of their registration.
  std::vector<key_type> keys() const {
    std::vector<key_type> result;
    for (record const* const r : records()) result.push_back(r->key);
    return result;
  }

  /// Their records, in the same order.
  std::vector<record*> records() const {
    std::vector<record*> result(index_.size());
    for (auto const& r : index_) result[static_cast<std::size_t>(r->index)] = r.get();
    return result;
  }

  /// f(record) for each key, in no order.
  template <class F>
  void for_each(F const& f) const {
    for (auto const& r : index_) f(*r);
  }

  /// The bytes on device number n.
  memory_use use(std::size_t n) const {
    memory_use total = arenas_.use(n);
    total.exchange += staged_[n].total();
    for (auto const& r : index_)
      if (r->rare != nullptr) total += r->rare->use(devices_[n], n, !shard_of(*this, *r, n).empty());
    return total;
  }
  /// Of each device, the memory that stages what it does not reach: operations count it.
  std::vector<staged_bytes> const& staged() const { return staged_; }

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
    return **found;
  }

  record& find_resident(char const* call, key_view key) const {
    record& r = find(call, key);
    expects<invalid_argument>(
        r.arena->resident(), [&] { return std::string(call) + ": " + key_text(key) + " has no mirrors in the store"; });
    return r;
  }

  record& find_with_gradient(char const* call, key_view key) const {
    record& r = find_resident(call, key);
    expects<invalid_argument>(
        r.has_gradient, [&] { return std::string(call) + ": " + key_text(key) + " has no gradient in the store"; });
    return r;
  }

  /// Makes keys: all that may fail. One at a time; names and values must stay until `commit`.
  template <class View>
  addition prepare(std::span<key_view const> keys, std::span<View const> values, bool resident,
                   std::vector<bool> const& needs_gradient, key_options options = {}) {
    addition result;
    result.names.assign(keys.begin(), keys.end());
    std::size_t first = index_.size();
    if (directory_ != nullptr) {
      first = directory_->enter(keys, place_);
      result.directory = directory_;
    }
    make(result, first, keys, values, resident, needs_gradient, options);
    std::size_t const count = index_.size() + result.records.size();
    // A list takes the buckets that it needs; keys that come one by one double them.
    if (count >= index_.bucket_count()) index_.reserve(std::max(count, 2 * index_.bucket_count()));
    return result;
  }

  /// Adds them.
  void commit(addition& made) noexcept {
    made.directory = nullptr;
    arenas_.commit(made.memory);
    next_element_ += made.memory.elements();
    index_.merge(made.records);
  }

  /// Counts one operation's update of the keys for which `for_each_key(f)` calls f(record).
  template <class ForEachKey>
  void count(ForEachKey const& for_each_key) const {
    std::uint64_t const operation = may_skip_ ? ++operations_ : 0;
    for_each_key([&](record& r) {
      ++r.updates;
      if (may_skip_) r.history = joined_history(r.history, operation);
    });
  }
  /// Same, for an operation that is captured: nobody counts how often its graph is launched. The devices' own counts go on.
  template <class ForEachKey>
  void count_captured(ForEachKey const& for_each_key) const {
    for_each_key([operation = ++operations_](record& r) { r.captures = joined_history(r.captures, operation); });
  }

  /// Gives a resident key gradients on every device, if it has none.
  void require_gradient(key_view key) {
    record& r = find_resident("require_gradient", key);
    if (r.has_gradient) return;
    std::vector<buffer<D>> memory;
    for (D const& device : devices_) {
      memory.emplace_back(device, static_cast<std::size_t>(arena_type::padded(r.shape.size())) * sizeof(T));
      device.fill_zero(memory.back().data(), memory.back().bytes());
    }
    r.with_rare().own_gradient = std::move(memory);
    r.has_gradient = true;
  }

  /// The first element of a resident key's mirror on device number n.
  static T* mirror(record const& r, std::size_t n) { return r.arena->mirror(n) + r.offset; }
  /// The first element of a resident key's gradient on device number n.
  static T* gradient(record const& r, std::size_t n) {
    return r.has_own_gradient() ? static_cast<T*>(r.rare->own_gradient[n].data()) : r.arena->gradient(n) + r.offset;
  }

  /// Appends what a pass over the shard writes in addition to its master: its place in the mirrors that the device
  /// reaches, without the one that is its master.
  void add_mirrors(std::vector<T*>& mirrors, shard_type const& s) const {
    for_each_reached_mirror(s, [&](std::size_t m) { mirrors.push_back(s.mirror(m)); });
    for_each_shared_mirror(s, [&](T* first) { mirrors.push_back(first + s.arena_offset()); });
  }
  /// Same as add_mirrors, but the first element of the whole key in each.
  void add_whole_mirrors(std::vector<T*>& mirrors, shard_type const& s) const {
    for_each_reached_mirror(s, [&](std::size_t m) { mirrors.push_back(s.whole_mirror(m)); });
    for_each_shared_mirror(s, [&](T* first) { mirrors.push_back(first + (s.arena_offset() - s.offset())); });
  }

  /// Appends the copies after that pass: from the device's own mirror to those that it does not reach.
  void add_mirror_copies(std::vector<staged_copy>& copies, shard_type const& s) const {
    if (reach_.complete()) return;
    std::size_t const n = s.device_number();
    for (std::size_t m = 0; m < devices_.size(); ++m)
      if (!reach_(n, m))
        copies.push_back({n, s.mirror(m), s.mirror(n), static_cast<std::size_t>(s.size()) * sizeof(T)});
  }

  /// Writes the masters of the local owners. The value is read before this returns, or before later work on its device.
  /// @param value  The key's elements, or some that follow one another: from number `first` on.
  template <class View>
  void store_value(record const& r, View const& value, std::int64_t first = 0) const {
    using element = std::remove_const_t<typename View::value_type>;
    slice const given{first, first + static_cast<std::int64_t>(value.size())};
    for_each_shard(*this, r, [&](shard_type const& s) {
      slice const part = common(given, {s.offset(), s.offset() + s.size()});
      if (part.size() <= 0) return;
      pushpull::shape const extent{part.size()};
      copy(tensor_view<element const, typename View::device_type>(value.data() + (part.begin - first), extent,
                                                                  value.device()),
           tensor_view<W, D>(s.master() + (part.begin - s.offset()), extent, s.device()));
    });
  }
  /// The part of a step that writes the shard's master to the local mirrors, not to those of other ranks, which do the
  /// same at a time of their own. @param copies  For after the step.
  void add_own_mirrors(pull_step& step, std::vector<staged_copy>& copies, shard_type const& s) const {
    std::vector<T*> mirrors;
    for_each_reached_mirror(s, [&](std::size_t m) { mirrors.push_back(s.mirror(m)); });
    add_mirror_copies(copies, s);
    step.add(s.device_number(), s.template run<typename pull_step::run_type>(), {}, mirrors);
  }

 private:
  /// The part of a value that does not depend on its type.
  struct extent_of_value {
    pushpull::shape shape;
    bool has_rows;
  };

  template <class View>
  void make(addition& result, std::size_t first, std::span<key_view const> keys, std::span<View const> values,
            bool resident, std::vector<bool> const& needs_gradient, key_options options) {
    std::vector<extent_of_value> extents;
    for (View const& value : values) {
      bool rows = false;
      if constexpr (requires { value.has_rows; }) rows = value.has_rows;
      extents.push_back({value.shape(), rows});
    }
    bool const mirrored = resident || (is_distributed() && options.mirrored);
    auto const records = make_records(result, first, keys, extents, resident, mirrored, needs_gradient);
    for (std::size_t i = 0; i < keys.size(); ++i) store_value(*records[i], values[i]);
    if (mirrored)
      result.memory.for_each_range([&](arena_type& arena, slice const& range) { fill_mirrors(arena, range); });
  }
  /// Keys of zeros.
  std::vector<record*> make_records(addition& result, std::size_t first, std::span<key_view const> keys,
                                    std::vector<extent_of_value> const& values, bool resident, bool mirrored,
                                    std::vector<bool> const& needs_gradient) {
    std::vector<record*> made;
    std::vector<std::size_t> sizes;
    std::vector<placed_key> placed;
    std::int64_t elements = next_element_ % max_elements;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      expects<duplicate_key>(!contains(keys[i]),
                             [&] { return "init: " + key_text(keys[i]) + " was given to init before"; });
      pushpull::shape const& shape = values[i].shape;
      auto const size = static_cast<std::int64_t>(shape.size());
      expects<out_of_memory>(size < max_elements && (elements += arena_type::padded(size)) < max_elements, [&] {
        return "init: " + key_text(keys[i]) + " has shape " + to_string(shape) + " of " + std::string(place_.dtype) +
               ": a store holds less than 2^48 elements";
      });
      sizes.push_back(shape.size());
      if (!placement_.bound && !placement_.whole_keys) continue;
      auto const order = static_cast<std::int64_t>(first + i);
      placed.push_back({number_of(keys[i], order), values[i].has_rows ? row_length_of(shape) : 1,
                        placement_.cost != nullptr ? placement_.cost(shape) : size});
    }
    std::vector<bool> has_gradient(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) has_gradient[i] = resident && needs_gradient[i];
    result.memory = arenas_.prepare(devices_, sizes, has_gradient, mirrored, placed);
    auto const& where = result.memory;
    for (std::size_t i = 0; i < keys.size(); ++i) {
      auto r = std::make_unique<record>(record{.key = key_type(keys[i]),
                                               .shape = *shapes_.insert(values[i].shape).first,
                                               .arena = &where.arena(i),
                                               .offset = where.offset(i),
                                               .first_element = next_element_ + where.first_element(i),
                                               .leaf_phase = where.leaf_phase(i),
                                               .index = static_cast<std::int32_t>(index_.size() + i),
                                               .has_gradient = has_gradient[i]});
      made.push_back(r.get());
      expects<duplicate_key>(result.records.insert(std::move(r)).second,
                             [&] { return "init: " + key_text(keys[i]) + " stands twice in one call"; });
    }
    return made;
  }

  template <class Fill>
  void store_value(record& r, filled_value<Fill> const& value) {
    value.fill(r);
  }

  void fill_mirrors(arena_type& arena, slice const& range) {
    pull_step step(devices_.size());
    std::vector<staged_copy> copies;
    for_each_shard(*this, arena, range, {}, [&](shard_type const& s) { add_own_mirrors(step, copies, s); });
    step.commit(devices_);
    step.run(devices_);
    copy_behind(devices_, copies);
  }

  /// f(m) for each local device m whose mirror a pass over the shard writes in addition to its master.
  template <class F>
  void for_each_reached_mirror(shard_type const& s, F const& f) const {
    for (std::size_t m = 0; m < devices_.size(); ++m)
      if (reach_(s.device_number(), m) && !(arena_type::mirror_is_master && m == s.device_number())) f(m);
  }

  /// f(the arena's first element) for each mirror of another process that the pass writes.
  template <class F>
  void for_each_shared_mirror([[maybe_unused]] shard_type const& s, [[maybe_unused]] F const& f) const {
    if constexpr (Collective) {
      if (!s.arena().is_shared()) return;
      node_layout const& nodes = ranks_->nodes();
      std::size_t const first = nodes.first_of_node(topology_.rank());
      for (std::size_t rank = first; rank < first + nodes.ranks_per_node; ++rank)
        for (std::size_t m = 0; rank != topology_.rank() && m < devices_.size(); ++m) f(s.arena().mirror(rank, m));
    }
  }

  std::vector<D> devices_;
  topology topology_;
  rank_group* ranks_;
  device_reach reach_;
  std::set<pushpull::shape, shape_order> shapes_;  // of its keys, and of keys whose init failed
  std::shared_ptr<directory_type> directory_;
  typename directory_type::place place_;
  placement_rule placement_;
  std::size_t states_;
  bool may_skip_;
  mutable std::atomic<std::uint64_t> operations_ = 0;
  std::int64_t next_element_;         // stores that share a directory count from numbers far apart
  std::vector<staged_bytes> staged_;  // each its own
  arena_list<arena_type> arenas_;
  index_type index_;
};

}  // namespace pushpull::detail
