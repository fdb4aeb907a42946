/// @file
/// The part of an any_store without its operations: its making, and the rule and the compression of the pushes that follow.
#pragma once

#include <any>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/any_device_communicator.hpp>
#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/any_store_contents.hpp>
#include <pushpull/store/any_store_model.hpp>
#include <pushpull/store/any_store_replacement.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/wrapped_store.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/update/hyperparameter_list.hpp>
#include <pushpull/update/rule_description.hpp>
#include <pushpull/update/rule_text.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The communicator of any_store<D, Compressors, ...>: without several ranks memory of devices does not travel.
template <Device D, class Compressors>
struct communicator_of_any_store {
  using type = comm::any_communicator;
};
template <Device D, class... Cs>
  requires(!HostDevice<D>)
struct communicator_of_any_store<D, compressors_over_ranks<Cs...>> {
  using type = comm::any_device_communicator<D>;
};

/// The part of any_store<D, Compressors, Ts...> that it inherits.
template <Device D, class Compressors, ElementType... Ts>
class any_store_base : public any_store_contents<D, Ts...> {
  using contents = any_store_contents<D, Ts...>;

 public:
  using communicator_type = typename communicator_of_any_store<D, Compressors>::type;
  using contents::has_updater;
  template <class T>
  static constexpr bool has_type = contents::template has_type<T>;

  /// Without a rule. @param type  The name that `type()` returns. @throws as kv_store
  any_store_base(std::string type, std::vector<D> const& devices, communicator_type communicator = {})
      : contents(std::move(type)), communicator_(std::move(communicator)) {
    store_ = make(devices, no_updater{}, compress::none{});
  }
  /// A user's store, which updates as it does: set_optimizer and set_gradient_compression are refused, unless it has them
  /// itself, as remote_store has. Its value_type is one of Ts. Calls on lists are made key by key. Where its calls return no
  /// `completion`, those of any_store return when their work is finished.
  template <Store S>
    requires(std::same_as<typename S::device_type, D> && !std::derived_from<S, any_store_base>)
  any_store_base(std::string type, S store) : any_store_base(std::move(type), std::make_unique<S>(std::move(store))) {}
  /// Same as the constructor from a user's store, but takes a store that cannot be moved.
  template <Store S>
    requires(std::same_as<typename S::device_type, D> && !std::derived_from<S, any_store_base>)
  any_store_base(std::string type, std::unique_ptr<S> store) : contents(std::move(type)) {
    store_ = std::make_unique<wrapped_store<S, Ts...>>(std::move(store));
    using key = typename S::key_type;
    if constexpr (!std::constructible_from<key, any_key_view>)
      kind_ = std::integral<key> ? key_kind::integers : key_kind::strings;
  }
  any_store_base(any_store_base&&) noexcept = default;
  any_store_base& operator=(any_store_base&&) noexcept = default;

  /// The rule of the pushes that follow, in place of any other and of a function; states, step counts and parameter groups
  /// start again. Policies are `accumulate`, a Reduction, a placement: `set_optimizer(adamw{}, accumulate{4})`.
  /// Returns when all work is finished and the values have moved. Over ranks all make the call, with the same rule.
  /// @throws invalid_argument, also for a user's store without a set_optimizer, between the micro-batches of a step, and while a state is swapped;
  /// what work failed with
  template <class Updater, HasPolicyKind... Policies>
    requires(FloatingElement<Ts> && ...)
  void set_optimizer(Updater const& updater, Policies const&... policies) {
    static_assert(((is_kind<Policies, accumulation_tag> || is_kind<Policies, reduction_tag> ||
                    is_kind<Policies, placement_tag>) &&
                   ...),
                  "set_optimizer: of the policies it takes accumulate, a Reduction and a placement");
    if constexpr (sizeof...(Policies) == 0)
      if (store_->sets_optimizer_itself([&] { return update::detail::whole_text(updater); })) return;
    expect_replaceable("set_optimizer");
    auto next = prepared(
        "set_optimizer", text_of_optimizer<Updater>(policies...),
        [&] {
          expect_movable("set_optimizer", *store_);
          return make(contents::devices(), updater, compressor_, policies...);
        },
        [&](auto const&) { return update::list_hyperparameters(updater); });
    replace(std::move(next), false);
  }
  /// From now on gradients travel as the parameters say: see compress::by_name. Values, rules, groups, states and step
  /// counts stay, residuals start at zero. Returns when all work is finished. Over ranks all make the call.
  /// @throws invalid_argument as by_name; for a store whose name says neither "device" nor "dist", as in MXNet; for a
  /// compressor that is not in `Compressors`; between the micro-batches of a step, and while a state is swapped
  void set_gradient_compression(compress::parameters const& given) {
    expects<invalid_argument>(
        type_.find("device") != std::string::npos || type_.find("dist") != std::string::npos, [&] {
          return "set_gradient_compression: a store \"device\" or \"dist\" expected, this one is \"" + type_ + "\"";
        });
    if (store_->compresses_itself(given)) return;
    expect_replaceable("set_gradient_compression");
    compress::any_compressor compressor;
    auto next = prepared("set_gradient_compression", text_of_parameters(given), [&] {
      ((compressor = compress::by_name<Ts>(given)), ...);
      auto compressing = store_->compressing(compressor);
      expects<invalid_argument>(compressing != nullptr, [&] {
        return "set_gradient_compression: the store was not created with a compressor for \"" +
               given.find("type")->second + "\": name it in create(name, devices, compressors<...>())";
      });
      expect_movable("set_gradient_compression", *store_);
      return compressing;
    });
    store_->add_groups_to(*next);  // ranks agree on each, so not while they agree on the store
    replace(std::move(next), true);
    compressor_ = compressor;
  }

  /// As kv_store::set_updater, in place of any rule, for keys of element type T. Over ranks all make the call, and rank 0's
  /// function counts. @throws as set_optimizer
  template <class T, class F>
    requires(has_type<T> && std::invocable<F&, any_key_view, tensor_view<T, D>, tensor_view<T, D>>)
  void set_updater(F f) {
    expect_replaceable("set_updater");
    function_type<T> function(std::move(f));
    auto next = prepared("set_updater", "a function of " + std::string(dtype_traits<T>::name), [&] {
      expects<invalid_argument>(bool{function}, [] { return std::string("set_updater: the function is empty"); });
      if (!store_->has_updater()) return std::unique_ptr<erased>();
      expect_movable("set_updater", *store_);
      return make(contents::devices(), no_updater{}, compressor_);
    });
    if (next != nullptr) {
      static_cast<typed_calls<T, D>&>(*next).set_function(function);  // may fail, so before anything changes
      replace(std::move(next), false);
    } else {
      calls<T>().set_function(function);
    }
    std::get<function_type<T>>(functions_) = std::move(function);
  }
  /// For keys of every element type.
  template <class F>
    requires(std::invocable<F&, any_key_view, tensor_view<Ts, D>, tensor_view<Ts, D>> && ...)
  void set_updater(F f) {
    (set_updater<Ts>(f), ...);
  }
  /// From the next push on the stored values are replaced again. A rule stays.
  void reset_updater() {
    if (store_->has_updater() || !store_->replaceable()) return;
    functions_ = {};
    (calls<Ts>().set_function({}), ...);
  }
  /// Whether this any_store makes its stores itself: not where it was made of a user's.
  bool is_replaceable() const { return store_->replaceable(); }
  /// The rule with its present hyperparameters, or that of a parameter group.
  /// @throws invalid_argument if there is none or no such group, or its type is another
  template <class Updater>
  Updater updater(std::size_t group = 0) const {
    expect_updater("updater");
    std::any const rule = store_->updater(group);
    auto const* const same = std::any_cast<Updater>(&rule);
    if (same == nullptr)
      refuse_call("updater", "the store's optimizer has another type than the one that was asked for");
    return *same;
  }
  /// Other hyperparameters for the pushes that follow; states and step counts stay.
  /// @throws invalid_argument as kv_store; where there is no rule, or one of another type than `updater`
  template <class Updater>
  void set_hyperparameters(Updater const& updater, std::size_t group = 0) {
    expect_rule("set_hyperparameters", updater);
    store_->set_hyperparameters(std::any(updater), group);
  }
  /// As kv_store::add_group. @throws also where there is no rule, or one of another type than `updater`
  template <class Updater>
  std::size_t add_group(std::function<bool(any_key_view)> belongs, Updater const& updater) {
    expect_rule("add_group", updater);
    return store_->add_group(std::move(belongs), std::any(updater));
  }

 protected:
  using contents::expect_updater, contents::store_, contents::type_, contents::kind_;
  using typename contents::erased;
  template <class T>
  using function_type = std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)>;

  ~any_store_base() = default;

  template <class T>
  typed_calls<T, D>& calls() {
    return *store_;
  }

 private:
  template <class Updater, class... Policies>
  std::unique_ptr<erased> make(std::vector<D> const& devices, Updater const& updater,
                               compress::any_compressor const& compressor, Policies const&... policies) const {
    return make_model<D, Ts...>(Compressors(), devices, updater, compressor,
                                policy_list<communicator_type, Policies...>{{communicator_, policies...}});
  }

  void expect_replaceable(char const* call) const {
    if (!store_->replaceable()) refuse_call(call, "any_store was made of a user's store, which updates as it does");
  }
  /// The result of prepare(). Ranks that train together all make the call, with the same arguments, of which `what` is the
  /// text: all throw or none.
  template <class Prepare, class More = no_texts>
  auto prepared(char const* call, std::string const& what, Prepare const& prepare, More const& more = {}) {
    auto const ranks = store_->owning_ranks();
    if (ranks.group != nullptr) return prepared_alike(*ranks.group, call, what, prepare, more);
    return prepare();
  }
  /// @throws invalid_argument, on all ranks, unless the store's rule has this type
  template <class Updater>
  void expect_rule(char const* call, Updater const& rule) {
    prepared(call, update::describe<Updater>().name, [&] {
      expect_updater(call);
      store_->expect_rule(call, std::any(rule));
      return true;
    });
  }
  /// Moves all values to another store, of the same rule also states and step counts.
  void replace(std::unique_ptr<erased> next, bool same_rule) {
    move_contents(*store_, *next, same_rule);
    if (same_rule && !has_updater())
      (static_cast<typed_calls<Ts, D>&>(*next).set_function(std::get<function_type<Ts>>(functions_)), ...);
    this->changes_before_ = this->rule_changes() + 1;
    store_ = std::move(next);
    if (!same_rule) functions_ = {};
  }

  compress::any_compressor compressor_;
  communicator_type communicator_;              // of a user's store: not asked
  std::tuple<function_type<Ts>...> functions_;  // of set_updater
};

}  // namespace pushpull::detail
