/// @file
/// The engine behind kv_store: makes each call an operation and submits it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <shared_mutex>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/operations/accumulating_push.hpp>
#include <pushpull/store/operations/assign.hpp>
#include <pushpull/store/operations/function_push.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/model_step.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/operations/pull.hpp>
#include <pushpull/store/operations/push.hpp>
#include <pushpull/store/operations/swap.hpp>
#include <pushpull/store/rows/pull_rows.hpp>
#include <pushpull/store/rows/push_rows.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/copy_bytes.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A call whose keys were found. It may be dropped.
struct prepared_call {
  completion handle;
  detail::operation* operation;
  std::int64_t work;  ///< Elements to read and to write, roughly.
};

/// A call on rows that is being gathered, key by key. Dropped, it leaves no trace.
template <class Operation>
struct row_draft {
  completion handle;
  Operation& operation;
};

/// Keys, rules, schedule and communicator of a kv_store. A call is a draft that the caller fills, then it is submitted.
/// @tparam Types  A kv_store_types.
template <class Types>
class engine {
 public:
  using T = typename Types::value_type;
  using D = typename Types::device_type;
  using rule_type = typename Types::rule_type;
  using updater_type = typename Types::updater_type;
  using compressor_type = typename Types::compressor_type;
  using accumulation_policy = typename Types::accumulation_policy;
  using communicator_type = typename Types::communicator_type;
  using table_type = typename Types::table_type;
  using schedule_type = typename Types::schedule_type;
  using record = typename Types::record;
  using key_type = typename Types::key_type;
  using key_view = typename Types::key_view;
  using contents_type = store_contents<Types>;
  using new_rules = typename contents_type::new_rules;
  using new_keys = typename contents_type::new_keys;
  using predicate = typename contents_type::groups_type::predicate;
  using plan_type = step_plan<Types>;
  template <class E>
  using draft = call_draft<key_view, D, E>;
  using push_rows_draft = row_draft<push_rows<Types>>;
  using pull_rows_draft = row_draft<pull_rows<Types>>;

  /// What several stores share: the order of their work, and the space of their keys.
  struct shared_parts {
    std::shared_ptr<schedule_type> schedule = std::make_shared<schedule_type>();
    std::shared_ptr<typename table_type::directory_type> directory = nullptr;
  };

  /// @param number  Among the stores that share the parts.
  engine(std::vector<D> const& device_list, updater_type const& updater, compressor_type const& compressor,
         accumulation_policy const& accumulation, communicator_type const& communicator, shared_parts shared,
         std::size_t number)
      : communicator_(communicator),
        compressor_(compressor),
        accumulation_(accumulation),
        ranks_(make_ranks(communicator_)),
        contents_(device_list, owners_of<D>(communicator_, device_list.size()), ranks_.get(), updater,
                  std::move(shared.directory), number),
        schedule_(std::move(shared.schedule)) {
    contents_.collectives = &schedule_->collectives;
    detail::validate_policy(compressor_);
    detail::validate_policy(accumulation_);
  }
  engine(engine const&) = delete;
  engine& operator=(engine const&) = delete;
  /// What calls borrowed may end with the store.
  ~engine() {
    try {
      finish_work();
    } catch (...) {  // a device broke down, and there is nobody to tell
    }
  }

  std::vector<D> const& devices() const { return contents_.devices(); }
  communicator_type const& communicator() const { return communicator_; }
  /// A rule per parameter group.
  auto const& groups() const { return contents_.groups; }
  /// From the next push on its function, if it has one, takes the place of a rule.
  function_slot<Types>& function() { return function_; }

  /// f(the table of keys), while no key is added.
  template <class F>
  decltype(auto) with_keys(F const& f) const {
    expect_outside(*schedule_);  // another thread may hold the lock and wait for the operation that calls
    shared_guard const lock(contents_.mutex);
    return f(contents_.keys);
  }
  record& find(char const* caller, key_view key) const {
    return with_keys([&](auto const& keys) -> record& { return keys.find(caller, key); });
  }

  /// Drafts of calls, to be filled and submitted. @param caller  The name of the call, for messages.
  draft<T> new_push(char const* caller, [[maybe_unused]] bool only_accumulates = false) {
    if constexpr (!Types::has_updater)
      if (auto* const op = function_.take(contents_, compressor_)) return begin<T>(*op, caller);
    if constexpr (Types::accumulates) {
      auto& op = pushes_->take(
          [&] { return std::make_unique<accumulating_push<Types>>(contents_, compressor_, accumulation_); });
      op.rules = contents_.groups.rules();
      op.only_accumulates = only_accumulates;
      return begin<T>(op, caller);
    } else {
      auto& op = pushes_->take([&] { return std::make_unique<push<Types>>(contents_, compressor_); });
      if constexpr (Types::has_updater) op.rules = contents_.groups.rules();
      return begin<T>(op, caller);
    }
  }
  /// @tparam U  The outputs' element type.
  template <class U>
  draft<U> new_pull(char const* caller) {
    auto const make = [&] { return std::make_unique<pull<Types, U>>(contents_); };
    if constexpr (std::is_same_v<U, T>) {
      return begin<U>(pulls_->take(make), caller);
    } else {
      return begin<U>(without_pool(make()), caller);
    }
  }
  /// @tparam U  The values' element type.
  template <class U>
  draft<U> new_assign(char const* caller, rule_states states) {
    return begin<U>(without_pool(std::make_unique<assign<Types, U>>(contents_, states)), caller);
  }
  /// @param whole  All rows of the key are updated.
  push_rows_draft new_push_rows(char const* caller, key_view key, bool whole) {
    static_assert(!Types::compressed, "kv_store: a Compressor takes dense gradients, not row-sparse ones");
    static_assert(AdditiveReduction<typename Types::reduction_type>,
                  "kv_store: row-sparse gradients need an AdditiveReduction: reduce::sum or reduce::mean");
    static_assert(!Types::accumulates, "kv_store: accumulate takes dense gradients, not row-sparse ones");
    static_assert(!PreReduction<rule_type>,
                  "kv_store: row-sparse gradients take no PreReduction such as clip_global_norm, and no Factored rule");
    contents_.expect_in_step(caller);
    record& r = find(caller, key);
    if constexpr (!Types::has_updater)
      expects<invalid_argument>(!function_.filled(), [&] {
        return std::string(caller) + ": a function updates " + key_text(key) + " and takes dense gradients, rows came";
      });
    auto& op = row_pushes_->take([&] { return std::make_unique<push_rows<Types>>(contents_); });
    push_rows_draft result{completion(op), op};
    if constexpr (Types::has_updater) op.rules = contents_.groups.rules();
    op.begin(r, whole);
    return result;
  }
  pull_rows_draft new_pull_rows(char const* caller, key_view key) {
    contents_.expect_in_step(caller);
    record& r = find(caller, key);
    auto& op = row_pulls_->take([&] { return std::make_unique<pull_rows<Types>>(contents_.keys); });
    pull_rows_draft result{completion(op), op};
    op.begin(r);
    return result;
  }

  /// Checks a call that was gathered. Nothing has changed if it throws.
  template <class E>
  prepared_call prepare(draft<E>& call) {
    expect_outside(*schedule_);
    auto [op, handle] = call.close();
    op->find_keys();
    return {std::move(handle), op, op->work()};
  }
  template <class Operation>
  prepared_call prepare(row_draft<Operation>& call) {
    return {std::move(call.handle), &call.operation, call.operation.work()};
  }
  completion submit(prepared_call const& call, priority when) {
    schedule_->submit(*call.operation, when.value, call.work <= small_work);
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
    return submit(prepared_call{std::move(handle), &joint, work}, when);
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
    if constexpr (!Types::has_updater && !Types::compressed)
      if (auto* const op = function_.take(contents_, compressor_)) {
        prepared_call const call{completion(*op), op, op->work()};
        op->take_resident(plan);
        completion const finished = submit(call, priority{});
        if constexpr (HostDevice<D>) finished.wait();
        return;
      }
    plan.step().begin(accumulation_, only_accumulates);
    run_in_order(plan.step());
  }
  /// Same as update, but on CPU devices too it may go on when this returns. To be finished before the plan is used again.
  void start(plan_type& plan) {
    if constexpr (!Types::has_updater)
      if (function_.filled()) return update(plan);
    plan.step().begin(accumulation_, false);
    schedule_->submit(plan.step(), std::numeric_limits<int>::max(), false);
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
            std::vector<bool> const& needs_gradient) {
    auto made = prepare_init(keys, values, resident, needs_gradient);
    commit(made);
  }
  /// All that may fail of `init`. Names and values must stay until `commit`.
  template <class View>
  new_keys prepare_init(std::span<key_view const> keys, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient) {
    expect_outside(*schedule_);
    auto made = prepare_keys(keys, values, resident, needs_gradient);
    std::size_t const clocks = contents_.keys.size() + keys.size();
    if (!contents_.has_room(clocks)) run_between_all([&] { contents_.make_room(clocks); });
    return made;
  }
  void commit(new_keys& made) { contents_.commit(made); }
  /// Several ranks agree on the keys, and take the values of rank 0.
  template <class View>
  new_keys prepare_keys(std::span<key_view const> keys, std::span<View const> values, bool resident,
                        std::vector<bool> const& needs_gradient) {
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed()) {
        contents_.expect_in_step("init");
        return contents_.in_step([&] {
          expect_agreed_keys(*ranks_, devices().size(), keys, values, dtype_traits<T>::name, needs_gradient);
          if constexpr (requires { typename View::value_type; }) {
            auto const agreed = values_of_rank_0(contents_.keys, values);
            return contents_.prepare_keys(keys, std::span(agreed), resident, needs_gradient);
          } else {  // rows, which are filled with those of rank 0
            return contents_.prepare_keys(keys, values, resident, needs_gradient);
          }
        });
      }
    return contents_.prepare_keys(keys, values, resident, needs_gradient);
  }
  /// Adds a key with the given rows, and zero elsewhere.
  template <class Rows>
  void init_rows(key_view key, Rows const& rows) {
    auto const fill = [&](record& r) { fill_rows(contents_, r, rows); };
    filled_value<decltype(fill)> const value{rows.shape(), fill};
    init(std::span<key_view const>(&key, 1), std::span(&value, 1), false, {});
  }
  void require_gradient(key_view key) {
    expect_outside(*schedule_);
    unique_guard const lock(contents_.mutex);
    contents_.keys.require_gradient(key);
  }

  new_rules prepare_rule(std::size_t group, updater_type const& updater) {
    expect_outside(*schedule_);
    return contents_.prepare_rule(group, updater);
  }
  new_rules prepare_group(predicate belongs, updater_type const& updater) {
    expect_outside(*schedule_);
    return contents_.prepare_group(std::move(belongs), updater);
  }
  /// A group's between the operations on all keys.
  void commit(new_rules& made) { contents_.commit(made); }
  /// Adds a group with the keys, present and to come, for which `belongs` holds.
  std::size_t add_group(predicate belongs, updater_type const& updater) {
    auto made = prepare_group(std::move(belongs), updater);
    std::size_t const number = made.rules->size() - 1;
    run_between_all([&] { commit(made); });  // no operation sees half of it
    return number;
  }
  /// Names all keys. No key is added meanwhile.
  void write_all(operation& op) {
    contents_.keys.for_each([&](record& r) { op.writes(r.order); });
  }

  /// An operation of this call's own. Returns when it is done. @throws what it fails with
  void run_in_order(operation& op) {
    schedule_->submit(op, std::numeric_limits<int>::max(), true);
    schedule_->finish(op);
    tell(op);
  }
  /// f(contents) when earlier operations on the key are done, and before later ones. Returns when done.
  template <class F>
  void run_in_order(record& r, F const& f) {
    run_after(r.order, f);
  }
  /// f(contents) between two steps of stores whose steps share sums.
  template <class F>
  void run_between_steps(F const& f) {
    run_after(contents_.steps, f);
  }
  /// The sums over all keys, and the values that persist, where device number n finds them.
  sums_t<rule_type> const* shared_sums(std::size_t n) const { return &contents_.controls[n].shared()->sums; }

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
    finish_work();
  }

 private:
  /// Elements up to which the calling thread does the work of a call itself: about as long as another takes to wake.
  static constexpr std::int64_t small_work = std::int64_t{1} << 14;

  /// @throws what an operation that is done has failed with
  static void tell(operation const& op) {
    if (failure* const failed = op.failed()) {
      failed->told = true;
      std::rethrow_exception(failed->error);
    }
  }

  template <class E, class Operation>
  draft<E> begin(Operation& op, char const* caller) {
    op.gathered.begin(caller);
    return draft<E>(op, contents_.mutex.id);
  }
  template <class Operation>
  static Operation& without_pool(std::unique_ptr<Operation> op) {
    op->acquire();
    return *op.release();
  }

  template <class F>
  void run_after(variable& v, F const& f) {
    auto const run = [&] { f(contents_); };
    function_operation<decltype(run) const&> op(run);
    contents_.write_collectives(op);
    op.writes(v);
    run_in_order(op);
  }
  template <class F>
  void run_between_all(F const& f) {
    function_operation<F const&> op(f);
    write_all(op);
    run_in_order(op);
  }

  void finish_work() {
    schedule_->drain();
    synchronize();
  }
  void synchronize() const {
    for (D const& device : devices()) device.synchronize();
  }

  static std::unique_ptr<rank_group> make_ranks([[maybe_unused]] communicator_type const& communicator) {
    if constexpr (Types::collective)
      return std::make_unique<ranks_of<communicator_type, D>>(communicator, Types::hierarchy_type::reaches_node);
    return nullptr;
  }

  communicator_type communicator_;
  compressor_type compressor_;
  accumulation_policy accumulation_;
  std::unique_ptr<rank_group> ranks_;  // where the communicator connects them
  contents_type contents_;
  std::vector<std::string> const state_names_ = numbered_names(rule_type::state_names);  // that swap takes
  std::shared_ptr<schedule_type> schedule_;
  std::shared_ptr<operation_pool> pushes_ = std::make_shared<operation_pool>();
  std::shared_ptr<operation_pool> pulls_ = std::make_shared<operation_pool>();
  std::shared_ptr<operation_pool> row_pushes_ = std::make_shared<operation_pool>();
  std::shared_ptr<operation_pool> row_pulls_ = std::make_shared<operation_pool>();
  function_slot<Types> function_;
};

}  // namespace pushpull::detail
