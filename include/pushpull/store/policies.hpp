/// @file
/// The policies of a store, and how a list of them in any order is read.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include <pushpull/comm/single.hpp>
#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/keys.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Calls return when their work is enqueued: the default. On CPU devices it runs on oneTBB's threads.
struct asynchronous {
  using policy_kind = execution_tag;
};

/// Calls return when their work is finished.
struct synchronous {
  using policy_kind = execution_tag;
};

/// Gradient accumulation: a key is updated by the last of `micro_batches` pushes, with the sum of them all; the others leave
/// weights, states and t alone. With 0 every push updates, with what `accumulate` calls have added since the last update.
/// The sum is kept on the owners in the type that the store computes in; the first push of a step writes it, later ones
/// add, the last is read by the pass from the caller's buffer. Of several ranks each keeps a sum of its own gradients, which
/// a step exchanges once. For a mean over micro-batches: rescale(1.0 / n) | rule.
struct accumulate {
  using policy_kind = accumulation_tag;
  std::int64_t micro_batches = 0;

  /// @throws invalid_argument on a negative number
  void validate() const {
    detail::expects<invalid_argument>(micro_batches >= 0, [&] {
      return "accumulate: at least 0 micro-batches expected, got " + std::to_string(micro_batches);
    });
  }
};

/// Every push is a step: the default.
struct no_accumulation {
  using policy_kind = accumulation_tag;
};

/// No rule: push replaces the stored value by the reduced gradients.
struct no_updater {
  static constexpr auto state_names = states();
};

namespace element {

/// Gradients, masters, states and mirrors all have the store's element type: the default.
struct uniform {
  using policy_kind = element_tag;
  template <class T>
  using master_type = T;
  template <class T>
  using state_type = T;
};

/// Gradients and mirrors have the store's element type; masters and states are of type `Master` and `State`. For bf16
/// training: `element::master<float>`, 28 bytes per parameter for Adam.
template <ElementType Master, ElementType State = Master>
struct master {
  using policy_kind = element_tag;
  template <class T>
  using master_type = Master;
  template <class T>
  using state_type = State;
};

/// As `master`, but half and bfloat16 masters and states are rounded stochastically: changes that are smaller than half a
/// step of the type count on average. `kv_store<bfloat16, D, adam, element::stochastic<bfloat16>>`: 14 bytes per parameter.
/// Results are the same for any number of devices. Weights need no float master then (Gupta et al. 2015).
template <ElementType Master, ElementType State = Master>
struct stochastic : master<Master, State> {
  static constexpr bool stochastic_rounding = true;
};

}  // namespace element

namespace detail {

template <class P>
concept HasPolicyKind = requires { typename P::policy_kind; };

template <class P, class Tag>
inline constexpr bool is_kind = false;
template <HasPolicyKind P, class Tag>
inline constexpr bool is_kind<P, Tag> = std::same_as<typename P::policy_kind, Tag>;

template <class P>
inline constexpr bool is_known_policy =
    is_kind<P, reduction_tag> || is_kind<P, compressor_tag> || is_kind<P, communicator_tag> || is_kind<P, key_tag> ||
    is_kind<P, element_tag> || is_kind<P, execution_tag> || is_kind<P, placement_tag> || is_kind<P, accumulation_tag> ||
    is_kind<P, hierarchy_tag> || is_kind<P, state_codec_tag>;

template <class Tag, class Default, class... Policies>
struct pick {
  using type = Default;
};
template <class Tag, class Default, class P, class... Rest>
struct pick<Tag, Default, P, Rest...> {
  using type = std::conditional_t<is_kind<P, Tag>, P, typename pick<Tag, Default, Rest...>::type>;
};

template <class Tag, class Default, class... Policies>
using pick_t = typename pick<Tag, Default, Policies...>::type;

/// The policy of type `P` among values, or a default one.
template <class P>
P pick_value() {
  static_assert(std::default_initializable<P>, "store: a policy that has no default value has to be given as a value");
  return P{};
}
template <class P, class First, class... Rest>
P pick_value(First const& first, Rest const&... rest) {
  if constexpr (std::same_as<P, First>) {
    return first;
  } else {
    return pick_value<P>(rest...);
  }
}

/// A policy without a policy kind can only be a rule.
template <class... Policies>
struct pick_updater {
  using type = no_updater;
};
template <class P, class... Rest>
struct pick_updater<P, Rest...> {
  using type = std::conditional_t<!HasPolicyKind<P>, P, typename pick_updater<Rest...>::type>;
};

/// In the place of a rule that was refused: what is compiled after the message has no errors of its own.
struct refused_updater {
  static constexpr auto state_names = states();
  refused_updater() = default;
  template <class U>
  refused_updater(U const&) {}
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V&, V const&) const noexcept {}
};

/// Says in the compiler's message which piece a rule lacks: the first one only.
template <class U, class A>
struct check_updater {
  static constexpr bool copyable = std::is_trivially_copyable_v<U>;
  static constexpr bool named = HasStateNames<U>;
  static constexpr bool callable = [] {
    if constexpr (named) return UpdatesWeightWith<U, pack<A>, A>;
    return false;
  }();
  static constexpr bool changes = [] {
    if constexpr (callable) return !LeavesWeightAlone<U, pack<A>, A>;
    return false;
  }();
  static constexpr bool keeps_states = [] {
    if constexpr (callable) return !LeavesAStateAlone<U, pack<A>, A>;
    return false;
  }();
  static constexpr bool cannot_throw = [] {
    if constexpr (callable) return IsNoexceptPerElement<U, pack<A>, A>;
    return false;
  }();
  static constexpr bool hoists = [] {
    if constexpr (callable) return takes_hoisted<U, pack<A>, A>();
    return true;
  }();
  static constexpr bool has_quiet_terms = [] {
    if constexpr (callable && PreReduction<U>) return expect_terms<U, pack<A>, A>();
    return true;
  }();
  static_assert(copyable, "Updater: the rule is not trivially copyable, so it cannot travel to a device");
  static_assert(!copyable || named,
                "Updater: the rule has no list state_names; write: static constexpr auto state_names = "
                "pushpull::states(\"momentum\"), or states() for none. (A policy of another kind says which by its "
                "policy_kind: a reduction by using policy_kind = pushpull::reduction_tag. ema(0.999), lookahead and "
                "learning_rate(schedule) stand behind a rule: adam{} | ema(0.999))");
  static_assert(
      !copyable || !named || callable,
      "Updater: the rule cannot be called as rule(prepared_or_step, w, g, state...) with one V& per name in "
      "state_names: it is const, returns void, takes first what its prepare returned or else the step, then V& w, "
      "V g or V const& g, then each state as V&; a GradientTransform alone is no rule: pipe it into one, as in "
      "rescale(s) | sgd{}");
  static_assert(!copyable || !callable || changes,
                "Updater: the rule takes the weight by value or as const, so it changes nothing: take V& w; a "
                "GradientTransform takes V const& w and V& g");
  static_assert(!copyable || !changes || keeps_states,
                "Updater: the rule takes a state by value or as const, so the state stays as it began: take each state "
                "as V&");
  static_assert(
      !copyable || !changes || !keeps_states || cannot_throw,
      "Updater: the rule's operator may throw amid a pass, where nothing could be undone: write noexcept behind "
      "its const, and behind that of at(number), if what prepare returns has one");
  static_assert(
      !copyable || !changes || !keeps_states || !cannot_throw || hoists,
      "Updater: the rule has a hoist, and no operator takes its result, or that operator takes the weight or a "
      "state by value, or one of the two may throw: write noexcept behind the const of both");
  using type = std::conditional_t<copyable && changes && keeps_states && cannot_throw && has_quiet_terms && hoists, U,
                                  refused_updater>;
};
template <class A>
struct check_updater<no_updater, A> {
  using type = no_updater;
};

template <class... Policies>
struct check_policies {
  static_assert(((HasPolicyKind<Policies> ? is_known_policy<Policies> : true) && ...),
                "store: a policy has an unknown policy_kind");
  static_assert((int(!HasPolicyKind<Policies>) + ... + 0) <= 1,
                "store: more than one Updater among the policies: what has no policy_kind is taken for one");
  static_assert((int(is_kind<Policies, reduction_tag>) + ... + 0) <= 1, "store: more than one Reduction");
  static_assert((int(is_kind<Policies, compressor_tag>) + ... + 0) <= 1, "store: more than one Compressor");
  static_assert((int(is_kind<Policies, communicator_tag>) + ... + 0) <= 1, "store: more than one Communicator");
  static_assert((int(is_kind<Policies, key_tag>) + ... + 0) <= 1, "store: more than one kind of keys");
  static_assert((int(is_kind<Policies, element_tag>) + ... + 0) <= 1, "store: more than one element policy");
  static_assert((int(is_kind<Policies, accumulation_tag>) + ... + 0) <= 1, "store: more than one accumulation policy");
  static_assert((int(is_kind<Policies, placement_tag>) + ... + 0) <= 1, "store: more than one placement policy");
  static_assert((int(is_kind<Policies, state_codec_tag>) + ... + 0) <= 1, "store: more than one list of state_codecs");
  static_assert((int(is_kind<Policies, hierarchy_tag>) + ... + 0) <= 1, "store: more than one hierarchy policy");
  static_assert((int(is_kind<Policies, execution_tag>) + ... + 0) <= 1,
                "store: asynchronous and synchronous exclude each other");
  static constexpr bool value = true;
};

}  // namespace detail
}  // namespace pushpull
