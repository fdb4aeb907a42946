/// @file
/// The keys, rules and schedule of a store: what is read and set between its operations.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/fused_step.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/key_table.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/store/store_operations.hpp>
#include <pushpull/tensor/copy.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// What store_engine's operations work on. @tparam Types  A kv_store_types.
template <class Types, class T, Device D>
class store_engine_base {
 public:
  using rule_type = typename Types::rule_type;
  using updater_type = typename Types::updater_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_view = typename Types::key_view;
  using control_type = control<D, rule_type, typename Types::step_types>;
  using groups_type = parameter_groups<updater_type, key_view>;
  /// Whether steps share numbers, and therefore follow one another.
  static constexpr bool has_shared = pass::detail::has_shared_sums<rule_type>;

  /// What several stores share: the order of their work, and the space of their keys.
  struct shared_parts {
    std::shared_ptr<typename Types::schedule_type> schedule = std::make_shared<typename Types::schedule_type>();
    std::shared_ptr<typename table_type::directory_type> directory = nullptr;
  };

  store_engine_base(store_engine_base const&) = delete;
  store_engine_base& operator=(store_engine_base const&) = delete;

  std::vector<D> const& devices() const { return keys_.devices(); }

  /// f(the table of keys), while no key is added.
  template <class F>
  decltype(auto) look(F const& f) const {
    expect_outside(*schedule_);  // another thread may hold the lock and wait for the operation that calls
    shared_guard const lock(mutex_);
    return f(keys_);
  }
  record& find(char const* call, key_view key) const {
    expect_outside(*schedule_);
    shared_guard const lock(mutex_);
    return keys_.find(call, key);
  }

  /// A rule per parameter group.
  groups_type const& groups() const { return groups_; }
  /// Rules that have been made and are not in force. No key and no other rule is added meanwhile.
  struct new_rules {
    std::unique_ptr<unique_guard> lock;
    rule_list<updater_type> rules;
    std::vector<buffer<D>> room;              // on each device
    typename groups_type::predicate belongs;  // of a new group
    std::vector<record*> members;
  };
  new_rules prepare_rule(std::size_t group, updater_type const& updater) {
    validate(updater);
    groups_.expect("set_hyperparameters", group);
    return make_rules(group, updater);
  }
  /// A group with the keys, present and to come, for which `belongs` holds.
  new_rules prepare_group(typename groups_type::predicate belongs, updater_type const& updater) {
    validate(updater);
    expects<invalid_argument>(bool{belongs}, [] { return std::string("add_group: the predicate is empty"); });
    expect_outside(*schedule_);
    auto result = make_rules(std::nullopt, updater);
    keys_.for_each([&](record& r) {
      if (belongs(key_view(r.key))) result.members.push_back(&r);
    });
    groups_.make_room();
    result.belongs = std::move(belongs);
    return result;
  }
  /// Puts them in force. For a group, between the operations on all keys.
  void commit(new_rules& made) {
    if constexpr (Types::has_updater)
      for (std::size_t n = 0; n < devices().size(); ++n)
        controls_[n].set(devices()[n], *made.rules, std::move(made.room[n]));
    auto const number = static_cast<std::int32_t>(made.rules->size() - 1);
    groups_.set(std::move(made.rules));
    if (made.belongs) groups_.claim(std::move(made.belongs));
    for (record* const r : made.members) {
      for (std::size_t n = 0; n < controls_.size(); ++n) controls_[n].assign(devices()[n], r->clock, number);
      r->rule = number;
    }
  }
  void set_rule(std::size_t group, updater_type const& updater) {
    auto made = prepare_rule(group, updater);
    commit(made);
  }
  /// Adds a group with the keys, present and to come, for which `belongs` holds.
  std::size_t add_group(typename groups_type::predicate belongs, updater_type const& updater) {
    auto made = prepare_group(std::move(belongs), updater);
    std::size_t const number = made.rules->size() - 1;
    auto const add = [&] { commit(made); };
    function_operation<decltype(add) const&> op(add);
    write_all(op);  // no operation sees half of it
    perform(op);
    return number;
  }
  /// Names all keys. No key is added meanwhile.
  void write_all(operation& op) {
    keys_.for_each([&](record& r) { op.writes(r.order); });
  }

  /// Keys that have been made and are not among the store's. No other key is added meanwhile.
  struct new_keys {
    std::unique_ptr<unique_guard> lock;
    typename table_type::addition keys;
  };
  /// All that may fail of `init`. Names and values must stay until `commit`.
  template <class View>
  new_keys prepare_init(std::span<key_view const> keys, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient) {
    expect_outside(*schedule_);
    auto lock = std::make_unique<unique_guard>(mutex_);
    new_keys result{std::move(lock), keys_.prepare(keys, values, resident, needs_gradient)};
    result.keys.for_each([&](record& r) { r.rule = groups_.of(key_view(r.key)); });
    make_room(keys_.size() + keys.size());
    return result;
  }
  void commit(new_keys& made) {
    made.keys.for_each([&](record& r) {
      for (std::size_t n = 0; r.rule != 0 && n < controls_.size(); ++n)
        controls_[n].assign(devices()[n], r.clock, r.rule);
    });
    keys_.commit(made.keys);
  }
  /// Adds all keys or none.
  template <class View>
  void init(std::span<key_view const> keys, std::span<View const> values, bool resident,
            std::vector<bool> const& needs_gradient) {
    auto made = prepare_init(keys, values, resident, needs_gradient);
    commit(made);
  }
  void require_gradient(key_view key) {
    expect_outside(*schedule_);
    unique_guard const lock(mutex_);
    keys_.require_gradient(key);
  }

  /// An operation of this call's own.
  void perform(operation& op) {
    schedule_->submit(op, std::numeric_limits<int>::max(), true);
    schedule_->finish(op);
    if (failure* const failed = op.failed()) {
      failed->told = true;
      std::rethrow_exception(failed->error);
    }
  }

  /// f() when the key's earlier operations are done, and before later ones. Returns when done. @throws what f throws
  template <class F>
  void perform(record& r, F const& f) {
    function_operation<F const&> op(f);
    op.writes(r.order);
    perform(op);
  }

  void wait(record& r) {
    schedule_->wait(r.order);
    synchronize();
  }
  void wait() {
    schedule_->wait();
    synchronize();
  }
  /// As wait, without the errors of what failed.
  /// @throws invalid_argument in a function of the user that the store's work calls: it would wait for itself
  void drain() {
    expect_outside(*schedule_);
    finish();
  }

  std::int64_t steps(record& r) {
    std::int64_t t = 0;
    perform(r, [&] { t = read_steps(keys_, controls_, r); });
    return t;
  }
  void set_steps(record& r, std::int64_t t) {
    perform(r, [&] {
      expect_weights("set_steps", key_view(r.key), r);
      write_steps(keys_, controls_, r, t);
    });
  }
  std::vector<typename Types::state_type> state(record& r, std::size_t s) {
    std::vector<typename Types::state_type> elements;
    perform(r, [&] { elements = read_state<rule_type>(keys_, r, s); });
    return elements;
  }
  void set_state(record& r, std::size_t s, std::span<typename Types::state_type const> elements) {
    perform(r, [&] {
      expect_weights("set_state", key_view(r.key), r);
      write_state<rule_type>(keys_, r, s, std::as_bytes(elements));
    });
  }

  /// Pushes of the key since its last step, and their sum.
  std::int64_t micro_batches(record& r) {
    std::int64_t count = 0;
    perform(r, [&] { count = r.micro_batches; });
    return count;
  }
  std::vector<typename Types::accumulation_type> gradient_sum(record& r) {
    std::vector<typename Types::accumulation_type> elements;
    perform(r, [&] { elements = read_sum(keys_, r); });
    return elements;
  }
  void set_micro_batches(record& r, std::int64_t count, std::span<typename Types::accumulation_type const> sum) {
    perform(r, [&] {
      if (count > 0) {
        make_room_for_sum(keys_, r);
        write_sum(keys_, r, std::as_bytes(sum));
      }
      r.micro_batches = count;
    });
  }
  /// Adds to `changes` that the key has these values, and makes room for them. Values stay until the commit.
  void prepare_values(prepared_changes& changes, record& r, saved_values const& values) {
    perform(r, [&] {
      for (std::size_t s = 0; s < values.states.size(); ++s) make_room_for_state<rule_type>(keys_, r, s);
      if (values.micro_batches > 0) make_room_for_sum(keys_, r);
    });
    changes.add(r.order, performer(), [this, &r, &values] {
      for (std::size_t s = 0; s < values.states.size(); ++s) write_state<rule_type>(keys_, r, s, values.states[s]);
      if constexpr (Types::has_updater) write_steps(keys_, controls_, r, values.steps);
      if (values.micro_batches > 0) write_sum(keys_, r, values.sum);
      r.micro_batches = values.micro_batches;
    });
  }

  /// The sums over all keys and what goes from step to step. Waits.
  auto shared_sums() {
    typename control_type::shared_type result{};
    auto const read = [&] {
      copy_bytes(cpu_device<>(), &result, devices().front(), controls_.front().shared(), sizeof(result));
    };
    function_operation<decltype(read) const&> op(read);
    op.writes(steps_);
    perform(op);
    return result.sums;
  }
  void prepare_shared_sums(prepared_changes& changes, sums_t<rule_type> const& sums) {
    changes.add(steps_, performer(), [this, sums] {
      for (std::size_t n = 0; n < controls_.size(); ++n) controls_[n].set_shared(devices()[n], sums);
    });
  }
  /// Where device number n finds them.
  sums_t<rule_type> const* shared_sums(std::size_t n) const { return &controls_[n].shared()->sums; }

  /// Exchanges masters and state number `s` of different keys, and notes which of the two is where.
  void swap(std::vector<record*> const& keys, std::size_t s) {
    expect_different("swap", keys);
    std::string const* const name = &state_names_[s];
    // A key without updates has no state yet; the host does not know of steps that were left out.
    auto const has_state = [&](record const& r) {
      return MaySkip<rule_type> ? read_steps(keys_, controls_, r) > 0 : r.updates > 0;
    };
    auto const run = [&] {
      for (record* const r : keys)
        if (r->swapped != name) expect_weights("swap", key_view(r->key), *r);
      swap_state<typename Types::types>(keys_, std::span(keys), s, has_state);
      for (record* const r : keys)
        std::atomic_ref(r->swapped).store(r->swapped == nullptr ? name : nullptr, std::memory_order_release);
    };
    function_operation<decltype(run) const&> op(run);
    for (record* const r : keys) op.writes(r->order);
    perform(op);
  }

 protected:
  /// @param number  Among the stores that share the parts.
  store_engine_base(std::vector<D> const& devices, updater_type const& updater, shared_parts shared, std::size_t number)
      : keys_(devices, std::move(shared.directory), number, Types::whole_keys, MaySkip<rule_type>),
        groups_(updater),
        schedule_(std::move(shared.schedule)) {
    expects<invalid_argument>(!devices.empty(),
                              [] { return std::string("kv_store: at least 1 device expected, got none"); });
    for (auto a = devices.begin(); a != devices.end(); ++a)
      expects<duplicate_device>(std::find(std::next(a), devices.end(), *a) == devices.end(), [&] {
        return "kv_store: device " + std::string(a->name()) + " stands twice in the list";
      });
    validate(updater);
    if constexpr (Types::has_updater)
      for (D const& device : devices) controls_.emplace_back(device, *groups_.rules());
  }

  /// Operations of derived classes have to be finished before.
  ~store_engine_base() = default;

  template <class Part>
  static void validate(Part const& part) {
    if constexpr (requires { part.validate(); }) part.validate();
  }

  void finish() {
    schedule_->drain();
    synchronize();
  }

  void synchronize() const {
    for (D const& device : devices()) device.synchronize();
  }

  table_type keys_;
  std::vector<std::string> const state_names_ = numbered_names(rule_type::state_names);  // that swap takes
  groups_type groups_;
  std::vector<control_type> controls_;
  variable steps_;                          // the order of steps that share numbers
  guarded_mutex<std::shared_mutex> mutex_;  // keys_ and groups_ against calls that change them
  std::shared_ptr<typename Types::schedule_type> schedule_;

 private:
  auto performer() {
    return [this](operation& op) { perform(op); };
  }

  /// Room for as many clocks. No operation sees it grow.
  void make_room(std::size_t clocks) {
    auto const grow = [&] {
      for (std::size_t n = 0; n < controls_.size(); ++n) controls_[n].reserve(devices()[n], clocks);
    };
    if (std::all_of(controls_.begin(), controls_.end(), [&](auto const& c) { return c.has_room(clocks); })) return;
    function_operation<decltype(grow) const&> op(grow);
    write_all(op);
    perform(op);
  }

  /// @param group  None for a new one.
  new_rules make_rules(std::optional<std::size_t> group, updater_type const& updater) {
    new_rules result;
    expect_outside(*schedule_);
    result.lock = std::make_unique<unique_guard>(mutex_);
    result.rules = groups_.with(group ? *group : groups_.rules()->size(), updater);
    if constexpr (Types::has_updater)
      for (std::size_t n = 0; n < devices().size(); ++n)
        result.room.push_back(controls_[n].room_for(devices()[n], result.rules->size()));
    return result;
  }
};

}  // namespace pushpull::detail
