/// @file
/// Local SGD and DiLoCo: workers train alone, and now and then a rule of the store takes the differences of their weights.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/sgd.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The outer steps of local SGD (Stich 2019) and DiLoCo (Douillard et al. 2023). A worker makes `every` inner steps on weights of
/// its own, by any rule. Then the differences, weights of the last outer step minus its own, are pushed as gradients to an outer
/// store, whose new weights replace the worker's. The store reduces them by the mean over workers: a server in rounds, or a store
/// over ranks, with reduce::mean. With the rule `update::sgd{1}` that is local SGD, whose weights are averaged; with
/// `update::nesterov{.learning_rate = 0.7, .momentum = 0.9}` DiLoCo. An asynchronous server takes each worker's difference when
/// it comes.
///
///     outer_steps outer(store, 100);
///     outer.add("fc1.weight", weight);  // stays where it is
///     for (...) { inner_step(); outer.step(); }
/// @tparam S  The outer Store, borrowed. Memory: two copies of the weights.
template <Store S>
class outer_steps {
  using T = typename S::value_type;
  using D = typename S::device_type;
  using key = typename S::key_type;

 public:
  /// @throws invalid_argument if `every` is 0
  outer_steps(S& store, std::size_t every)
      : store_(store), every_(every), differences_({store.devices().front()}, update::sgd{.learning_rate = 1}) {
    detail::expects<invalid_argument>(
        every > 0, [] { return std::string("outer_steps: at least 1 inner step for each outer one expected, got 0"); });
  }

  /// Makes a key of the outer store of weights, which become those of the store: of the first worker. They are borrowed.
  /// @throws as the store's broadcast
  void add(key const& name, tensor_view<T, D> const& weights) {
    std::vector<tensor_view<T, D>> const outputs{weights};
    store_.broadcast(name, tensor_view<T const, D>(weights), outputs);
    store_.wait();
    differences_.init(static_cast<std::int64_t>(parts_.size()), weights);
    parts_.push_back({name, weights, tensor<T, D>(weights.device(), weights.shape())});
  }
  template <TensorLike V>
    requires(!std::same_as<std::remove_cvref_t<V>, tensor_view<T, D>> && std::is_lvalue_reference_v<V>)
  void add(key const& name, V&& weights) {
    auto const view = view_of(weights);
    add(name, tensor_view<T, D>(view.data(), view.shape(), store_.devices().front()));
  }

  /// An inner step was made. @returns whether an outer step followed it; then the weights are the new ones of the store
  /// @throws what the store throws
  bool step() {
    if (++inner_ % every_ != 0) return false;
    outer_step();
    return true;
  }
  /// An outer step now. After an error the next one counts from the worker's present weights. @throws what the store throws
  void outer_step() {
    try {
      for (std::size_t i = 0; i < parts_.size(); ++i) {
        part& p = parts_[i];
        // The value was the weights of the last outer step: w - 1 * own weights.
        differences_.pushpull(static_cast<std::int64_t>(i), p.weights, p.difference);
        std::vector<tensor_view<T const, D>> const gradients{std::as_const(p.difference).view()};
        std::vector<tensor_view<T, D>> const outputs{p.weights};
        store_.pushpull(p.name, gradients, outputs);
      }
      store_.wait();
    } catch (...) {
      restart();
      throw;
    }
    restart();
  }

 private:
  struct part {
    key name;
    tensor_view<T, D> weights;
    tensor<T, D> difference;
  };

  /// The next differences count from the present weights.
  void restart() {
    for (std::size_t i = 0; i < parts_.size(); ++i)
      differences_.assign(static_cast<std::int64_t>(i), parts_[i].weights);
  }

  S& store_;
  std::size_t every_, inner_ = 0;
  kv_store<T, D, update::sgd, integer_keys, synchronous> differences_;
  std::vector<part> parts_;
};

}  // namespace pushpull
