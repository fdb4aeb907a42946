/// @file
/// The policy of a store whose rule's states are codes.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/state_codec.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// States of the rule are stored as codes of 8 or 4 bits with one scale for `Block` elements; see `codec`. The pass decodes and
/// encodes them: `state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>` makes Adam's step move
/// 16.06 bytes per float parameter, not 28. A codec without a name is that of all states that no name claims; without such a
/// one these are not encoded. `state` gives decoded elements and `set_state` encodes them, so checkpoints are those of the
/// same rule without codecs. Keys take whole blocks. In stores that compute in float, for rules that are not Factored.
/// @tparam Block   64, 128, 256, 512 or 1024.
/// @tparam Codecs  Codecs of namespace codec, each at most once in codec::of.
template <std::int64_t Block, class... Codecs>
struct state_codecs {
  using policy_kind = state_codec_tag;
  static_assert(Block == 64 || Block == 128 || Block == 256 || Block == 512 || Block == 1024,
                "state_codecs: a block of 64, 128, 256, 512 or 1024 elements");
};

/// States are stored as elements: the default.
struct plain_states {
  using policy_kind = state_codec_tag;
};

namespace detail {

template <class C>
concept NamedCodec = requires {
  C::name.text;
  typename C::codec;
};

template <class C>
inline constexpr std::string_view codec_name = "";
template <NamedCodec C>
inline constexpr std::string_view codec_name<C> = {C::name.text, sizeof(C::name.text) - 1};
template <class C>
struct codec_type {
  using type = C;
};
template <NamedCodec C>
struct codec_type<C> {
  using type = typename C::codec;
};

/// The codec of the state called `Rule::state_names[S]`: that with its name, else the one without a name, else none.
template <class Rule, std::size_t S, class... Codecs>
constexpr auto choose_codec() {
  constexpr std::string_view state = Rule::state_names[S];
  constexpr std::size_t count = sizeof...(Codecs);
  constexpr std::array<std::string_view, count> names{codec_name<Codecs>...};
  constexpr std::size_t chosen = [&] {
    std::size_t unnamed = count;
    for (std::size_t i = 0; i < count; ++i) {
      if (names[i] == state) return i;
      if (names[i].empty()) unnamed = i;
    }
    return unnamed;
  }();
  return std::tuple_element<chosen, std::tuple<typename codec_type<Codecs>::type..., codec::none>>{};
}

/// The type of the states of `Rule`, which are of type `S` where they are not codes.
template <class Policy, class Rule, class S>
struct stored_states {
  using type = S;
};
template <std::int64_t Block, class... Codecs, class Rule, class S>
  requires(Rule::state_names.size() > 0)
struct stored_states<state_codecs<Block, Codecs...>, Rule, S> {
  static constexpr auto has_name = [](std::string_view name) {
    if (name.empty()) return true;
    for (std::string_view const state : Rule::state_names)
      if (state == name) return true;
    return false;
  };
  static_assert(((StateCodec<typename codec_type<Codecs>::type> ||
                  std::same_as<typename codec_type<Codecs>::type, codec::none>) &&
                 ...),
                "state_codecs: a codec of namespace codec expected, or codec::of<\"state\", codec>");
  static_assert((int(codec_name<Codecs>.empty()) + ... + 0) <= 1, "state_codecs: more than one codec without a name");
  static constexpr bool different = [] {
    std::array<std::string_view, sizeof...(Codecs)> const names{codec_name<Codecs>...};
    for (std::size_t i = 0; i < names.size(); ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (!names[i].empty() && names[i] == names[j]) return false;
    return true;
  }();
  static_assert(different, "state_codecs: two codecs for one state");
  static_assert((has_name(codec_name<Codecs>) && ...),
                "state_codecs: the rule has no state of this name; its names are in its state_names");

  template <class Indices>
  struct list;
  template <std::size_t... I>
  struct list<std::index_sequence<I...>> {
    using type = coded_states<Block, typename decltype(choose_codec<Rule, I, Codecs...>())::type...>;
  };
  using type = typename list<std::make_index_sequence<Rule::state_names.size()>>::type;
};

}  // namespace detail
}  // namespace pushpull
