/// @file
/// The key-value store of one process: push gradients, pull weights.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/store.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/fused_step.hpp>
#include <pushpull/store/key_group.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/tensor/copy.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull {

namespace detail {

struct string_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const noexcept { return std::hash<std::string_view>{}(s); }
};
template <class Key>
using key_hash = std::conditional_t<std::same_as<Key, std::string>, string_hash, std::hash<Key>>;

inline std::string key_text(std::string_view key) { return "key \"" + std::string(key) + "\""; }
inline std::string key_text(std::int64_t key) { return "key " + std::to_string(key); }

}  // namespace detail

/// Keys with one stored tensor each, cut into slices that the devices own. A push reduces the gradients of all sources
/// and applies the rule in one pass per device; without a rule it replaces the stored value by the reduced gradients.
/// @tparam T         Element type of gradients and outputs.
/// @tparam D         The devices.
/// @tparam Policies  In any order, at most one of each: an Updater (default: none), a Reduction (reduce::sum), an element
///                   policy (element::uniform), string_keys or integer_keys (string_keys), a Compressor (compress::none),
///                   a Communicator (comm::single).
/// Calls return when their work is enqueued; on CPU devices it is then finished. Work on one key runs in the order of the
/// calls. The caller's tensors are read and written until `wait` returns, never kept. Tensors in host memory work with
/// every device, by a copy. One thread at a time. After an exception the store holds what it held before.
template <ElementType T, Device D, class... Policies>
class kv_store {
  static_assert(detail::check_policies<Policies...>::value);
  using key_policy = detail::pick_t<key_tag, string_keys, Policies...>;
  using element_policy = detail::pick_t<element_tag, element::uniform, Policies...>;

 public:
  using value_type = T;
  using device_type = D;
  using key_type = typename key_policy::key_type;
  using key_view = typename key_policy::key_view;
  using updater_type = typename detail::pick_updater<Policies...>::type;
  using reduction_type = detail::pick_t<reduction_tag, reduce::sum, Policies...>;
  using compressor_type = detail::pick_t<compressor_tag, compress::none, Policies...>;
  using communicator_type = detail::pick_t<communicator_tag, comm::single, Policies...>;
  using master_type = typename element_policy::template master_type<T>;
  using state_type = typename element_policy::template state_type<T>;
  using accumulation_type = std::common_type_t<accumulation_t<T>, accumulation_t<master_type>>;
  /// Whether push applies a rule.
  static constexpr bool has_updater = !std::same_as<updater_type, no_updater>;
  static_assert(detail::check_updater<updater_type, accumulation_type>::value);
  static_assert(Reduction<reduction_type>, "kv_store: the reduction does not model Reduction");
  static_assert(Compressor<compressor_type>, "kv_store: the compressor does not model Compressor");
  static_assert(Communicator<communicator_type>, "kv_store: the communicator does not model Communicator");
  static_assert(!has_updater || (FloatingElement<T> && FloatingElement<master_type> && FloatingElement<state_type>),
                "kv_store: an Updater needs floating-point elements");

 private:
  struct record;
  using rule_type = std::conditional_t<has_updater, updater_type, pass::assign>;
  using types = pass::element_types<T, accumulation_type, master_type, state_type, T>;
  static constexpr std::size_t states = detail::state_count<rule_type>;
  using group_type = detail::key_group<D, types, states>;
  template <pass::memory Memory>
  using step_of = detail::fused_step<D, rule_type, reduction_type, types, Memory>;
  using pull_types = pass::element_types<T, accumulation_type, master_type, master_type, T>;
  using pull_step = detail::fused_step<D, pass::hold, reduce::sum, pull_types, pass::memory::foreign>;
  using control_type = typename step_of<pass::memory::foreign>::control_type;
  using pull_control = typename pull_step::control_type;

 public:
  /// A step over given keys, from their resident gradients to their resident mirrors. See `make_plan`.
  class plan_type {
   public:
    /// Keys that it updates.
    std::size_t size() const { return keys_.size(); }
    /// Passes that it launches on each device: 1, or 2 if the rule is a PreReduction.
    static constexpr int passes = PreReduction<rule_type> ? 2 : 1;

   private:
    friend class kv_store;
    explicit plan_type(std::size_t devices) : step_(devices) {}
    step_of<pass::memory::arenas> step_;
    std::vector<record*> keys_;
    std::vector<bool> joined_;  // key i continues the run of key i - 1
  };

  /// @throws invalid_argument if there is no device or the rule refuses its hyperparameters; duplicate_device
  explicit kv_store(std::vector<D> devices, updater_type const& updater = {})
    requires std::default_initializable<updater_type>
      : kv_store(std::in_place, std::move(devices), updater) {}
  explicit kv_store(std::vector<D> devices, updater_type const& updater)
    requires(!std::default_initializable<updater_type>)
      : kv_store(std::in_place, std::move(devices), updater) {}

  std::vector<D> const& devices() const { return devices_; }
  /// Number of keys.
  std::size_t size() const { return index_.size(); }
  bool contains(key_view key) const { return index_.find(key) != index_.end(); }
  /// @throws unknown_key
  pushpull::shape const& shape(key_view key) const { return find("shape", key).shape; }
  int rank() const { return communicator_type{}.rank(); }
  int num_workers() const { return communicator_type{}.size(); }

  /// The rule with its present hyperparameters.
  updater_type const& updater() const { return updater_; }
  /// Other hyperparameters from the next push on; states and step counts stay. @throws invalid_argument
  void set_hyperparameters(updater_type const& updater)
    requires has_updater
  {
    validate(updater);
    for (std::size_t n = 0; n < devices_.size(); ++n) controls_[n].set(devices_[n], updater);
    updater_ = updater;
  }

  /// Stores a deep copy of `value`, a tensor of any element type on any device; states start at zero.
  /// @throws duplicate_key
  template <TensorLike V>
  void init(key_view key, V const& value) {
    auto const view = view_of(value);
    init_keys(std::span<key_view const>(&key, 1), std::span(&view, 1), false, {});
  }

  /// As above for each key of a list, and in one arena: what a model's keys should use. All or none is stored.
  /// @throws duplicate_key; shape_mismatch if the ranges differ in length
  template <std::ranges::input_range Keys, std::ranges::input_range Values>
    requires std::convertible_to<std::ranges::range_reference_t<Keys>, key_view> &&
             TensorLike<std::ranges::range_reference_t<Values>>
  void init(Keys const& keys, Values&& values) {
    std::vector<key_view> names(std::ranges::begin(keys), std::ranges::end(keys));
    std::vector<decltype(view_of(*std::ranges::begin(values)))> views;
    for (auto&& value : values) views.push_back(view_of(value));
    expect_count("init", names.size(), views.size(), "values");
    init_keys(std::span<key_view const>(names), std::span(std::as_const(views)), false, {});
  }

  /// Reduces the gradients of one source or of a range of sources, each of the key's shape, and applies the rule.
  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient
  /// Cost: per device one pass over its slice of the key.
  template <TensorsOf<T> Gradients>
  void push(key_view key, Gradients const& gradients) {
    begin_call();
    add_item("push", key, gradients, no_tensors());
    enqueue();
  }

  /// As above for each key of a list: one pass per device for all of them.
  /// @throws as above; shape_mismatch if the ranges differ in length; duplicate_key if a key stands twice
  template <std::ranges::input_range Keys, TensorListOf<T> Gradients>
    requires std::convertible_to<std::ranges::range_reference_t<Keys>, key_view>
  void push(Keys const& keys, Gradients const& gradients) {
    begin_call();
    auto gradient = std::ranges::begin(gradients);
    for (auto const& key : keys) {
      expect_more("push", gradient != std::ranges::end(gradients), "gradients");
      add_item("push", key, *gradient, no_tensors());
      ++gradient;
    }
    expect_more("push", gradient == std::ranges::end(gradients), "keys");
    enqueue();
  }

  /// Sets one output or a range of outputs, each of the key's shape and of any element type, to the stored value.
  /// @throws unknown_key, shape_mismatch
  /// Cost: per device one pass that reads its slice once and writes it once per output.
  template <detail::TensorsOfAny Outputs>
  void pull(key_view key, Outputs&& outputs) {
    pull_items<detail::element_in<Outputs>>("pull", std::span<key_view const>(&key, 1),
                                            [&](auto const& f) { detail::for_each_tensor(outputs, f); });
  }

  /// As above for each key of a list.
  /// @throws as above; shape_mismatch if the ranges differ in length
  template <std::ranges::input_range Keys, std::ranges::forward_range Outputs>
    requires std::convertible_to<std::ranges::range_reference_t<Keys>, key_view> &&
             detail::TensorsOfAny<std::ranges::range_reference_t<Outputs>>
  void pull(Keys const& keys, Outputs&& outputs) {
    std::vector<key_view> const names(std::ranges::begin(keys), std::ranges::end(keys));
    auto const count = static_cast<std::size_t>(std::ranges::distance(outputs));
    expect_count("pull", names.size(), count, "outputs");
    auto output = std::ranges::begin(outputs);
    pull_items<detail::element_in<Outputs>>("pull", names, [&](auto const& f) {
      detail::for_each_tensor(*output, f);
      ++output;
    });
  }

  /// push, then pull, in one pass: the new values go to the outputs while they are in registers.
  /// @throws as push and pull
  template <TensorsOf<T> Gradients, TensorsOf<T> Outputs>
  void pushpull(key_view key, Gradients const& gradients, Outputs&& outputs) {
    begin_call();
    add_item("pushpull", key, gradients, outputs);
    enqueue();
  }

  /// As above for each key of a list: one pass per device for all of them.
  template <std::ranges::input_range Keys, TensorListOf<T> Gradients, TensorListOf<T> Outputs>
    requires std::convertible_to<std::ranges::range_reference_t<Keys>, key_view>
  void pushpull(Keys const& keys, Gradients const& gradients, Outputs&& outputs) {
    begin_call();
    auto gradient = std::ranges::begin(gradients);
    auto output = std::ranges::begin(outputs);
    for (auto const& key : keys) {
      expect_more("pushpull", gradient != std::ranges::end(gradients), "gradients");
      expect_more("pushpull", output != std::ranges::end(outputs), "outputs");
      add_item("pushpull", key, *gradient, *output);
      ++gradient;
      ++output;
    }
    expect_more("pushpull", gradient == std::ranges::end(gradients) && output == std::ranges::end(outputs), "keys");
    enqueue();
  }

  /// init, then pull. @throws as both
  template <TensorLike V, detail::TensorsOfAny Outputs>
  void broadcast(key_view key, V const& value, Outputs&& outputs) {
    detail::for_each_tensor(outputs, [&](auto const& view) {
      expect_shape("broadcast", key, view_of(value).shape(), view.shape());
    });
    init(key, value);
    pull(key, outputs);
  }

  /// Returns when everything enqueued is finished. @throws the error of work that failed
  void wait() const {
    for (D const& device : devices_) device.synchronize();
  }

  /// Updates of the key so far. Waits.
  /// @throws unknown_key
  std::int64_t steps(key_view key) const
    requires has_updater
  {
    record const& r = find("steps", key);
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      if (overlap(r, n).size() <= 0) continue;
      std::int64_t t = 0;
      detail::copy_bytes(cpu_device<>(), &t, devices_[n], &controls_[n].clocks()[r.clock].t, sizeof(t));
      return t;
    }
    return 0;  // a key without elements has no owner
  }

  /// The elements of a state tensor of the key, by its name. Waits.
  /// @throws unknown_key; invalid_argument if the rule has no such state
  std::vector<state_type> state(key_view key, std::string_view name) const {
    record const& r = find("state", key);
    auto const& names = rule_type::state_names;
    auto const found = std::find(names.begin(), names.end(), name);
    detail::expects<invalid_argument>(found != names.end(), [&] {
      return "state: the rule has no state \"" + std::string(name) + "\"";
    });
    std::vector<state_type> elements(r.shape.size());
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      detail::slice const part = overlap(r, n);
      if (part.size() <= 0) continue;
      state_type const* const from = r.group->state(n, static_cast<std::size_t>(found - names.begin()));
      detail::copy_bytes(cpu_device<>(), elements.data() + (part.begin - r.offset), devices_[n],
                         from + (part.begin - r.group->part(n).begin),
                         static_cast<std::size_t>(part.size()) * sizeof(state_type));
    }
    return elements;
  }

  /// Bytes that the store holds on device number n: masters, states, resident mirrors and gradients.
  std::size_t bytes(std::size_t n) const {
    std::size_t total = 0;
    for (auto const& group : groups_) total += group->bytes(n);
    return total;
  }

  /// As init of a list, for keys whose mirrors (one per device) and gradients the store holds: see ResidentStore. A key
  /// that needs no gradient gets none.
  /// @throws as init
  template <class V>
  void init_resident(std::span<key_type const> keys, std::span<V const> values, std::vector<bool> const& needs_gradient) {
    std::vector<key_view> const names(keys.begin(), keys.end());
    expect_count("init_resident", names.size(), values.size(), "values");
    expect_count("init_resident", names.size(), needs_gradient.size(), "flags");
    init_keys(std::span<key_view const>(names), values, true, needs_gradient);
  }

  /// The key's mirror on device number n. @throws unknown_key; invalid_argument if the key is not resident
  tensor_view<T, D> mirror(key_view key, std::size_t n) const {
    record const& r = find_resident("mirror", key);
    return {r.group->mirror(n) + r.offset, r.shape, devices_[n]};
  }

  /// The key's gradient on device number n, to be written before each update.
  /// @throws as mirror; invalid_argument if the key was initialised without one
  tensor_view<T, D> gradient(key_view key, std::size_t n) const {
    record const& r = find_resident("gradient", key);
    expect_gradient("gradient", key, r);
    T* const own = r.own_gradient.empty() ? nullptr : static_cast<T*>(r.own_gradient[n].data());
    return {own != nullptr ? own : r.group->gradient(n) + r.offset, r.shape, devices_[n]};
  }

  /// Gives a resident key a gradient on every device, if it has none. @throws as mirror
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

  /// The step over resident keys, in arenas: neighbouring keys that have seen equally many updates share a run. A plan is
  /// valid for the life of the store and may be used again and again.
  /// @throws unknown_key; invalid_argument if a key has no resident gradient; duplicate_key
  plan_type make_plan(std::span<key_type const> keys) {
    plan_type plan(devices_.size());
    for (auto const& key : keys) {
      record& r = find_resident("make_plan", key);
      expect_gradient("make_plan", key, r);
      plan.keys_.push_back(&r);
    }
    std::sort(plan.keys_.begin(), plan.keys_.end(), [](auto const* a, auto const* b) { return a->clock < b->clock; });
    detail::expects<duplicate_key>(std::adjacent_find(plan.keys_.begin(), plan.keys_.end()) == plan.keys_.end(),
                                   [] { return std::string("make_plan: a key stands twice"); });
    build(plan);
    return plan;
  }

  /// pushpull from the resident gradients to the resident mirrors: one pass per device.
  void update(plan_type& plan) {
    // A key that was pushed alone has seen more updates than its neighbours: they can no longer share a clock.
    for (std::size_t i = 1; i < plan.keys_.size(); ++i)
      if (plan.joined_[i] && plan.keys_[i]->updates != plan.keys_[i - 1]->updates) {
        build(plan);
        break;
      }
    plan.step_.run(devices_, controls_);
    for (record* const r : plan.keys_) ++r->updates;
  }

 private:
  struct record {
    pushpull::shape shape;
    group_type* group;
    std::int64_t offset;                  // of its first element in the group
    std::int32_t clock;                   // number of the key, in order of init
    bool has_gradient;                    // resident
    std::vector<buffer<D>> own_gradient;  // resident, outside the group's arenas
    std::int64_t updates = 0;             // the clock's t
    std::uint64_t call = 0;               // the last call that named the key

    std::int64_t size() const { return static_cast<std::int64_t>(shape.size()); }
  };
  using source = detail::operand<T const, D>;
  using target = detail::operand<T, D>;
  struct item {
    record* key;
    std::size_t source, sources, target, targets;
  };
  struct no_tensors {};

  kv_store(std::in_place_t, std::vector<D> devices, updater_type const& updater)
      : devices_(std::move(devices)),
        updater_(updater),
        scratch_(devices_.size()),
        pull_scratch_(devices_.size()),
        staging_(devices_.size()) {
    detail::expects<invalid_argument>(!devices_.empty(),
                                      [] { return std::string("kv_store: at least 1 device expected, got none"); });
    for (auto a = devices_.begin(); a != devices_.end(); ++a)
      detail::expects<duplicate_device>(std::find(std::next(a), devices_.end(), *a) == devices_.end(), [&] {
        return "kv_store: device " + a->name() + " stands twice in the list";
      });
    validate(updater_);
    if constexpr (has_updater)
      for (D const& device : devices_) controls_.emplace_back(device, updater_);
  }

  static void validate(updater_type const& updater) {
    if constexpr (requires { updater.validate(); }) updater.validate();
  }

  static std::int64_t padded(std::size_t size) {
    return (static_cast<std::int64_t>(size) + pass::padding - 1) / pass::padding * pass::padding;
  }

  record const& find(char const* call, key_view key) const {
    auto const found = index_.find(key);
    detail::expects<unknown_key>(found != index_.end(), [&] {
      return std::string(call) + ": " + detail::key_text(key) + " was never given to init";
    });
    return *found->second;
  }
  record& find(char const* call, key_view key) { return const_cast<record&>(std::as_const(*this).find(call, key)); }
  record const& find_resident(char const* call, key_view key) const {
    record const& r = find(call, key);
    detail::expects<invalid_argument>(r.group->resident(), [&] {
      return std::string(call) + ": " + detail::key_text(key) + " has no mirrors in the store";
    });
    return r;
  }
  record& find_resident(char const* call, key_view key) {
    return const_cast<record&>(std::as_const(*this).find_resident(call, key));
  }

  static void expect_gradient(char const* call, key_view key, record const& r) {
    detail::expects<invalid_argument>(r.has_gradient, [&] {
      return std::string(call) + ": " + detail::key_text(key) + " has no gradient in the store";
    });
  }
  static void expect_shape(char const* call, key_view key, pushpull::shape const& expected, pushpull::shape const& got) {
    detail::expects<shape_mismatch>(expected == got, [&] {
      return std::string(call) + ": " + detail::key_text(key) + " has shape " + to_string(expected) +
             ", a tensor of shape " + to_string(got) + " came";
    });
  }
  static void expect_count(char const* call, std::size_t keys, std::size_t count, char const* what) {
    detail::expects<shape_mismatch>(keys == count, [&] {
      return std::string(call) + ": " + std::to_string(keys) + " " + what + " expected, one per key, got " +
             std::to_string(count);
    });
  }
  static void expect_more(char const* call, bool more, char const* what) {
    detail::expects<shape_mismatch>(
        more, [&] { return std::string(call) + ": fewer " + what + " than the other ranges have elements"; });
  }

  /// The key's elements that device number n owns, in the group's coordinates.
  detail::slice overlap(record const& r, std::size_t n) const {
    detail::slice const& part = r.group->part(n);
    return {std::max(part.begin, r.offset), std::min(part.end, r.offset + r.size())};
  }

  template <class View>
  void init_keys(std::span<key_view const> keys, std::span<View const> values, bool resident,
                 std::vector<bool> const& needs_gradient) {
    // Keys with a gradient first: the gradient arrays then cover no other.
    std::vector<std::size_t> order(keys.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    if (resident)
      std::stable_partition(order.begin(), order.end(), [&](std::size_t i) { return bool{needs_gradient[i]}; });
    std::int64_t size = 0, gradients = 0;
    std::vector<std::int64_t> offsets;
    for (std::size_t const i : order) {
      detail::expects<duplicate_key>(!contains(keys[i]), [&] {
        return "init: " + detail::key_text(keys[i]) + " was given to init before";
      });
      offsets.push_back(size);
      size += padded(values[i].size());
      if (resident && needs_gradient[i]) gradients = size;
    }
    auto group = std::make_unique<group_type>(devices_, size, resident, gradients);
    decltype(index_) added;
    for (std::size_t j = 0; j < order.size(); ++j) {
      std::size_t const i = order[j];
      auto r = std::make_unique<record>(record{values[i].shape(), group.get(), offsets[j],
                                               static_cast<std::int32_t>(index_.size() + j),
                                               resident && needs_gradient[i], {}, 0, 0});
      store_value(*r, values[i]);
      detail::expects<duplicate_key>(added.emplace(key_type(keys[i]), std::move(r)).second, [&] {
        return "init: " + detail::key_text(keys[i]) + " stands twice in one call";
      });
    }
    if (resident) fill_mirrors(*group);
    for (std::size_t n = 0; n < controls_.size(); ++n) controls_[n].reserve(devices_[n], index_.size() + added.size());
    index_.reserve(index_.size() + added.size());
    groups_.push_back(std::move(group));
    index_.merge(added);
  }

  /// Writes the master of every owner. The value is read before this returns, or before later work on its device.
  template <class View>
  void store_value(record const& r, View const& value) {
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      detail::slice const part = overlap(r, n);
      if (part.size() <= 0) continue;
      pushpull::shape const extent{part.size()};
      using element = std::remove_const_t<typename View::value_type>;
      copy(tensor_view<element const, typename View::device_type>(value.data() + (part.begin - r.offset), extent,
                                                                  value.device()),
           tensor_view<master_type, D>(r.group->master(n) + (part.begin - r.group->part(n).begin), extent, devices_[n]));
    }
  }

  /// Writes the whole group's mirrors from its masters.
  void fill_mirrors(group_type& group) {
    pull_scratch_.clear();
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      typename pull_step::run_type run{};
      run.size = group.part(n).size();
      if (run.size == 0) continue;
      run.master = group.master(n);
      mirrors_.clear();
      add_mirrors(group, n, group.part(n).begin);
      pull_scratch_.add(n, run, {}, mirrors_);
    }
    pull_scratch_.commit(devices_);
    pull_scratch_.run(devices_, {});
  }

  /// The group's mirrors from element `first` on, without the one that is the master of device n.
  void add_mirrors(group_type const& group, std::size_t n, std::int64_t first) {
    for (std::size_t m = 0; m < devices_.size(); ++m)
      if (!(group_type::mirror_is_master && m == n)) mirrors_.push_back(group.mirror(m) + first);
  }

  void begin_call() {
    ++call_;
    items_.clear();
    sources_.clear();
    targets_.clear();
  }

  template <class Gradients, class Outputs>
  void add_item(char const* call, key_view key, Gradients const& gradients, Outputs&& outputs) {
    record& r = find(call, key);
    detail::expects<duplicate_key>(std::exchange(r.call, call_) != call_, [&] {
      return std::string(call) + ": " + detail::key_text(key) + " stands twice in one call";
    });
    item x{&r, sources_.size(), 0, targets_.size(), 0};
    detail::for_each_tensor(gradients, [&](auto const& view) {
      expect_shape(call, key, r.shape, view.shape());
      sources_.push_back(detail::operand_of<T const, D>(view));
    });
    if constexpr (!std::same_as<std::remove_cvref_t<Outputs>, no_tensors>)
      detail::for_each_tensor(outputs, [&](auto const& view) {
        expect_shape(call, key, r.shape, view.shape());
        targets_.push_back(detail::operand_of<T, D>(view));
      });
    x.sources = sources_.size() - x.source;
    x.targets = targets_.size() - x.target;
    detail::expects<invalid_argument>(x.sources > 0, [&] {
      return std::string(call) + ": " + detail::key_text(key) + " came with no gradient";
    });
    items_.push_back(x);
  }

  /// Pushes, or pushes and pulls, what the call has gathered.
  void enqueue() {
    scratch_.clear();
    copies_.clear();
    for (auto& memory : staging_) memory.clear();
    bool const several = std::any_of(items_.begin(), items_.end(), [](item const& x) { return x.sources > 1; });
    order_after(sources_);
    order_after(targets_);
    for (item const& x : items_)
      for (std::size_t n = 0; n < devices_.size(); ++n) add_run(x, n, several);
    scratch_.commit(devices_);
    scratch_.run(devices_, controls_);
    finish_copies();
    order_before(sources_);
    order_before(targets_);
    for (item const& x : items_) ++x.key->updates;
  }

  /// The part of an item that device number n owns.
  void add_run(item const& x, std::size_t n, bool several) {
    record const& r = *x.key;
    detail::slice const part = overlap(r, n);
    if (part.size() <= 0) return;
    std::int64_t const skipped = part.begin - r.offset;
    std::int64_t const local = part.begin - r.group->part(n).begin;
    gradients_.clear();
    mirrors_.clear();
    for (std::size_t k = x.source; k < x.source + x.sources; ++k)
      gradients_.push_back(readable(sources_[k], n, skipped, part.size()));
    for (std::size_t k = x.target; k < x.target + x.targets; ++k)
      mirrors_.push_back(writable(targets_[k], n, skipped, part.size()));
    if (r.group->resident()) add_mirrors(*r.group, n, part.begin);
    typename step_of<pass::memory::foreign>::run_type run{};
    run.size = part.size();
    run.leaf_phase = part.begin % pass::leaf_size;
    run.clock = r.clock;
    run.master = r.group->master(n) + local;
    for (std::size_t s = 0; s != states; ++s) run.state[s] = r.group->state(n, s) + local;
    if constexpr (PreReduction<rule_type>) run.reduced = several ? r.group->reduced(devices_[n], n) + local : nullptr;
    scratch_.add(n, run, gradients_, mirrors_);
    scratch_.add_clock(n, r.clock, true);
  }

  /// Memory with `size` elements of the operand, from element `first` on, that device number n can read.
  T const* readable(source const& x, std::size_t n, std::int64_t first, std::int64_t size) {
    if (detail::reaches(devices_[n], x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(T);
    void* const staged = staging_[n].take(devices_[n], bytes);
    devices_[n].copy(staged, x.data + first, bytes);
    return static_cast<T const*>(staged);
  }

  /// Likewise memory that it can write; what lands there is copied on when the pass is done.
  template <class U>
  U* writable(detail::operand<U, D> const& x, std::size_t n, std::int64_t first, std::int64_t size) {
    if (detail::reaches(devices_[n], x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(U);
    void* const staged = staging_[n].take(devices_[n], bytes);
    copies_.push_back({n, x.data + first, staged, bytes});
    return static_cast<U*>(staged);
  }

  void finish_copies() {
    for (auto const& [n, to, from, bytes] : copies_) devices_[n].copy(to, from, bytes);
  }

  /// The store's devices wait for devices of operands that are not among them, and the other way round.
  template <class U>
  void order_after(std::vector<detail::operand<U, D>> const& operands) {
    for (auto const& x : operands)
      if (x.device && std::find(devices_.begin(), devices_.end(), *x.device) == devices_.end())
        for (D const& device : devices_) device.wait_for(*x.device);
  }
  template <class U>
  void order_before(std::vector<detail::operand<U, D>> const& operands) {
    for (auto const& x : operands)
      if (x.device && !copies_.empty())
        for (D const& device : devices_) x.device->wait_for(device);
      else if (x.device && std::find(devices_.begin(), devices_.end(), *x.device) == devices_.end())
        for (D const& device : devices_) x.device->wait_for(device);
  }

  /// Pull of several keys; visit(f) calls f with the view of each output of the next key.
  template <class U, class Visit>
  void pull_items(char const* call, std::span<key_view const> keys, Visit const& visit) {
    using accumulation = std::common_type_t<accumulation_t<U>, accumulation_t<master_type>>;
    using step_types = pass::element_types<T, accumulation, master_type, master_type, U>;
    using step_type = detail::fused_step<D, pass::hold, reduce::sum, step_types, pass::memory::foreign>;
    items_.clear();
    std::vector<detail::operand<U, D>> outputs;
    for (key_view const key : keys) {
      item x{&find(call, key), 0, 0, outputs.size(), 0};
      visit([&](auto const& view) {
        expect_shape(call, key, x.key->shape, view.shape());
        outputs.push_back(detail::operand_of<U, D>(view));
      });
      x.targets = outputs.size() - x.target;
      items_.push_back(x);
    }
    copies_.clear();
    for (auto& memory : staging_) memory.clear();
    order_after(outputs);
    if constexpr (std::same_as<step_type, pull_step>) {
      pull_into(pull_scratch_, outputs);
    } else {
      step_type step(devices_.size());
      pull_into(step, outputs);
    }
    finish_copies();
    order_before(outputs);
  }

  template <class Step, class U>
  void pull_into(Step& step, std::vector<detail::operand<U, D>> const& outputs) {
    step.clear();
    std::vector<U*> mirrors;
    for (item const& x : items_)
      for (std::size_t n = 0; n < devices_.size(); ++n) {
        detail::slice const part = overlap(*x.key, n);
        if (part.size() <= 0) continue;
        mirrors.clear();
        for (std::size_t k = x.target; k < x.target + x.targets; ++k)
          mirrors.push_back(writable(outputs[k], n, part.begin - x.key->offset, part.size()));
        typename Step::run_type run{};
        run.size = part.size();
        run.master = x.key->group->master(n) + (part.begin - x.key->group->part(n).begin);
        step.add(n, run, {}, mirrors);
      }
    step.commit(devices_);
    step.run(devices_, {});
  }

  /// Lays out a plan's runs from its keys.
  void build(plan_type& plan) {
    plan.step_.clear();
    plan.joined_.assign(plan.keys_.size(), false);
    for (std::size_t first = 0; first < plan.keys_.size();) {
      std::size_t last = first + 1;
      for (; last < plan.keys_.size() && continues(*plan.keys_[last - 1], *plan.keys_[last]); ++last)
        plan.joined_[last] = true;
      add_resident_run(plan.step_, std::span(plan.keys_).subspan(first, last - first));
      first = last;
    }
    plan.step_.commit(devices_);
  }

  /// Whether key b lies right behind key a in every operand, and has seen as many updates.
  static bool continues(record const& a, record const& b) {
    return a.group == b.group && b.offset == a.offset + padded(a.shape.size()) && a.updates == b.updates &&
           a.own_gradient.empty() && b.own_gradient.empty();
  }

  void add_resident_run(step_of<pass::memory::arenas>& step, std::span<record* const> keys) {
    group_type& group = *keys.front()->group;
    std::int64_t const begin = keys.front()->offset;
    std::int64_t const end = keys.back()->offset + padded(keys.back()->shape.size());
    for (std::size_t n = 0; n < devices_.size(); ++n) {
      detail::slice const part{std::max(begin, group.part(n).begin), std::min(end, group.part(n).end)};
      if (part.size() <= 0) continue;
      std::int64_t const local = part.begin - group.part(n).begin;
      gradients_.clear();
      mirrors_.clear();
      for (std::size_t m = 0; m < devices_.size(); ++m) {
        auto const& own = keys.front()->own_gradient;
        gradients_.push_back(own.empty() ? group.gradient(m) + part.begin
                                         : static_cast<T const*>(own[m].data()) + (part.begin - begin));
      }
      add_mirrors(group, n, part.begin);
      typename step_of<pass::memory::arenas>::run_type run{};
      run.size = part.size();
      run.leaf_phase = part.begin % pass::leaf_size;
      run.master = group.master(n) + local;
      for (std::size_t s = 0; s != states; ++s) run.state[s] = group.state(n, s) + local;
      if constexpr (PreReduction<rule_type>)
        run.reduced = devices_.size() > 1 ? group.reduced(devices_[n], n) + local : nullptr;
      bool lead = true;
      for (record const* const r : keys) {
        if (r->offset + padded(r->shape.size()) <= part.begin || r->offset >= part.end) continue;
        if (lead) run.clock = r->clock;
        step.add_clock(n, r->clock, lead);
        lead = false;
      }
      step.add(n, run, gradients_, mirrors_);
    }
  }

  struct copy_back {
    std::size_t device;
    void* to;
    void const* from;
    std::size_t bytes;
  };

  std::vector<D> devices_;
  updater_type updater_;
  std::vector<control_type> controls_;
  std::vector<std::unique_ptr<group_type>> groups_;
  std::unordered_map<key_type, std::unique_ptr<record>, detail::key_hash<key_type>, std::equal_to<>> index_;

  // Scratch, kept so that a call in the steady state allocates nothing.
  step_of<pass::memory::foreign> scratch_;
  pull_step pull_scratch_;
  std::vector<detail::staging<D>> staging_;
  std::vector<copy_back> copies_;
  std::vector<item> items_;
  std::vector<source> sources_;
  std::vector<target> targets_;
  std::vector<T const*> gradients_;
  std::vector<T*> mirrors_;
  std::uint64_t call_ = 0;
};

static_assert(ResidentStore<kv_store<float, cpu_device<>>>);

/// Types from arguments: floats, and the rule or pipeline that was given.
template <Device D, class U>
kv_store(std::vector<D>, U) -> kv_store<float, D, U>;
template <Device D>
kv_store(std::vector<D>) -> kv_store<float, D>;

}  // namespace pushpull
