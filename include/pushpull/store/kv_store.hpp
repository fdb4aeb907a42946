/// @file
/// The key-value store of one process: push gradients, pull weights.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/store.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/fused_step.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/key_table.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/resident_plan.hpp>
#include <pushpull/tensor/copy.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull {

/// Keys with one stored tensor each, cut into slices that the devices own. A push reduces the gradients of all sources
/// and applies the rule in one pass per device; without a rule it replaces the stored value by the reduced gradients.
/// @tparam T         Element type of gradients and outputs.
/// @tparam D         The devices.
/// @tparam Policies  In any order, at most one of each: an Updater (default: none), a Reduction (reduce::sum), an element
///                   policy (element::uniform), string_keys or integer_keys (string_keys), a Compressor
///                   (compress::none), a Communicator (comm::single).
/// Calls return when their work is enqueued; on CPU devices it is then finished. Work on one key runs in the order of
/// the calls. The caller's tensors are read and written until `wait` returns, never kept. Tensors in host memory work
/// with every device, by a copy. One thread at a time. After an exception the store holds what it held before.
template <ElementType T, Device D, class... Policies>
class kv_store {
  using resolved = detail::kv_store_types<T, D, Policies...>;

 public:
  using value_type = T;
  using device_type = D;
  using key_type = typename resolved::key_type;
  using key_view = typename resolved::key_view;
  using updater_type = typename resolved::updater_type;
  using reduction_type = typename resolved::reduction_type;
  using compressor_type = typename resolved::compressor_type;
  using communicator_type = typename resolved::communicator_type;
  using master_type = typename resolved::master_type;
  using state_type = typename resolved::state_type;
  using accumulation_type = typename resolved::accumulation_type;
  /// Whether push applies a rule.
  static constexpr bool has_updater = resolved::has_updater;

 private:
  using rule_type = typename resolved::rule_type;
  using table_type = typename resolved::table_type;
  using record = typename table_type::record;
  using step_types = typename resolved::step_types;
  static constexpr bool compressed = resolved::compressed;
  template <pass::memory Memory>
  using step_of = detail::fused_step<D, rule_type, reduction_type, step_types, Memory>;
  using control_type = typename step_of<pass::memory::foreign>::control_type;

 public:
  /// A step over given keys, from their resident gradients to their resident mirrors. See `make_plan`.
  using plan_type = detail::resident_plan<table_type, step_of<pass::memory::arenas>>;

  /// @throws invalid_argument if there is no device or the rule refuses its hyperparameters; duplicate_device
  explicit kv_store(std::vector<D> const& devices)
    requires std::default_initializable<updater_type>
      : kv_store(devices, updater_type{}) {}
  kv_store(std::vector<D> const& devices, updater_type const& updater)
      : kv_store(devices, updater, compressor_type{}) {}
  /// As above; policies that are given as values name themselves in the type, and a Compressor keeps its value:
  /// kv_store store{devices, rule, reduce::mean{}, compress::two_bit{0.1F}}.
  template <detail::HasPolicyKind... P>
    requires(sizeof...(P) > 0)
  kv_store(std::vector<D> const& devices, updater_type const& updater, P const&... policies)
      : updater_(updater),
        keys_(devices),
        call_(devices.size(), detail::pick_value<compressor_type>(policies...)),
        pull_call_(devices.size()),
        step_(devices.size()),
        pull_step_(devices.size()) {
    detail::expects<invalid_argument>(!devices.empty(),
                                      [] { return std::string("kv_store: at least 1 device expected, got none"); });
    for (auto a = devices.begin(); a != devices.end(); ++a)
      detail::expects<duplicate_device>(std::find(std::next(a), devices.end(), *a) == devices.end(), [&] {
        return "kv_store: device " + std::string(a->name()) + " stands twice in the list";
      });
    validate(updater_);
    validate(call_.compressor());
    if constexpr (has_updater)
      for (D const& device : devices) controls_.emplace_back(device, updater_);
  }

  std::vector<D> const& devices() const { return keys_.devices(); }
  /// Number of keys.
  std::size_t size() const { return keys_.size(); }
  bool contains(key_view key) const { return keys_.contains(key); }
  /// @throws unknown_key
  pushpull::shape const& shape(key_view key) const { return keys_.find("shape", key).shape; }
  int rank() const { return communicator_type{}.rank(); }
  int num_workers() const { return communicator_type{}.size(); }

  /// The rule with its present hyperparameters.
  updater_type const& updater() const { return updater_; }
  /// Other hyperparameters from the next push on; states and step counts stay. @throws invalid_argument
  void set_hyperparameters(updater_type const& updater)
    requires has_updater
  {
    validate(updater);
    for (std::size_t n = 0; n < devices().size(); ++n) controls_[n].set(devices()[n], updater);
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
  template <KeysOf<key_view> Keys, std::ranges::input_range Values>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void init(Keys const& keys, Values&& values) {
    std::vector<key_type> owned;  // a range may make its keys as it goes
    for (auto&& key : keys) owned.emplace_back(key_view(key));
    std::vector<key_view> const names(owned.begin(), owned.end());
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
    call_.clear();
    add("push", key, gradients, no_outputs());
    update_keys();
  }

  /// As above for each key of a list: one pass per device for all of them.
  /// A key that stands in it several times has its gradients reduced
  /// together, and is updated once.
  /// @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients>
  void push(Keys const& keys, Gradients const& gradients) {
    call_.clear();
    auto gradient = std::ranges::begin(gradients);
    for (auto const& key : keys) {
      expect_more("push", gradient != std::ranges::end(gradients), "gradients");
      add("push", key, *gradient, no_outputs());
      ++gradient;
    }
    expect_more("push", gradient == std::ranges::end(gradients), "keys");
    update_keys();
  }

  /// Sets one output or a range of outputs, each of the key's shape and of any element type, to the stored value.
  /// @throws unknown_key, shape_mismatch
  /// Cost: per device one pass that reads its slice once and writes it once per output.
  template <OutputTensors Outputs>
  void pull(key_view key, Outputs&& outputs) {
    pull_call<detail::element_in<Outputs>>([&](auto& call) { add_outputs(call, "pull", key, outputs); });
  }

  /// As above for each key of a list.
  /// @throws as above; shape_mismatch if the ranges differ in length
  template <KeysOf<key_view> Keys, OutputTensorList Outputs>
  void pull(Keys const& keys, Outputs&& outputs) {
    pull_call<detail::element_in<Outputs>>([&](auto& call) {
      auto output = std::ranges::begin(outputs);
      for (auto const& key : keys) {
        expect_more("pull", output != std::ranges::end(outputs), "outputs");
        add_outputs(call, "pull", key, *output);
        ++output;
      }
      expect_more("pull", output == std::ranges::end(outputs), "keys");
    });
  }

  /// push, then pull, in one pass: the new values go to the outputs while they are in registers.
  /// @throws as push and pull
  template <TensorsOf<T> Gradients, OutputTensorsOf<T> Outputs>
  void pushpull(key_view key, Gradients const& gradients, Outputs&& outputs) {
    call_.clear();
    add("pushpull", key, gradients, outputs);
    update_keys();
  }

  /// As above for each key of a list: one pass per device for all of them.
  template <KeysOf<key_view> Keys, TensorListOf<T> Gradients, OutputTensorList Outputs>
    requires TensorListOf<Outputs, T>
  void pushpull(Keys const& keys, Gradients const& gradients, Outputs&& outputs) {
    call_.clear();
    auto gradient = std::ranges::begin(gradients);
    auto output = std::ranges::begin(outputs);
    for (auto const& key : keys) {
      expect_more("pushpull", gradient != std::ranges::end(gradients), "gradients");
      expect_more("pushpull", output != std::ranges::end(outputs), "outputs");
      add("pushpull", key, *gradient, *output);
      ++gradient;
      ++output;
    }
    expect_more("pushpull", gradient == std::ranges::end(gradients) && output == std::ranges::end(outputs), "keys");
    update_keys();
  }

  /// init, then pull. @throws as both
  template <TensorLike V, OutputTensors Outputs>
  void broadcast(key_view key, V const& value, Outputs&& outputs) {
    detail::for_each_tensor(outputs, [&](auto const& view) {
      table_type::expect_shape("broadcast", key, view_of(value).shape(), view.shape());
    });
    init(key, value);
    pull(key, outputs);
  }

  /// As above for each key of a list. @throws as both
  template <KeysOf<key_view> Keys, std::ranges::input_range Values, OutputTensorList Outputs>
    requires LastingTensorLike<std::ranges::range_reference_t<Values>>
  void broadcast(Keys const& keys, Values&& values, Outputs&& outputs) {
    auto value = std::ranges::begin(values);
    auto output = std::ranges::begin(outputs);
    for (auto&& key : keys) {
      expect_more("broadcast", value != std::ranges::end(values) && output != std::ranges::end(outputs), "tensors");
      detail::for_each_tensor(*output, [&](auto const& view) {
        table_type::expect_shape("broadcast", key_view(key), view_of(*value).shape(), view.shape());
      });
      ++value;
      ++output;
    }
    expect_more("broadcast", value == std::ranges::end(values) && output == std::ranges::end(outputs), "keys");
    init(keys, values);
    pull(keys, outputs);
  }

  /// Returns when everything enqueued is finished. @throws the error of work that failed
  void wait() const {
    for (D const& device : devices()) device.synchronize();
  }

  /// Updates of the key so far. Waits.
  /// @throws unknown_key
  std::int64_t steps(key_view key) const
    requires has_updater
  {
    return detail::read_steps(keys_, controls_, keys_.find("steps", key));
  }
  /// Makes the key's next update number t + 1. Waits. @throws unknown_key; invalid_argument on a negative t
  void set_steps(key_view key, std::int64_t t)
    requires has_updater
  {
    record& r = keys_.find("set_steps", key);
    detail::expects<invalid_argument>(
        t >= 0, [&] { return "set_steps: a count of at least 0 expected, got " + std::to_string(t); });
    detail::write_steps(keys_, controls_, r, t);
  }

  /// The names of the rule's states. A name that several stages of a pipe use is numbered: "average", "average.2".
  static std::vector<std::string> state_names() { return detail::numbered_names(rule_type::state_names); }
  /// The elements of a state tensor of the key, by its name. Waits.
  /// @throws unknown_key; invalid_argument if the rule has no such state
  std::vector<state_type> state(key_view key, std::string_view name) const {
    record const& r = keys_.find("state", key);
    return detail::read_state(keys_, r, state_number("state", name));
  }
  /// Sets a state tensor of the key: one element per element of the key, in their order. Waits.
  /// @throws as state; shape_mismatch on another number of elements
  void set_state(key_view key, std::string_view name, std::span<state_type const> elements) {
    record const& r = keys_.find("set_state", key);
    std::size_t const s = state_number("set_state", name);
    table_type::expect_shape("set_state", key, pushpull::shape{r.size()},
                             pushpull::shape{static_cast<std::int64_t>(elements.size())});
    detail::write_state(keys_, r, s, elements);
  }

  /// All keys, in the order of their registration.
  std::vector<key_type> keys() const { return keys_.keys(); }

  /// Bytes that the store holds on device number n: masters, states, resident mirrors and gradients.
  std::size_t bytes(std::size_t n) const { return keys_.bytes(n); }

  /// As init of a list, for keys whose mirrors (one per device) and gradients the store holds: see ResidentStore. A key
  /// that needs no gradient gets none.
  /// @throws as init
  template <class V>
  void init_resident(std::span<key_type const> keys, std::span<V const> values, std::vector<bool> const& needs_gradient)
    requires(!compressed)
  {
    std::vector<key_view> const names(keys.begin(), keys.end());
    expect_count("init_resident", names.size(), values.size(), "values");
    expect_count("init_resident", names.size(), needs_gradient.size(), "flags");
    init_keys(std::span<key_view const>(names), values, true, needs_gradient);
  }

  /// The key's mirror on device number n. @throws unknown_key; invalid_argument if the key is not resident
  tensor_view<T, D> mirror(key_view key, std::size_t n) const {
    record const& r = keys_.find_resident("mirror", key);
    return {r.group->mirror(n) + r.offset, r.shape, devices()[n]};
  }

  /// The key's gradient on device number n, to be written before each update.
  /// @throws as mirror; invalid_argument if the key was initialised without one
  tensor_view<T, D> gradient(key_view key, std::size_t n) const {
    record const& r = keys_.find_with_gradient("gradient", key);
    return {table_type::gradient(r, n), r.shape, devices()[n]};
  }

  /// Gives a resident key a gradient on every device, if it has none. @throws as mirror
  void require_gradient(key_view key) { keys_.require_gradient(key); }

  /// The step over resident keys, in arenas. A plan is valid for the life of the store and may be used again and again.
  /// @throws unknown_key; invalid_argument if a key has no resident gradient; duplicate_key
  plan_type make_plan(std::span<key_type const> keys) {
    std::vector<record*> records;
    for (auto const& key : keys) records.push_back(&keys_.find_with_gradient("make_plan", key));
    return plan_type(keys_, std::move(records));
  }

  /// pushpull from the resident gradients to the resident mirrors: one pass per device, two if the rule is a
  /// PreReduction.
  void update(plan_type& plan) { plan.run(keys_, controls_); }

 private:
  struct no_outputs {};

  static std::size_t state_number(char const* call, std::string_view name) {
    auto const names = state_names();
    auto const found = std::find(names.begin(), names.end(), name);
    detail::expects<invalid_argument>(found != names.end(), [&] {
      return std::string(call) + ": the rule has no state \"" + std::string(name) + "\"";
    });
    return static_cast<std::size_t>(found - names.begin());
  }

  template <class Part>
  static void validate(Part const& part) {
    if constexpr (requires { part.validate(); }) part.validate();
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

  template <class View>
  void init_keys(std::span<key_view const> keys, std::span<View const> values, bool resident,
                 std::vector<bool> const& needs_gradient) {
    keys_.init(keys, values, resident, needs_gradient, [&](std::size_t count) {
      for (std::size_t n = 0; n < controls_.size(); ++n) controls_[n].reserve(devices()[n], count);
    });
  }

  template <class Gradients, class Outputs>
  void add(char const* name, key_view key, Gradients const& gradients, Outputs&& outputs) {
    call_.add_key(keys_, name, key);
    detail::for_each_tensor(gradients, [&](auto const& view) { call_.add_source(name, key, view); });
    call_.expect_source(name, key);
    if constexpr (!std::same_as<std::remove_cvref_t<Outputs>, no_outputs>)
      detail::for_each_tensor(outputs, [&](auto const& view) { call_.add_output(name, key, view); });
  }

  template <class Call, class Outputs>
  void add_outputs(Call& call, char const* name, key_view key, Outputs&& outputs) const {
    call.add_key(keys_, name, key);
    detail::for_each_tensor(outputs, [&](auto const& view) { call.add_output(name, key, view); });
  }

  void update_keys() {
    call_.execute(keys_, step_, true, [&] { step_.run(devices(), controls_); });
  }

  /// Pull of the keys and outputs that `add(call)` names, into elements of type U.
  template <class U, class Add>
  void pull_call(Add const& add) {
    if constexpr (std::same_as<U, T>) {
      pull_call_.clear();
      add(pull_call_);
      pull_call_.execute(keys_, pull_step_, false, [&] { pull_step_.run(devices(), {}); });
    } else {
      using accumulation = std::common_type_t<accumulation_t<U>, accumulation_t<master_type>>;
      using step_types = pass::element_types<T, accumulation, master_type, master_type, U>;
      detail::call<table_type, D, T, U> call(devices().size());
      detail::fused_step<D, pass::hold, reduce::sum, step_types, pass::memory::foreign> step(devices().size());
      call.clear();
      add(call);
      call.execute(keys_, step, false, [&] { step.run(devices(), {}); });
    }
  }

  updater_type updater_;
  table_type keys_;
  std::vector<control_type> controls_;

  // Kept so that a call in the steady state allocates nothing.
  detail::call<table_type, D, T, T, compressor_type> call_;
  detail::call<table_type, D, T, T> pull_call_;
  step_of<pass::memory::foreign> step_;
  typename table_type::pull_step pull_step_;
};

static_assert(ResidentStore<kv_store<float, cpu_device<>>>);

/// Types from arguments: floats, the rule or pipeline that was given, and the other policies.
template <Device D, class U, class... P>
kv_store(std::vector<D>, U, P...) -> kv_store<float, D, U, P...>;
template <Device D>
kv_store(std::vector<D>) -> kv_store<float, D>;

}  // namespace pushpull
