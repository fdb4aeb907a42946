/// @file
/// The state behind a kv_store, and drafts of calls on it.
#pragma once

#include <cstddef>
#include <memory>
#include <shared_mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/factored_plan.hpp>
#include <pushpull/pass/row_numbers.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/kv_store_types.hpp>
#include <pushpull/store/operations/accumulating_push.hpp>
#include <pushpull/store/operations/assign.hpp>
#include <pushpull/store/operations/function_push.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/operations/pull.hpp>
#include <pushpull/store/operations/push.hpp>
#include <pushpull/store/rows/pull_rows.hpp>
#include <pushpull/store/rows/push_rows.hpp>
#include <pushpull/store/rule_states.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A call on rows that is being gathered, key by key. Dropped, it leaves no trace.
template <class Operation>
struct row_draft {
  completion handle;
  Operation& operation;
};

/// Keys, rules, schedule and communicator of a kv_store, and drafts of calls, to be filled and submitted.
/// @tparam Types  A kv_store_types.
template <class Types>
class call_drafts {
 public:
  using T = typename Types::value_type;
  using D = typename Types::device_type;
  using rule_type = typename Types::rule_type;
  using updater_type = typename Types::updater_type;
  using compressor_type = typename Types::compressor_type;
  using accumulation_policy = typename Types::accumulation_policy;
  using placement_type = typename Types::placement_type;
  using communicator_type = typename Types::communicator_type;
  using table_type = typename Types::table_type;
  using schedule_type = typename Types::schedule_type;
  using record = typename Types::record;
  using key_type = typename Types::key_type;
  using key_view = typename Types::key_view;
  using contents_type = store_contents<Types>;
  template <class E>
  using draft = call_draft<key_view, D, E>;
  using push_rows_draft = row_draft<push_rows<Types>>;
  using pull_rows_draft = row_draft<pull_rows<table_type>>;

  /// What several stores share: the order of their work, and the space of their keys.
  struct shared_parts {
    std::shared_ptr<schedule_type> schedule = std::make_shared<schedule_type>();
    std::shared_ptr<typename table_type::directory_type> directory = nullptr;
  };

  /// @param number  Among the stores that share the parts.
  call_drafts(std::vector<D> const& device_list, updater_type const& updater, compressor_type const& compressor,
              accumulation_policy const& accumulation, placement_type const& placement,
              communicator_type const& communicator, shared_parts shared, std::size_t number)
      : communicator_(communicator),
        compressor_(compressor),
        accumulation_(accumulation),
        ranks_(make_ranks(communicator_, device_list)),
        contents_(device_list, owners_of<D>(communicator_, device_list.size()), ranks_.get(), updater,
                  std::move(shared.directory), number, placement_of(placement)),
        schedule_(std::move(shared.schedule)) {
    contents_.collectives = &schedule_->collectives;
    detail::validate_policy(compressor_);
    detail::validate_policy(accumulation_);
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

  /// Whether a step is to be captured in a graph, in the place of being run. @throws capture_error if it cannot be
  bool captures_step([[maybe_unused]] char const* caller) const {
    if (!is_captured(devices())) return false;
    char const* reason = contents_.keys.is_distributed() ? "is one of several ranks"
                         : Types::is_synchronous         ? "is waited for: the store is `synchronous`"
                         : Types::accumulates            ? "depends on a count of micro-batches"
                         : Types::compressed             ? "has compressed gradients"
                         : factored_count<rule_type> > 0 ? "has sums of rows and columns"
                                                         : nullptr;
    if constexpr (!Types::has_updater)
      if (function_.filled()) reason = "is a function's";
    expects<capture_error>(reason == nullptr, [&] {
      return std::string(caller) + ": a step that " + reason + " cannot be captured in a graph, and the stream of a " +
             "device of the store is being captured";
    });
    return true;
  }

  /// Drafts of calls, to be filled and submitted. @param caller  The name of the call, for messages.
  draft<T> new_push(char const* caller, [[maybe_unused]] bool only_accumulates = false) {
    [[maybe_unused]] bool const captured = captures_step(caller);
    if constexpr (!Types::has_updater)
      if (auto* const op = function_.take(contents_, compressor_)) return begin<T>(*op, caller);
    if constexpr (Types::accumulates) {
      auto& op = pushes_->take(
          [&] { return std::make_unique<accumulating_push<Types>>(contents_, compressor_, accumulation_); });
      op.rules = contents_.groups.rules();
      op.only_accumulates = only_accumulates;
      return begin<T>(op, caller);
    } else {
      auto const make = [&] { return std::make_unique<push<Types>>(contents_, compressor_); };
      auto& op = captured ? without_pool(make()) : pushes_->take(make);
      op.capture(captured);
      if constexpr (Types::has_updater) op.rules = contents_.groups.rules();
      return begin<T>(op, caller);
    }
  }
  /// @tparam U  The outputs' element type.
  template <class U>
  draft<U> new_pull(char const* caller) {
    auto const make = [&] { return std::make_unique<pull<table_type, U>>(contents_); };
    if (is_captured(devices())) {
      captures_step(caller);
      auto& op = without_pool(make());
      op.capture();
      return begin<U>(op, caller);
    }
    if constexpr (std::is_same_v<U, T>) {
      return begin<U>(pulls_->take(make), caller);
    } else {
      return begin<U>(without_pool(make()), caller);
    }
  }
  /// @tparam U  The values' element type.
  template <class U>
  draft<U> new_assign(char const* caller, rule_states states) {
    expect_uncaptured(devices(), caller);
    return begin<U>(without_pool(std::make_unique<assign<table_type, U>>(
                        contents_, states == rule_states::reset ? &reset_in : nullptr)),
                    caller);
  }
  /// @param whole  All rows of the key are updated.
  push_rows_draft new_push_rows(char const* caller, key_view key, bool whole) {
    static_assert(!Types::compressed, "kv_store: a Compressor takes dense gradients, not row-sparse ones");
    static_assert(AdditiveReduction<typename Types::reduction_type>,
                  "kv_store: row-sparse gradients need an AdditiveReduction: reduce::sum or reduce::mean");
    static_assert(!Types::accumulates, "kv_store: accumulate takes dense gradients, not row-sparse ones");
    static_assert(!PreReduction<rule_type> || pass::keeps_rows_alone<rule_type>,
                  "kv_store: row-sparse gradients take no PreReduction such as clip_global_norm, and no Factored rule "
                  "but those that keep a number per row: group_adagrad, adam_mini");
    expect_uncaptured(devices(), caller);
    contents_.expect_in_step(caller);
    record& r = find(caller, key);
    if constexpr (!Types::has_updater)
      expects<invalid_argument>(!function_.filled(), [&] {
        return std::string(caller) + ": a function updates " + key_text(key) + " and takes dense gradients, rows came";
      });
    if constexpr (Types::coded)
      expects<invalid_argument>(row_length_of(r.shape) % Types::stored_state::block == 0, [&] {
        return std::string(caller) + ": " + key_text(key) + ": rows of whole blocks of " +
               std::to_string(Types::stored_state::block) + " states expected, as its states are codes, got rows of " +
               std::to_string(row_length_of(r.shape)) + " elements";
      });
    auto& op = row_pushes_->take([&] { return std::make_unique<push_rows<Types>>(contents_); });
    push_rows_draft result{completion(op), op};
    if constexpr (Types::has_updater) op.rules = contents_.groups.rules();
    op.begin(r, whole);
    return result;
  }
  pull_rows_draft new_pull_rows(char const* caller, key_view key) {
    expect_uncaptured(devices(), caller);
    contents_.expect_in_step(caller);
    record& r = find(caller, key);
    auto& op = row_pulls_->take([&] { return std::make_unique<pull_rows<table_type>>(contents_); });
    pull_rows_draft result{completion(op), op};
    op.begin(r);
    return result;
  }

 protected:
  template <class E, class Operation>
  draft<E> begin(Operation& op, char const* caller) {
    op.gathered.begin(caller);
    return draft<E>(op, contents_.mutex.id);
  }
  static void reset_in(keyed_state<table_type>& contents, record& r) {
    reset_states(contents.keys, static_cast<contents_type&>(contents).controls, r);
  }
  template <class Operation>
  static Operation& without_pool(std::unique_ptr<Operation> op) {
    op->acquire();
    return *op.release();
  }

  static placement_rule placement_of(placement_type const& policy) {
    auto result = rule_of(policy, Types::whole_keys, table_type::arena_type::padding);
    if constexpr (transforms_matrices<rule_type>)
      result.cost = [](pushpull::shape const& shape) {
        return cost_of_matrices<rule_type>([&](factors const& f) { return pass::matrix_of<float>(f, shape); });
      };
    return result;
  }
  static std::unique_ptr<rank_group> make_ranks([[maybe_unused]] communicator_type const& communicator,
                                                [[maybe_unused]] std::vector<D> const& devices) {
    if constexpr (requires { communicator.expect_devices(devices); }) communicator.expect_devices(devices);
    if constexpr (Types::collective)
      return std::make_unique<ranks_of<communicator_type, D>>(communicator, Types::hierarchy_type::reaches_node,
                                                              Types::reduces);
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
