/// @file
/// The tensors that a call of a store takes, as concepts of the store's traits, and the arguments of one call.
#pragma once

#include <concepts>
#include <ranges>
#include <type_traits>

#include <pushpull/config.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Tensors whose element type keys of the store may have. @tparam Store  The traits of a store: see store_face.
template <class R, class Store>
concept HeldBy = Store::template has_type<element_in<R>>;

/// Tensors that the store reaches, and that are still there when a call of it returns.
template <class R, class Store>
concept OutlivesCallOf = OutlivesCall<R, Store::is_synchronous, typename Store::device_type>;
template <class R, class Store>
concept RowsOutliveCallOf = RowsOutliveCall<R, Store::is_synchronous, typename Store::device_type>;

/// The gradients of one key.
template <class R, class Store>
concept GradientsFor = HeldBy<R, Store> && TensorsOf<R, element_in<R>> && OutlivesCallOf<R, Store>;
/// The gradients of each key of a list.
template <class R, class Store>
concept GradientListFor = HeldBy<R, Store> && TensorListOf<R, element_in<R>> && OutlivesCallOf<R, Store>;

/// Outputs of one key, or of each key of a list.
template <class R, class Store>
concept OutputsFor = OutputTensors<R> && OutlivesCallOf<R, Store>;
template <class R, class Store>
concept OutputListFor = OutputTensorList<R> && OutlivesCallOf<R, Store>;

/// Outputs of the element type of the gradients `G`.
template <class R, class G, class Store>
concept OutputsLike = OutputsFor<R, Store> && TensorsOf<R, element_in<G>>;
template <class R, class G, class Store>
concept OutputListLike = OutputListFor<R, Store> && TensorListOf<R, element_in<G>>;

/// Row-sparse gradients of one key, or of each key of a list.
template <class R, class Store>
concept RowsFor = HeldBy<R, Store> && RowSparseTensorsOf<R, element_in<R>> && RowsOutliveCallOf<R, Store>;
template <class R, class Store>
concept RowListFor = HeldBy<R, Store> && RowSparseListOf<R, element_in<R>> && RowsOutliveCallOf<R, Store>;

/// The outputs of row_sparse_pull of one key.
template <class R, class Store>
concept RowOutputsFor = HeldBy<R, Store> && RowSparseOutputs<R, element_in<R>, typename Store::device_type>;

/// The initial values of a list of keys.
template <class R>
concept ValueList = std::ranges::input_range<R> && LastingTensorLike<std::ranges::range_reference_t<R>>;

/// A key, or a list of keys, and the sources and outputs that came with it.
/// @tparam Sources, Outputs  `no_tensors`, or `no_list` for a list of keys, if the call takes none.
template <bool Listed, class Keys, class Sources, class Outputs>
struct call_arguments {
  static constexpr bool is_list = Listed;
  static constexpr bool has_sources =
      !std::same_as<std::remove_const_t<Sources>, no_tensors> && !std::same_as<std::remove_const_t<Sources>, no_list>;

  char const* caller;  ///< The name of the call, for messages.
  Keys& keys;
  Sources& sources;
  Outputs& outputs;
  char const* word = "gradient";  ///< For one of the sources.

  /// Adds all of them to a draft of a call.
  template <class Draft>
  void add_to(Draft& draft) const {
    if constexpr (Listed) {
      draft.lists.add_list(keys, sources, outputs, word);
    } else {
      draft.lists.add(keys, sources, outputs);
    }
  }
};

inline constexpr no_tensors none_given;

/// The arguments of a call on one key.
template <class Key, class Sources, class Outputs>
call_arguments<false, Key const, Sources, Outputs> with_key(char const* caller, Key const& key, Sources& sources,
                                                            Outputs& outputs) {
  return {caller, key, sources, outputs};
}
/// The arguments of a call on a list of keys.
template <class Keys, class Sources, class Outputs>
call_arguments<true, Keys, Sources, Outputs> with_list(char const* caller, Keys& keys, Sources& sources,
                                                       Outputs& outputs, char const* word = "gradient") {
  return {caller, keys, sources, outputs, word};
}

}  // namespace pushpull::detail
