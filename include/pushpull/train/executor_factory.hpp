/// @file
/// The concepts of a model's facts and of what makes its executors.
#pragma once

#include <concepts>
#include <cstddef>
#include <ranges>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/buffer_pool.hpp>
#include <pushpull/train/executor.hpp>
#include <pushpull/train/grad_request.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

template <class R>
concept Names = std::ranges::input_range<R> && std::constructible_from<std::string, std::ranges::range_reference_t<R>>;

}  // namespace detail

namespace train {

/// The shapes of parameters and auxiliary states, in the order of their names.
struct inferred_shapes {
  std::vector<shape> params{}, aux{};
};

/// The facts of a model that do not depend on a device.
/// Needs:  param_names(), aux_names(), output_names() -> ranges of text, in an order that stays;
///         output_axis(i) -> the axis of the samples in output i, -1 if all devices compute the same output;
///         infer_shapes(descs) -> inferred_shapes for these data and labels; throws shape_mismatch if they do not fit. The
///         shapes of parameters do not depend on the number of samples.
/// May have: input_names(), label_names(): data of other names are refused, labels of other names give a warning.
template <class M>
concept ModelSpec = requires(M const& m, std::size_t i, input_descriptors const& descs) {
  { m.param_names() } -> pushpull::detail::Names;
  { m.aux_names() } -> pushpull::detail::Names;
  { m.output_names() } -> pushpull::detail::Names;
  { m.output_axis(i) } -> std::convertible_to<int>;
  { m.infer_shapes(descs) } -> std::convertible_to<inferred_shapes>;
};

/// Memory for the parameters, the gradients and the auxiliary states of one replica, which an executor uses and does not own.
/// A gradient that was not requested is an empty view.
template <ElementType T, Device D>
struct replica_memory {
  std::vector<tensor_view<T, D>> params{}, grads{}, aux{};
};

/// A ModelSpec that makes executors.
/// Needs:  executor_type: an Executor;
///         make(device, descs, requests, pool, memory) -> executor_type. `descs` has the shapes of this replica's data and
///         labels. The memory of inputs, labels and their gradients should come from the pool, by the names of the
///         descriptors and "grad of <name>": then the executors of a device share it. Its params(), grads() and aux() are the views of `memory`.
/// A group makes executors again when their memory moves, so all that is to stay belongs in parameters, aux and states.
template <class F>
concept ExecutorFactory =
    ModelSpec<F> && Executor<typename F::executor_type> &&
    requires(F& f, typename F::executor_type::device_type const& device, input_descriptors const& descs,
             replica_requests const& requests, buffer_pool<typename F::executor_type::device_type>& pool,
             replica_memory<param_element<typename F::executor_type>, typename F::executor_type::device_type> const&
                 memory) {
      { f.make(device, descs, requests, pool, memory) } -> std::same_as<typename F::executor_type>;
    };

}  // namespace train
}  // namespace pushpull
