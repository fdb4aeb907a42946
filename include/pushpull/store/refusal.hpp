/// @file
/// Why a call of a store does not compile: one overload per call takes what no other does, and names the reason.
///
/// It takes part in overload resolution, but cannot be called: whether a store takes some arguments can still be asked with a
/// requires-expression.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/row_sparse_tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

/// reason(name, text) for each reason. One list: the types of g++'s messages and clang's attributes have it from here.
#define PUSHPULL_REASONS(reason)                                                                                       \
  reason(arguments, "the call takes other arguments than these: see docs/stores.md") reason(                           \
      key,                                                                                                             \
      "the key has another kind than the store's: keys are strings, integers with the policy integer_keys, "           \
      "either with any_keys; or a range of such keys")                                                                 \
      reason(tensor, "Tensor: an argument is neither a tensor, a contiguous range of elements, nor a range of these")  \
          reason(element_type, "TensorsOf: a tensor has another element type than the store") reason(                  \
              temporary,                                                                                               \
              "OutlivesCall: a temporary that owns its elements ends before the work does: give a name to it, or "     \
              "the store the policy synchronous") reason(constant, "OutputTensor: an output is const, or a temporary") \
              reason(device,                                                                                           \
                     "Device: a tensor is on a device of another kind than the store's, and not in host "              \
                     "memory") reason(range_of_one_key,                                                                \
                                      "TensorsOf: one key takes a tensor or a range of tensors, no range of ranges")   \
                  reason(range_of_keys,                                                                                \
                         "TensorListOf: a range of keys takes a range that has a tensor, or a range of them, per key") \
                      reason(rows,                                                                                     \
                             "RowSparseTensor: row-sparse tensors came where dense ones are taken: row_sparse_pull "   \
                             "fills them") reason(row_outputs,                                                         \
                                                  "RowSparseOutputs: row_sparse_pull fills row_sparse tensors of the " \
                                                  "store's element type and "                                          \
                                                  "device, which have names")                                          \
                          reason(row_ids,                                                                              \
                                 "RowIds: ids of rows are a tensor of numbers, or a range of as many such tensors as " \
                                 "outputs") reason(accumulation,                                                       \
                                                   "accumulate: the store has no policy accumulate: "                  \
                                                   "kv_store{devices, rule, accumulate{n}}")                           \
                              reason(function,                                                                         \
                                     "set_updater takes f(key, tensor_view<T, D> received, tensor_view<master_type, "  \
                                     "D> stored), for each T of the store, in a store without a rule")                 \
                                  reason(parameter_name,                                                               \
                                         "a parameter's name is expected first: what converts to std::string_view")    \
                                      reason(place,                                                                    \
                                             "Device: a device of the store, or its number, is expected behind the "   \
                                             "parameter's name")                                                       \
                                          reason(pre_reduction,                                                        \
                                                 "the rule is a PreReduction, which sums over the gradients of all "   \
                                                 "parameters, as clip_global_norm does: no step of some of "           \
                                                 "them may begin before all gradients are complete")                   \
                                              reason(rule,                                                             \
                                                     "add_group: the rule has another type than the store's: "         \
                                                     "rules{rule, where(belongs, other_rule)} takes rules of several " \
                                                     "types")

namespace pushpull::inline PUSHPULL_ABI {

/// Text in a type.
template <std::size_t N>
struct reason_text {
  char text[N]{};
  consteval reason_text(char const (&words)[N]) { std::copy_n(words, N, text); }
};

/// The type that g++ shows for a refused call.
template <reason_text Words>
struct refused_because;

namespace detail {

enum class refusal {
  none,
#define PUSHPULL_REASON_NAME(name, text) name,
  PUSHPULL_REASONS(PUSHPULL_REASON_NAME)
#undef PUSHPULL_REASON_NAME
};

template <refusal Reason>
struct refused {};
#define PUSHPULL_REASON_TYPE(name, text) \
  template <>                            \
  struct refused<refusal::name> {        \
    using type = refused_because<text>;  \
  };
PUSHPULL_REASONS(PUSHPULL_REASON_TYPE)
#undef PUSHPULL_REASON_TYPE

/// The role of an argument in a call.
enum class role { value, gradient, output, any_output, row_output, row_ids };

/// The tensor in ranges of ranges of tensors, as an expression, and how deep it lies; -1: nowhere.
template <class R, int Left = 3>
struct tensor_within {
  using type = void;
  static constexpr int depth = -1;
};
template <class R, int Left>
  requires(TensorLike<R> || RowSparseTensor<std::remove_cvref_t<R>>)
struct tensor_within<R, Left> {
  using type = R;
  static constexpr int depth = 0;
};
template <class R, int Left>
  requires(Left > 0 && !TensorLike<R> && !RowSparseTensor<std::remove_cvref_t<R>> && std::ranges::input_range<R>)
struct tensor_within<R, Left> {
  using inner = tensor_within<std::ranges::range_reference_t<R>, Left - 1>;
  using type = typename inner::type;
  static constexpr int depth = inner::depth < 0 ? -1 : inner::depth + 1;
};

template <class Face, class T>
consteval bool holds() {
  if constexpr (requires { requires Face::template has_type<T>; }) {
    return true;
  } else if constexpr (requires { typename Face::value_type; }) {
    return std::same_as<T, typename Face::value_type>;
  } else {
    return false;
  }
}

/// The reason to refuse an argument. @param one  It came with one key, and not with a list of keys.
template <class Face, role Role, class R, bool One>
consteval refusal wrong_with() {
  using within = tensor_within<R>;
  if constexpr (Role == role::row_ids) {
    return within::depth < 0 ? refusal::row_ids : refusal::none;
  } else if constexpr (within::depth < 0) {
    return Role == role::row_output ? refusal::row_outputs : refusal::tensor;
  } else {
    using leaf = typename within::type;
    using element = element_in<leaf>;
    constexpr bool is_rows = RowSparseTensor<std::remove_cvref_t<leaf>>;
    constexpr bool is_output = Role == role::output || Role == role::any_output;
    constexpr bool takes_any_type =
        !is_rows && (Role == role::value || Role == role::any_output) && requires { typename Face::value_type; };
    if constexpr (Role == role::row_output) {
      return std::same_as<leaf, row_sparse<element, typename Face::device_type>&> && holds<Face, element>()
                 ? refusal::none
                 : refusal::row_outputs;
    } else if constexpr (is_rows && is_output) {
      return refusal::rows;
    } else if constexpr (!takes_any_type && !holds<Face, element>()) {
      return refusal::element_type;
    } else if constexpr (!is_in_reach<R, typename Face::device_type>()) {
      return refusal::device;
    } else if constexpr (One && within::depth > (Role == role::value ? 0 : 1)) {
      return refusal::range_of_one_key;
    } else if constexpr (!One && (within::depth == 0 || (Role == role::value && within::depth > 1))) {
      return refusal::range_of_keys;
    } else if constexpr (!is_rows && is_output && !WritableTensorLikeOf<leaf, element>) {
      return refusal::constant;
    } else if constexpr (is_rows) {
      return Face::is_synchronous || rows_last<R>() ? refusal::none : refusal::temporary;
    } else if constexpr (is_output && !OutputTensor<leaf>) {
      return refusal::temporary;
    } else if constexpr (Role == role::value) {
      return One || lasting<leaf>() ? refusal::none : refusal::temporary;
    } else {
      return Face::is_synchronous || lasting<R>() ? refusal::none : refusal::temporary;
    }
  }
}

template <class A>
inline constexpr bool is_option =
    std::same_as<A, priority> || std::same_as<A, row_updates> || std::same_as<A, rule_states>;

/// Of the tensors behind a key.
template <role... Roles>
struct roles {
  static constexpr std::size_t size = sizeof...(Roles);
  template <std::size_t I>
  using at = std::tuple_element_t<I, std::tuple<std::integral_constant<role, Roles>...>>;
};

template <class Face, class Roles, bool One, class... A, std::size_t... I>
consteval refusal first_wrong(std::index_sequence<I...>) {
  refusal result = refusal::none;
  (void)((result = wrong_with<Face, Roles::template at<I>::value, std::tuple_element_t<I, std::tuple<A...>>, One>(),
          result != refusal::none) ||
         ...);
  return result == refusal::none ? refusal::arguments : result;
}

/// The reason for which a store refuses a key and what came with it; none if it is accepted.
template <bool Accepted, class Face, class Roles, class... A>
struct why_refused {
  static constexpr refusal value = Accepted ? refusal::none : refusal::arguments;
};
template <class Face, class Roles, class Key, class... A>
struct why_refused<false, Face, Roles, Key, A...> {
  static constexpr bool one = std::convertible_to<Key, typename Face::key_view>;
  static constexpr std::size_t tensors = (std::size_t{0} + ... + std::size_t{!is_option<std::remove_cvref_t<A>>});
  static constexpr refusal value = [] {
    if constexpr (!one && !KeysOf<Key, typename Face::key_view>) {
      return refusal::key;
    } else if constexpr (tensors == Roles::size) {
      return first_wrong<Face, Roles, one, A...>(std::make_index_sequence<tensors>());
    } else if constexpr (tensors == 1 && std::same_as<Roles, roles<role::gradient, role::output>>) {  // in place
      return first_wrong<Face, roles<role::output>, one, A...>(std::make_index_sequence<1>());
    } else {
      return refusal::arguments;
    }
  }();
};

/// The reason for which a parameter_store on devices D refuses a name and a value, or a name and a device.
template <class D, class Name, class V>
inline constexpr refusal why_no_value = [] {
  if constexpr (!std::convertible_to<Name, std::string_view>)
    return refusal::parameter_name;
  else if constexpr (!TensorLike<V>)
    return refusal::tensor;
  else
    return InReachOf<V, D> ? refusal::none : refusal::device;
}();
template <class D, class Name, class Where>
inline constexpr refusal why_no_place =
    !std::convertible_to<Name, std::string_view>                               ? refusal::parameter_name
    : std::convertible_to<Where, D> || std::convertible_to<Where, std::size_t> ? refusal::none
                                                                               : refusal::place;

/// Ends the declaration of an overload that is never called, with a template parameter `Why`.
#define PUSHPULL_REFUSED PUSHPULL_REASONS(PUSHPULL_DIAGNOSED) PUSHPULL_DELETED

/// Whether a store takes the arguments. Not asked where the overloads below are declared: nvcc cannot mangle that.
template <class Face, class... A>
inline constexpr bool accepts_init = requires(Face& face, A&&... a) { face.init(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_assign = requires(Face& face, A&&... a) { face.assign(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_push = requires(Face& face, A&&... a) { face.push(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_pull = requires(Face& face, A&&... a) { face.pull(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_pushpull = requires(Face& face, A&&... a) { face.pushpull(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_broadcast = requires(Face& face, A&&... a) { face.broadcast(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_accumulate = requires(Face& face, A&&... a) { face.accumulate(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_row_sparse_pull =
    requires(Face& face, A&&... a) { face.row_sparse_pull(static_cast<A&&>(a)...); };

template <class Face, class... A>
inline constexpr bool accepts_swap = requires(Face& face, A&&... a) { face.swap(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_wait = requires(Face const& face, A&&... a) { face.wait(static_cast<A&&>(a)...); };
template <class Face, class... A>
inline constexpr bool accepts_set_updater =
    requires(Face& face, A&&... a) { face.set_updater(static_cast<A&&>(a)...); };

template <class Face, class... A>
inline constexpr bool accepts_add_group = requires(Face& face, A&&... a) { face.add_group(static_cast<A&&>(a)...); };

/// The reason for which add_group refuses a predicate and a rule; none if it is accepted.
template <class Face, class Belongs, class Rule>
inline constexpr refusal why_no_group = accepts_add_group<Face, Belongs, Rule>              ? refusal::none
                                        : std::predicate<Belongs&, typename Face::key_view> ? refusal::rule
                                                                                            : refusal::arguments;

/// The reason for which a call refuses keys; none if it is accepted.
template <bool Accepted, class Face, class Key, class... A>
inline constexpr refusal why_no_key =
    Accepted                                                                                    ? refusal::none
    : std::convertible_to<Key, typename Face::key_view> || KeysOf<Key, typename Face::key_view> ? refusal::arguments
                                                                                                : refusal::key;

/// A store and, for each of its calls, an overload that names the reason where no other takes the arguments.
/// @tparam Face  The store's class without them.
template <class Face>
class explained : public Face {
  template <bool Accepted, class Roles, class... A>
  static constexpr refusal why = why_refused<Accepted, Face, Roles, A...>::value;

 public:
  using Face::assign;
  using Face::broadcast;
  using Face::Face;
  using Face::init;
  using Face::pull;
  using Face::push;
  using Face::pushpull;

  template <class... A, refusal Why = why<accepts_init<Face, A...>, roles<role::value>, A...>,
            class Because = typename refused<Why>::type>
  void init(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = why<accepts_assign<Face, A...>, roles<role::value>, A...>,
            class Because = typename refused<Why>::type>
  void assign(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = why<accepts_push<Face, A...>, roles<role::gradient>, A...>,
            class Because = typename refused<Why>::type>
  completion push(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = why<accepts_pull<Face, A...>, roles<role::any_output>, A...>,
            class Because = typename refused<Why>::type>
  completion pull(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = why<accepts_pushpull<Face, A...>, roles<role::gradient, role::output>, A...>,
            class Because = typename refused<Why>::type>
  completion pushpull(A&&...) PUSHPULL_REFUSED;
  template <class... A, refusal Why = why<accepts_broadcast<Face, A...>, roles<role::value, role::any_output>, A...>,
            class Because = typename refused<Why>::type>
  completion broadcast(A&&...) PUSHPULL_REFUSED;
};

/// Whether the store says that it has not the policy accumulate.
template <class Face>
inline constexpr bool may_not_accumulate = requires { requires !Face::accumulates; };

/// Same as `explained`, but for the calls that not every store has.
template <class Face>
class explained_rows : public explained<Face> {
 public:
  using explained<Face>::explained;
  using Face::accumulate;
  using Face::add_group;
  using Face::row_sparse_pull;
  using Face::set_updater;
  using Face::swap;
  using Face::wait;

  template <class... A,
            refusal Why = may_not_accumulate<Face>
                              ? refusal::accumulation
                              : why_refused<accepts_accumulate<Face, A...>, Face, roles<role::gradient>, A...>::value,
            class Because = typename refused<Why>::type>
  completion accumulate(A&&...) PUSHPULL_REFUSED;
  template <class... A,
            refusal Why = why_refused<accepts_row_sparse_pull<Face, A...>, Face, roles<role::row_output, role::row_ids>,
                                      A...>::value,
            class Because = typename refused<Why>::type>
  completion row_sparse_pull(A&&...) PUSHPULL_REFUSED;

  template <class Key, class... A, refusal Why = why_no_key<accepts_swap<Face, Key, A...>, Face, Key, A...>,
            class Because = typename refused<Why>::type>
  void swap(Key&&, A&&...) PUSHPULL_REFUSED;
  template <class Key, class... A, refusal Why = why_no_key<accepts_wait<Face, Key, A...>, Face, Key, A...>,
            class Because = typename refused<Why>::type>
  void wait(Key&&, A&&...) const PUSHPULL_REFUSED;
  template <class... A, refusal Why = accepts_set_updater<Face, A...> ? refusal::none : refusal::function,
            class Because = typename refused<Why>::type>
  void set_updater(A&&...) PUSHPULL_REFUSED;
  template <class Belongs, class Rule, refusal Why = why_no_group<Face, Belongs, Rule>,
            class Because = typename refused<Why>::type>
  std::size_t add_group(Belongs&&, Rule&&) PUSHPULL_REFUSED;
};

}  // namespace detail
}  // namespace pushpull
