/// @file
/// The parameters, gradients and auxiliary states of all replicas.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/reduce/mean.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/executor_factory.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// A named tensor per device, of a list of parameters or of auxiliary states.
template <ElementType T, Device D>
struct named_arrays {
  std::vector<std::string> names{};
  std::vector<std::vector<tensor_view<T, D>>> views{};  ///< [name][device]
  std::vector<std::vector<tensor<T, D>>> owned{};       ///< [name][device], unless a store owns them

  /// The place of a name, or that many names if there is none.
  std::size_t find(std::string_view name) const {
    return static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
  }
  /// The places of names with these shapes. @returns whether all are there
  bool find_all(std::vector<std::string> const& wanted, std::vector<shape> const& shapes,
                std::vector<std::size_t>& index) const {
    index.clear();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      index.push_back(find(wanted[i]));
      if (index.back() == names.size() || !(views[index.back()][0].shape() == shapes[i])) return false;
    }
    return true;
  }
  /// Zeros of these shapes on all devices.
  void allocate(std::vector<std::string> const& their_names, std::vector<shape> const& shapes,
                std::vector<D> const& devices) {
    names = their_names;
    for (shape const& extents : shapes) {
      auto& own = owned.emplace_back();
      auto& view = views.emplace_back();
      for (D const& device : devices) view.push_back(own.emplace_back(device, extents).view());
    }
  }
};

/// The memory of all replicas of a model, which the groups of several buckets share.
template <ElementType T, Device D>
struct parameter_arrays {
  named_arrays<T, D> params{}, aux{};
  /// Of the parameters in their order; of one that has no gradient an empty list.
  named_arrays<T, D> grads{};
  std::uint64_t version = 0;  ///< Counts moves of the memory: executors that were made before are made again.
  bool identical = true;      ///< The parameters have the same values on all devices.
  bool zero_first = false;    ///< The next backward overwrites gradients that it would add to.
  std::vector<char> fresh{};  ///< Of each parameter: whether a backward since the last step computed its gradient.
  /// [state][device]: whether a training pass of the device may have written it since all devices got one value.
  std::vector<std::vector<char>> written_aux{};
  std::vector<char> sums{};  ///< Of each parameter: whether its gradient is a sum that only zero_grad ends.

  /// A backward pass of the parameters of an index begins, with these requests. Gradients that earlier passes of other buckets
  /// wrote belong to no step any more; those that passes add to stay, unless zero_grad has ended their sums.
  void begin_backward(std::vector<std::size_t> const& index, std::vector<grad_request> const& requests) {
    fresh.resize(params.views.size());
    sums.resize(params.views.size());
    for (std::size_t i = 0; i < index.size(); ++i)
      if (requests[i] == grad_request::add) sums[index[i]] = 1;
    for (std::size_t i = 0; i < fresh.size(); ++i) {
      if (sums[i] != 0 && zero_first) {
        for (auto const& view : grads.views[i]) view.device().fill_zero(view.data(), view.size() * sizeof(T));
        sums[i] = 0;
      }
      if (sums[i] == 0) fresh[i] = 0;
    }
    zero_first = false;
    for (std::size_t i = 0; i < index.size(); ++i) {
      if (requests[i] == grad_request::none) continue;
      fresh[index[i]] = 1;
      sums[index[i]] = requests[i] == grad_request::add ? 1 : 0;
    }
  }
  /// A training pass of device k may write the auxiliary states of an index.
  void mark_aux(std::vector<std::size_t> const& index, std::size_t k) {
    written_aux.resize(aux.views.size());
    for (std::size_t const i : index) {
      written_aux[i].resize(aux.views[i].size());
      written_aux[i][k] = 1;
    }
  }
  /// Auxiliary state i on the devices that may have written it; on all, whose values are the same, if none has.
  std::vector<tensor_view<T, D>> current_aux(std::size_t i) const {
    std::vector<tensor_view<T, D>> result;
    for (std::size_t k = 0; i < written_aux.size() && k < written_aux[i].size(); ++k)
      if (written_aux[i][k] != 0) result.push_back(aux.views[i][k]);
    return result.empty() ? aux.views[i] : result;
  }
  /// Gives gradients to the parameters of an index that have none and whose request is not `none`. @returns their places
  std::vector<std::size_t> require_gradients(std::vector<std::size_t> const& index,
                                             std::vector<grad_request> const& requests) {
    grads.views.resize(params.views.size());
    grads.owned.resize(params.views.size());
    std::vector<std::size_t> added;
    for (std::size_t n = 0; n < index.size(); ++n) {
      std::size_t const i = index[n];
      if (requests[n] == grad_request::none || !grads.views[i].empty()) continue;
      added.push_back(i);
      for (auto const& view : params.views[i])
        grads.views[i].push_back(grads.owned[i].emplace_back(view.device(), view.shape()).view());
    }
    return added;
  }
  /// Takes the gradients of these places away.
  void drop_gradients(std::vector<std::size_t> const& places) {
    for (std::size_t const i : places) {
      grads.views[i].clear();
      grads.owned[i].clear();
    }
  }
};

/// The mean of a tensor's values on several devices, in device order in the accumulation type, in host memory.
template <class T, Device D>
auto mean_over(std::vector<tensor_view<T, D>> const& devices) {
  using element = std::remove_const_t<T>;
  std::vector<std::vector<element>> values;
  std::vector<element const*> sources;
  for (auto const& view : devices) sources.push_back(values.emplace_back(to_vector(view)).data());
  std::vector<accumulation_t<element>> mean(devices.empty() ? 0 : devices.front().size());
  if (!mean.empty())
    pushpull::detail::reduce_on<reduce::mean>(cpu_device<>(), std::span<element const* const>(sources), mean.data(),
                                              mean.size());
  return mean;
}

}  // namespace pushpull::train
