/// @file
/// The keys and tensors of a call as plain lists, before any key is looked up.
#pragma once

#include <concepts>
#include <cstddef>
#include <deque>
#include <optional>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/schedule/reentrance.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The type that owns what a view of a key refers to.
template <class KeyView>
struct owned_key {
  using type = KeyView;
};
template <>
struct owned_key<std::string_view> {
  using type = std::string;
};
template <>
struct owned_key<any_key_view> {
  using type = any_key;
};

/// Whether views of the keys that a range yields are valid until the call has been looked up.
template <class Keys, class KeyView>
inline constexpr bool yields_lasting_keys =
    std::same_as<typename owned_key<KeyView>::type, KeyView> ||
    std::is_trivially_copyable_v<std::remove_cvref_t<std::ranges::range_reference_t<Keys>>> ||
    (std::is_lvalue_reference_v<std::ranges::range_reference_t<Keys>> && std::ranges::forward_range<Keys>);

/// Keys, and for each its sources and outputs of element type E. Kept from call to call: in the steady state nothing is
/// allocated. Knows no store.
template <class KeyView, Device D, class E>
class gathered_call {
 public:
  /// A tensor: where its elements are, and its shape.
  template <class U>
  struct tensor {
    operand<U, D> memory;
    pushpull::shape shape;
  };
  /// A key, and how many sources and outputs come with it.
  struct entry {
    KeyView key;
    std::size_t sources = 0, outputs = 0;
  };

  /// Forgets the last call. @param caller  The name of the call, for messages.
  void begin(char const* caller) {
    caller_ = caller;
    keys_.clear();
    owned_.clear();
    sources_.clear();
    outputs_.clear();
    has_sources_ = false;
  }

  /// A key with one tensor or a range of tensors of each kind, or none: `no_tensors`.
  template <class Sources, class Outputs>
  void add(KeyView key, Sources&& sources, Outputs&& outputs) {
    keys_.push_back({key});
    if constexpr (!std::same_as<std::remove_cvref_t<Sources>, no_tensors>) {
      has_sources_ = true;
      for_each_tensor(sources, [&](auto const& view) {
        sources_.push_back({operand_of<E const, D>(view), view.shape()});
        ++keys_.back().sources;
      });
    }
    if constexpr (!std::same_as<std::remove_cvref_t<Outputs>, no_tensors>)
      for_each_tensor(outputs, [&](auto const& view) {
        outputs_.push_back({operand_of<E, D>(view), view.shape()});
        ++keys_.back().outputs;
      });
  }
  /// Each key of a list with its tensors, or `none_listed`. @param what  A word for one of the sources.
  /// @throws shape_mismatch if the lists differ in length; invalid_argument if there is no key
  template <class Keys, class Sources, class Outputs>
  void add_list(Keys& keys, Sources&& sources, Outputs&& outputs, char const* what = "gradient") {
    for_each_entry(
        caller_, keys,
        [&](auto&& key, auto const& source, auto const& output) {
          if constexpr (yields_lasting_keys<Keys, KeyView>) {
            add(KeyView(key), *source, *output);
          } else {
            add(KeyView(owned_.emplace_back(KeyView(key))), *source, *output);
          }
        },
        companion<std::remove_reference_t<Sources>>(what, sources),
        companion<std::remove_reference_t<Outputs>>("output", outputs));
  }

  char const* caller() const { return caller_; }
  /// Whether each key has to come with a source.
  bool has_sources() const { return has_sources_; }
  std::vector<entry> const& keys() const { return keys_; }
  /// Those of the first key, of the second, and so on.
  std::vector<tensor<E const>> const& sources() const { return sources_; }
  std::vector<tensor<E>> const& outputs() const { return outputs_; }

 private:
  char const* caller_ = "";
  bool has_sources_ = false;
  std::vector<entry> keys_;
  std::vector<tensor<E const>> sources_;
  std::vector<tensor<E>> outputs_;
  std::deque<typename owned_key<KeyView>::type> owned_;
};

/// A call that is being gathered, and the operation that will run it. Dropped, it leaves no trace. What the call reads
/// meanwhile must not use the store.
template <class KeyView, Device D, class E>
class call_draft {
 public:
  /// Takes over a reference. @param store  Whose call it is.
  /// @throws invalid_argument in what another draft of the store reads
  template <class Operation>
  call_draft(Operation& op, identity const& store) : lists(op.gathered), operation_(op), handle_(op) {
    expect_unread(store);
    reading_.emplace(store);
  }

  gathered_call<KeyView, D, E>& lists;

  /// After the last tensor: the operation, and a reference to it.
  std::pair<gathered_operation<D>*, completion> close() {
    reading_.reset();
    return {&operation_, std::move(handle_)};
  }

 private:
  gathered_operation<D>& operation_;
  completion handle_;
  std::optional<activity> reading_;
};

}  // namespace pushpull::detail
