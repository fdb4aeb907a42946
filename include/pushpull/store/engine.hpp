/// @file
/// The engine behind kv_store: makes each call an operation and submits it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/call_drafts.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/command.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/exchange/rank_weights.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/operations/function_push.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/operations/step_plan.hpp>
#include <pushpull/store/operations/swap.hpp>
#include <pushpull/store/ordered_work.hpp>
#include <pushpull/store/rows/push_rows.hpp>
#include <pushpull/update/hyperparameter_list.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A call whose keys were found. It may be dropped.
struct prepared_call {
  completion handle;
  detail::operation* operation;
  std::int64_t work;                 ///< Elements to read and to write, roughly.
  captured_calls* graphs = nullptr;  ///< Those of the call's engine.
};

/// Makes each call on a kv_store an operation and submits it. A call is a draft that the caller fills, then it is submitted.
/// @tparam Types  A kv_store_types.
template <class Types>
class engine : public ordered_work<Types> {
  using ordered = ordered_work<Types>;
  using drafts = call_drafts<Types>;
  using drafts::accumulation_, drafts::compressor_, drafts::contents_, drafts::function_, drafts::ranks_,
      drafts::schedule_, drafts::state_names_;
  using ordered::capture, ordered::finish_work, ordered::join_devices, ordered::order_with_graphs, ordered::perform,
      ordered::run_between_all, ordered::tell;

 public:
  using typename drafts::record, typename drafts::key_type, typename drafts::key_view, typename drafts::contents_type;
  using typename drafts::T, typename drafts::D, typename drafts::rule_type, typename drafts::updater_type;
  using new_rules = typename contents_type::new_rules;
  using new_keys = typename contents_type::new_keys;
  using predicate = typename contents_type::groups_type::predicate;
  using plan_type = step_plan<Types>;
  template <class E>
  using draft = typename drafts::template draft<E>;
  using drafts::devices;
  using ordered::drain, ordered::run_in_order, ordered::run_between_steps;

  using ordered_work<Types>::ordered_work;
  engine(engine const&) = delete;
  engine& operator=(engine const&) = delete;
  /// What calls borrowed may end with the store.
  ~engine() {
    try {
      finish_work();
    } catch (...) {  // a device broke down, and there is nobody to tell
    }
  }

  /// Checks a call that was gathered. Nothing has changed if it throws.
  template <class E>
  prepared_call prepare(draft<E>& call) {
    expect_outside(*schedule_);
    auto [op, handle] = call.close();
    op->find_keys();
    return {std::move(handle), op, op->work(), &contents_.captured};
  }
  template <class Operation>
  prepared_call prepare(row_draft<Operation>& call) {
    return {std::move(call.handle), &call.operation, call.operation.work(), &contents_.captured};
  }
  completion submit(prepared_call const& call, priority when) {
    if (call.operation->is_captured()) {
      captured_calls& graphs = call.graphs != nullptr ? *call.graphs : contents_.captured;
      graphs.make_room();
      capture(*call.operation);
      graphs.keep(call.handle);
      return call.handle;
    }
    auto const order = [&] { call.graphs != nullptr&& call.graphs->any() ? join_devices() : order_with_graphs(); };
    order();
    schedule_->submit(*call.operation, when.value, call.work <= small_work);
    order();
    if constexpr (Types::is_synchronous) call.operation->devices_wait();
    return call.handle;
  }
  template <class Draft>
  completion submit(Draft& call, priority when) {
    return submit(prepare(call), when);
  }
  /// Submits calls of stores that share the schedule as one. All take effect, or none.
  completion submit_jointly(std::span<prepared_call const> all, priority when) {
    if (all.size() == 1) return submit(all.front(), when);
    auto& joint = *new joint_operation(all.size());
    joint.acquire();
    completion handle(joint);
    std::int64_t work = 0;
    for (prepared_call const& call : all) {
      joint.add(*call.operation);
      work = call.work > std::numeric_limits<std::int64_t>::max() - work ? call.work : work + call.work;
    }
    bool const captured = joint.is_captured();  // every engine then has work in the graph
    captured_calls* graphs = all.front().graphs;
    for (prepared_call const& call : all) {
      if (captured) call.graphs->make_room();
      if (call.graphs->any()) graphs = call.graphs;
    }
    static_cast<void>(submit(prepared_call{handle, &joint, work, graphs}, when));
    for (prepared_call const& call : all)
      if (captured && call.graphs != graphs) call.graphs->keep(handle);
    return handle;
  }
  plan_type make_plan(std::span<key_type const> keys) {
    shared_guard const lock(contents_.mutex);
    std::vector<record*> records;
    for (auto const& key : keys) records.push_back(&contents_.keys.find_with_gradient("make_plan", key));
    return plan_type(contents_, std::move(records));
  }
  /// The step of a plan. Finished when it returns if the devices are CPUs.
  /// @param only_accumulates  No key is updated.
  void update(plan_type& plan, bool only_accumulates = false) {
    bool const captured = this->captures_step("update");
    if constexpr (!Types::has_updater && !Types::compressed)
      if (auto* const op = function_.take(contents_, compressor_)) {
        prepared_call const call{completion(*op), op, op->work()};
        op->take_resident(plan);
        completion const finished = submit(call, priority{});
        if constexpr (HostDevice<D>) finished.wait();
        return;
      }
    plan.step().begin(accumulation_, only_accumulates);
    if (captured) {
      plan.step().capture();
      return capture(plan.step());
    }
    perform(plan.step());
  }
  /// Same as update, but on CPU devices too it may go on when this returns. To be finished before the plan is used again.
  void start(plan_type& plan, priority when) {
    if constexpr (!Types::has_updater)
      if (function_.filled()) return update(plan);
    if (is_captured(devices())) return update(plan);
    plan.step().begin(accumulation_, false);
    order_with_graphs();
    schedule_->submit(plan.step(), when.value, false);
    order_with_graphs();
  }
  /// Returns when the step is done. @throws what it fails with
  void finish(plan_type& plan) {
    schedule_->finish(plan.step());
    tell(plan.step());
  }
  /// Exchanges masters and state number `s` of different keys.
  void swap(std::vector<record*> keys, std::size_t s) {
    detail::swap<Types> op(contents_, std::move(keys), s, state_names_[s]);
    run_in_order(op);
  }

  /// Adds all keys or none.
  template <class View>
  void init(std::span<key_view const> keys, std::span<View const> values, bool resident,
            std::vector<bool> const& needs_gradient, key_options options = {}) {
    auto made = prepare_init(keys, values, resident, needs_gradient, options);
    commit(made);
  }
  /// All that may fail of `init`. Names and values must stay until `commit`.
  template <class View>
  new_keys prepare_init(std::span<key_view const> keys, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient, key_options options = {}) {
    expect_outside(*schedule_);
    expect_uncaptured(devices(), "init");
    auto made = prepare_keys(keys, values, resident, needs_gradient, options);
    std::size_t const clocks = contents_.keys.size() + keys.size();  // no other init adds keys before `made` does
    expects<capture_error>(!contents_.captured.any() || contents_.has_room(clocks), [] {
      return std::string(
                 "init: captured steps count in the memory of the present keys, which has no room for more: init ") +
             "all keys before the capture, or call discard_captures when its graphs are not launched any more";
    });
    if (!contents_.has_room(clocks)) run_between_all([&] { contents_.make_room(clocks); });
    return made;
  }
  void commit(new_keys& made) {
    contents_.commit(made);
    join_devices();
  }
  /// Several ranks agree on the keys, and take the values of rank 0.
  template <class View>
  new_keys prepare_keys(std::span<key_view const> keys, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient, key_options options) {
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed()) {
        contents_.expect_in_step("init");
        return contents_.in_step([&] {
          auto const rules = contents_.groups.rules();
          expect_agreed_keys(*ranks_, in_words(), words_of_rules(*rules), keys, values, needs_gradient, options,
                             [&](key_view key) { return rules->size() > 1 ? contents_.groups.of(key) : 0; });
          if constexpr (requires { typename View::value_type; }) {
            auto const agreed = values_of_rank_0(contents_.keys, values);
            return contents_.prepare_keys(keys, std::span(agreed), resident, needs_gradient, options);
          } else {  // rows, which are filled with those of rank 0
            return contents_.prepare_keys(keys, values, resident, needs_gradient, options);
          }
        });
      }
    return contents_.prepare_keys(keys, values, resident, needs_gradient, options);
  }
  /// Adds a key with the given rows, and zero elsewhere.
  template <class Rows>
  void init_rows(key_view key, Rows const& rows, key_options options = {}) {
    auto const fill = [&](record& r) { fill_rows(contents_, r, rows); };
    filled_value<decltype(fill)> const value{rows.shape(), fill, true};
    init(std::span<key_view const>(&key, 1), std::span(&value, 1), false, {}, options);
  }
  void require_gradient(key_view key) {
    expect_outside(*schedule_);
    expect_uncaptured(devices(), "require_gradient");
    unique_guard const lock(contents_.mutex);
    contents_.keys.require_gradient(key);
    join_devices();
  }

  new_rules prepare_rule(std::size_t group, updater_type const& updater) {
    expect_outside(*schedule_);
    expect_uncaptured(devices(), "set_hyperparameters");
    return contents_.prepare_rule(group, updater);
  }
  new_rules prepare_group(predicate belongs, updater_type const& updater) {
    expect_outside(*schedule_);
    expect_uncaptured(devices(), "add_group");
    return contents_.prepare_group(std::move(belongs), updater);
  }
  /// A group's between the operations on all keys.
  void commit(new_rules& made) {
    order_with_graphs();
    contents_.commit(made);
    join_devices();
  }
  /// Adds a group with the keys, present and to come, for which `belongs` holds.
  std::size_t add_group(predicate belongs, updater_type const& updater) {
    auto made = prepare_group(std::move(belongs), updater);
    std::size_t const number = made.rules->size() - 1;
    run_between_all([&] { commit(made); });  // no operation sees half of it
    return number;
  }
  /// The sums over all keys, and the values that persist, where device number n finds them.
  sums_t<rule_type> const* shared_sums(std::size_t n) const { return &contents_.controls[n].shared()->sums; }

  /// The result of prepare(), a change of rules. Ranks that own the keys together all make it: `what` and the texts of
  /// more(result) are alike on all of them, or none makes it. @throws as detail::prepared_alike
  template <class Prepare, class More>
  auto prepared_alike([[maybe_unused]] char const* call, [[maybe_unused]] std::string what, Prepare const& prepare,
                      [[maybe_unused]] More const& more) {
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed()) {
        contents_.expect_in_step(call);
        return contents_.in_step([&] { return detail::prepared_alike(*ranks_, call, std::move(what), prepare, more); });
      }
    return prepare();
  }

  /// See kv_store::join.
  std::optional<double> join(double weight) {
    using reduction = typename Types::reduction_type;
    static_assert(AdditiveReduction<reduction>,
                  "join: the store's reduction adds gradients: reduce::sum or reduce::mean");
    expect_outside(*schedule_);
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed()) {
        contents_.expect_in_step("join");
        std::span<double const> weights;
        auto const gather = [&] { contents_.in_step([&] { weights = weights_.gather(*ranks_, weight); }); };
        function_operation op(gather);
        contents_.write_collectives(op);
        run_in_order(op);
        return factor_of_rank<reduction>(weights, contents_.keys.owners().rank());
      }
    return factor_of_rank<reduction>(std::span(&weight, 1), 0);
  }

  profile::statistics statistics() const { return schedule_->counters.values(); }

  void on_command(command_handler handler) { commands_.set(std::move(handler)); }
  /// See kv_store::command.
  void command(std::int64_t head, std::string_view body) {
    drain();
    contents_.in_step([&] { commands_.run(owning_ranks().group, head, body); });
  }

  detail::owning_ranks owning_ranks() const {
    topology const& all = contents_.keys.owners();
    return {contents_.keys.is_distributed() ? ranks_.get() : nullptr, all.rank(), all.ranks()};
  }

 private:
  /// For ranks whose stores are to be alike.
  std::string in_words() const {
    std::string text = std::string(dtype_traits<T>::name) + " on " + counted(devices().size(), "device");
    if constexpr (Types::has_updater) {
      text += " with the rule " + update::describe<rule_type>().name;
      if (std::size_t const groups = contents_.groups.rules()->size(); groups > 1)
        text += " and " + counted(groups, "parameter group");
    }
    if constexpr (Types::coded) text += " with states in blocks of " + std::to_string(Types::stored_state::block);
    if (auto const& bound = contents_.keys.placement().bound) text += " placed by the bound " + std::to_string(*bound);
    return text;
  }
  /// The hyperparameters of all parameter groups.
  static std::vector<std::string> words_of_rules(std::vector<updater_type> const& rules) {
    std::vector<std::string> texts;
    if constexpr (Types::has_updater)
      for (std::size_t group = 0; group < rules.size(); ++group)
        for (std::string& text : update::list_hyperparameters(rules[group]))
          texts.push_back(group == 0 ? std::move(text) : text + " of parameter group " + std::to_string(group));
    return texts;
  }

  /// Elements up to which the calling thread does the work of a call itself: about as long as another takes to wake.
  static constexpr std::int64_t small_work = std::int64_t{1} << 14;

  rank_weights weights_;  // of the call of join that is under way
  command_slot commands_;
};

}  // namespace pushpull::detail
