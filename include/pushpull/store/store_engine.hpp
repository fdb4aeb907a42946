/// @file
/// What a kv_store consists of: the operations that calls become.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/accumulation.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/function_updater.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/parameter_groups.hpp>
#include <pushpull/store/resident_plan.hpp>
#include <pushpull/store/row_operations.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/state_swap.hpp>
#include <pushpull/store/store_engine_base.hpp>
#include <pushpull/store/store_operations.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The store behind kv_store's forms of arguments. Calls are gathered by functions that it is given.
/// @tparam Types  A kv_store_types.
template <class Types, class T, Device D>
class store_engine : public store_engine_base<Types, T, D> {
  using base = store_engine_base<Types, T, D>;
  using base::controls_;
  using base::groups_;
  using base::keys_;
  using base::mutex_;
  using base::schedule_;
  using base::steps_;
  using base::validate;

 public:
  using base::devices;
  using base::find;
  using base::has_shared;
  using base::look;
  using base::perform;
  using typename base::control_type;
  using typename base::shared_parts;
  using rule_type = typename Types::rule_type;
  using updater_type = typename Types::updater_type;
  using compressor_type = typename Types::compressor_type;
  using accumulation_policy = typename Types::accumulation_policy;
  using reduction_type = typename Types::reduction_type;
  using master_type = typename Types::master_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using key_type = typename Types::key_type;
  using key_view = typename Types::key_view;
  template <pass::memory Memory>
  using step_of = fused_step<D, rule_type, reduction_type, typename Types::step_types, Memory>;
  using plan_type = resident_plan<
      table_type, step_of<pass::memory::arenas>,
      std::conditional_t<Types::accumulates, accumulating_steps<Types, D, pass::memory::arenas>, no_further_steps>>;
  using update_call = detail::call<table_type, D, T, T, compressor_type>;
  template <class U>
  using pull_call = detail::call<table_type, D, T, U>;

  /// A call that has been checked and not been submitted. It may be dropped.
  struct prepared_call {
    completion handle;
    detail::operation* operation;
    std::int64_t work;  ///< Elements to read and to write, roughly.
  };

  /// @param number  Among the stores that share the parts.
  store_engine(std::vector<D> const& device_list, updater_type const& updater, compressor_type const& compressor,
               accumulation_policy const& accumulation, typename Types::communicator_type const& communicator,
               shared_parts shared, std::size_t number)
      : base(device_list, updater, communicator, std::move(shared), number),
        compressor_(compressor),
        accumulation_(accumulation) {
    validate(compressor_);
    validate(accumulation_);
  }
  /// What calls borrowed may end with the store.
  ~store_engine() {
    try {
      this->finish();
    } catch (...) {  // a device broke down, and there is nobody to tell
    }
  }

  /// From the next push on its function, if it has one, takes the place of a rule.
  function_slot<Types, T, D>& function() { return function_; }

  /// Adds a key with the rows that `gather(operation, record)` names, and zero elsewhere.
  template <class Gather>
  void init_rows(key_view key, pushpull::shape const& whole, Gather const& gather) {
    auto const fill = [&](record& r) {
      row_update<Types, T, D, pass::assign, reduce::sum> op(keys_, controls_, nullptr);
      gather(op, r);
      op.prepare();
      static_cast<void>(op.run());
      op.devices_wait();
      r.updates = 0;  // an initial value is none
    };
    filled_value<decltype(fill)> const value{whole, fill};
    this->init(std::span<key_view const>(&key, 1), std::span(&value, 1), false, {});
  }

  /// A push of the gradients that `gather(call, table)` names, to be written to the outputs that it names.
  /// @param only_accumulates  No key is updated.
  template <class Gather>
  completion update(priority when, Gather const& gather, bool only_accumulates = false) {
    return submit(prepare_update(gather, only_accumulates), when);
  }
  template <class Gather>
  prepared_call prepare_update(Gather const& gather, [[maybe_unused]] bool only_accumulates = false) {
    if constexpr (!Types::has_updater) {
      if (auto* const op = function_.take(keys_, compressor_)) return prepare_update(*op, gather, false);
    }
    auto& op = updates_->take([&] { return std::make_unique<update_operation>(*this, devices(), compressor_); });
    if constexpr (Types::has_updater) op.rules = groups_.rules();
    if constexpr (Types::accumulates) op.further.only = only_accumulates;
    return prepare_update(op, gather, true);
  }

  /// A pull into the outputs, of elements U, that `gather(call, table)` names.
  template <class U, class Gather>
  completion pull(priority when, Gather const& gather) {
    return submit(prepare_pull<U>(gather), when);
  }
  template <class U, class Gather>
  prepared_call prepare_pull(Gather const& gather) {
    auto& op = make_pull<U>();
    completion handle(op);
    op.call.clear();
    look([&](auto const& keys) { gather(op.call, keys); });
    op.call.for_each_key([&](record& r) { op.reads(r.order); });
    return {std::move(handle), &op, op.call.work()};
  }

  /// Gives the keys that `gather(call, table)` names the values, of elements U, that it names as their only sources: in the
  /// order of their operations, all or none. Returns when done.
  template <class U, class Gather>
  void assign(rule_states states, Gather const& gather) {
    using step = fused_step<D, pass::assign, reduce::sum,
                            pass::element_types<U, std::common_type_t<accumulation_t<U>, accumulation_t<master_type>>,
                                                master_type, master_type, T>,
                            pass::memory::foreign>;
    expect_outside(*schedule_);
    detail::call<table_type, D, U, T> call(devices().size());
    step values(devices().size());
    look([&](auto const& keys) { gather(call, keys); });
    std::vector<record*> records;
    call.for_each_key([&](record& r) { records.push_back(&r); });
    expect_different("assign", records);
    auto const run = [&] {
      for (record* const r : records) expect_weights("assign", key_view(r->key), *r);
      call.execute(keys_, values, effect::assigns, [&] { values.run(devices()); });
      if (states == rule_states::reset)
        for (record* const r : records) reset_states(keys_, controls_, *r);
    };
    function_operation<decltype(run) const&> op(run);
    for (record* const r : records) op.writes(r->order);
    perform(op);
    for (D const& device : devices()) device.synchronize();
  }

  /// A push to some rows of a key that `gather(operation, record)` describes.
  template <class Gather>
  completion update_rows(char const* call, key_view key, priority when, Gather const& gather) {
    return submit(prepare_rows(call, find(call, key), gather), when);
  }
  /// A push to rows of several keys: gather(operation, record, i) for group number i.
  template <class Groups, class Gather>
  completion update_rows(char const* call, Groups const& groups, priority when, Gather const& gather) {
    std::vector<prepared_call> all;
    for (std::size_t i = 0; i < groups.size(); ++i)
      all.push_back(prepare_rows(call, *groups[i].key, [&](auto& op, auto& r) { gather(op, r, i); }));
    return submit_rows(all, when);
  }

  /// A pull of rows of a key that `gather(operation, record)` describes, for submit_rows.
  template <class Gather>
  prepared_call prepare_row_pull(char const* call, key_view key, Gather const& gather) {
    using row_pull = detail::row_pull<Types, T, D>;
    record& r = find(call, key);
    auto& op = row_pulls_.get<row_pull>().take([&] { return std::make_unique<row_pull>(keys_); });
    completion handle(op);
    gather(op, r);
    op.reads(r.order);
    return {std::move(handle), &op, op.work()};
  }
  completion submit_rows(prepared_call const& prepared, priority when) { return submit(prepared, when); }
  completion submit_rows(std::vector<prepared_call> const& all, priority when) {
    return submit_jointly(std::span<prepared_call const>(all), when);
  }

  /// Enqueues calls of stores that share the schedule as one. All take effect, or none.
  template <class Call>
  completion submit_jointly(std::span<Call const> all, priority when) {
    if (all.size() == 1) return submit(all.front(), when);
    auto& joint = *new joint_operation(all.size());
    joint.acquire();
    completion handle(joint);
    std::int64_t work = 0;
    for (Call const& prepared : all) {
      joint.add(*prepared.operation);
      work += prepared.work;
    }
    return submit(Call{std::move(handle), &joint, work}, when);
  }
  template <class Call>
  completion submit(Call const& prepared, priority when) {
    schedule_->submit(*prepared.operation, when.value, prepared.work <= small_work);
    if constexpr (Types::is_synchronous) prepared.operation->devices_wait();
    return prepared.handle;
  }

  /// The step of a plan. Finished when it returns where the devices are CPUs.
  /// @param only_accumulates  No key is updated.
  void update(plan_type& plan, [[maybe_unused]] bool only_accumulates = false) {
    if constexpr (!Types::has_updater && !Types::compressed)
      if (auto* const op = function_.take(keys_, compressor_)) {
        auto const add = [&](auto& call, auto const& table) { add_resident(call, table, plan); };
        completion const finished = submit(prepare_update(*op, add, false), priority{});
        if constexpr (HostDevice<D>) finished.wait();
        return;
      }
    auto const run = [&] {
      plan.for_each_key([](record& r) { expect_weights("update", key_view(r.key), r); });
      if constexpr (Types::accumulates) {
        plan.run(keys_, controls_, groups_.rules()->data(), accumulation_, only_accumulates);
      } else if constexpr (Types::has_updater) {
        plan.run(keys_, controls_, groups_.rules()->data());
      } else {
        plan.run(keys_, controls_, static_cast<rule_type const*>(nullptr));
      }
    };
    plan.operation().function = std::ref(run);
    plan.operation().forget_accesses();
    plan.for_each_key([&](record& r) { plan.operation().writes(r.order); });
    if constexpr (has_shared) plan.operation().writes(steps_);
    perform(plan.operation());
  }
  plan_type make_plan(std::span<key_type const> keys) const {
    shared_guard const lock(mutex_);
    std::vector<record*> records;
    for (auto const& key : keys) records.push_back(&keys_.find_with_gradient("make_plan", key));
    return plan_type(keys_, std::move(records));
  }

  /// What operations do: all that may fail, and then the work.
  template <class Operation>
  void prepare(Operation& op) {
    if constexpr (std::same_as<Operation, update_operation>)  // another thread may have called swap since
      op.call.for_each_key([](record& r) { expect_weights("push", key_view(r.key), r); });
    if constexpr (!std::same_as<Operation, update_operation>) {
      op.call.begin(keys_, effect::reads);
      op.call.lay_out(keys_, op.step, effect::reads);
    } else if constexpr (Types::accumulates) {
      op.further.lay_out(op.call, keys_, op.step, accumulation_);
    } else {
      op.call.begin(keys_, effect::updates, step_of<pass::memory::foreign>::may_fail);
      op.call.lay_out(keys_, op.step, effect::updates);
    }
  }
  template <class Operation>
  void run(Operation& op) {
    if constexpr (std::same_as<Operation, update_operation>) {
      auto const update = [&] {
        if constexpr (Types::has_updater) {
          groups_.complete(op.rules);
          op.step.run(devices(), controls_, op.rules->data());
          op.call.return_residuals(devices(), op.step);
        } else {
          op.step.run(devices());
        }
      };
      if constexpr (Types::accumulates) {
        op.further.launch(op.call, keys_, update);
      } else {
        op.call.launch(keys_, effect::updates, update);
      }
    } else {
      op.call.launch(keys_, effect::reads, [&] { op.step.run(devices()); });
    }
  }

 private:
  /// Elements up to which the calling thread does the work of a call itself: about as long as another takes to wake.
  static constexpr std::int64_t small_work = std::int64_t{1} << 14;

  template <class U>
  using pull_step =
      fused_step<D, pass::hold, reduce::sum,
                 pass::element_types<T, std::common_type_t<accumulation_t<U>, accumulation_t<master_type>>, master_type,
                                     master_type, U>,
                 pass::memory::foreign>;
  using further_steps =
      std::conditional_t<Types::accumulates, detail::accumulation<Types, D, pull_step<T>>, no_further_steps>;
  using update_operation = call_operation<store_engine, update_call, step_of<pass::memory::foreign>, D, further_steps>;
  template <class U>
  using pull_operation = call_operation<store_engine, pull_call<U>, pull_step<U>, D>;

  /// @param may_be_small  The caller may run it.
  template <class Operation, class Gather>
  prepared_call prepare_update(Operation& op, Gather const& gather, bool may_be_small) {
    completion handle(op);
    op.call.clear();
    look([&](auto const& keys) { gather(op.call, keys); });
    op.call.for_each_key([&](record& r) { op.writes(r.order); });
    if constexpr (has_shared) op.writes(steps_);
    return {std::move(handle), &op, may_be_small ? op.call.work() : small_work + 1};
  }

  /// Names the plan's keys and their resident gradients. Their mirrors follow every change.
  template <class Call>
  static void add_resident(Call& call, table_type const& table, plan_type const& plan) {
    plan.for_each_key([&](record& r) {
      call.add_key(r);
      for (std::size_t n = 0; n < table.devices().size(); ++n)
        call.add_source(operand<T const, D>{table_type::gradient(r, n), table.devices()[n], r.shape.size()});
    });
  }

  template <class U>
  pull_operation<U>& make_pull() {
    auto const make = [&] { return std::make_unique<pull_operation<U>>(*this, devices(), compress::none{}); };
    if constexpr (std::same_as<U, T>) {
      return pulls_->take(make);
    } else {
      auto op = make();
      op->acquire();
      return *op.release();
    }
  }

  template <class Gather>
  prepared_call prepare_rows(char const* call, record& r, Gather const& gather) {
    using row_update = detail::row_update<Types, T, D, typename Types::rule_type, reduction_type>;
    static_assert(!Types::compressed, "kv_store: a Compressor takes dense gradients, not row-sparse ones");
    static_assert(AdditiveReduction<reduction_type>,
                  "kv_store: row-sparse gradients need an AdditiveReduction: reduce::sum or reduce::mean");
    static_assert(!Types::accumulates, "kv_store: accumulate takes dense gradients, not row-sparse ones");
    static_assert(!PreReduction<rule_type>,
                  "kv_store: row-sparse gradients take no PreReduction such as clip_global_norm, and no Factored rule");
    if constexpr (!Types::has_updater)
      expects<invalid_argument>(!function_.filled(), [&] {
        return std::string(call) + ": a function updates " + key_text(key_view(r.key)) +
               " and takes dense gradients, rows came";
      });
    auto& op =
        row_updates_.get<row_update>().take([&] { return std::make_unique<row_update>(keys_, controls_, &groups_); });
    completion handle(op);
    if constexpr (Types::has_updater) op.rules = groups_.rules();
    gather(op, r);
    op.writes(r.order);
    return {std::move(handle), &op, op.work()};
  }

  compressor_type compressor_;
  accumulation_policy accumulation_;
  std::shared_ptr<operation_pool<update_operation>> updates_ = std::make_shared<operation_pool<update_operation>>();
  std::shared_ptr<operation_pool<pull_operation<T>>> pulls_ = std::make_shared<operation_pool<pull_operation<T>>>();
  late_pool row_updates_, row_pulls_;
  function_slot<Types, T, D> function_;
};

}  // namespace pushpull::detail
