/// @file
/// Parts of a step over some keys of a store, which begin and end one by one: plans of a ResidentStore, or calls of any Store.
#pragma once

#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/step_buckets.hpp>
#include <pushpull/store/wait_at_exit.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Whether the store's type says that a step of some keys does, or does not, depend on the others of the step.
template <class S>
concept KnowsSteps = requires { typename std::bool_constant<S::steps_in_parts>; };

/// Whether a step may be made in parts, as far as types tell: no rule sums over all keys.
template <class S>
inline constexpr bool may_step_in_parts = true;
template <KnowsSteps S>
inline constexpr bool may_step_in_parts<S> = S::steps_in_parts;

/// Whether several ranks train the store together.
template <class S>
bool have_ranks(S const& store) {
  if constexpr (requires { store.owning_ranks().group; }) {
    return store.owning_ranks().group != nullptr;
  } else if constexpr (requires { store.num_workers(); }) {
    return store.num_workers() > 1;
  } else {
    return false;
  }
}

/// The parts of a step over resident keys.
template <ResidentStore S>
class resident_parts {
 public:
  using part_type = typename S::plan_type;

  explicit resident_parts(S& store) : store_(&store) {}
  bool has_ranks() const { return have_ranks(*store_); }
  bool step_in_parts() const {
    if constexpr (KnowsSteps<S>) {
      return S::steps_in_parts;
    } else {
      return false;
    }
  }
  part_type make_part(std::span<std::string const> names) {
    return store_->make_plan(std::span<typename S::key_type const>(names));
  }
  void update(part_type& part) { store_->update(part); }
  void start(part_type& part, [[maybe_unused]] std::size_t urgency) {
    if constexpr (requires { store_->start(part, priority{}); }) {
      store_->start(part, priority{std::numeric_limits<int>::max() - static_cast<int>(urgency)});
    } else {
      store_->update(part);
    }
  }
  void finish([[maybe_unused]] part_type& part) {
    if constexpr (requires { store_->finish(part); }) store_->finish(part);
  }

 private:
  S* store_;
};

/// The sources and outputs of keys, of which a part of a step is one call of a store that takes lists, else one per key.
template <Store S>
struct listed_keys_of {
  using T = typename S::value_type;
  using D = typename S::device_type;
  using gradients_list = std::vector<std::vector<tensor_view<T const, D>>>;
  using outputs_list = std::vector<std::vector<tensor_view<T, D>>>;
  static constexpr bool takes_lists =
      requires(S& store, std::vector<std::string> const& names, std::vector<tensor_view<T const, D>> const& values,
               gradients_list const& gradients, outputs_list const& mirrors) {
        store.broadcast(names, values, mirrors);
        store.pushpull(names, gradients, mirrors);
      };

  std::vector<std::string> names;
  gradients_list gradients;
  outputs_list mirrors;
};

/// The parts of a step over keys whose mirrors and gradients lie outside of the store.
/// @tparam Memory  Has list(names) -> listed_keys_of<S>.
template <Store S, class Memory>
class listed_parts {
  using D = typename S::device_type;
  using keys_type = listed_keys_of<S>;

 public:
  struct part_type {
    keys_type keys;
    completion work;  ///< Of a store that returns such.
  };

  listed_parts(S& store, Memory& memory) : store_(&store), memory_(&memory) {}
  bool has_ranks() const { return have_ranks(*store_); }
  bool step_in_parts() const {
    if constexpr (KnowsSteps<S>) {
      return S::steps_in_parts;
    } else if constexpr (requires { bool(store_->steps_in_parts()); }) {
      return store_->steps_in_parts();
    } else {
      return !keys_type::takes_lists;  // else the store knows alone
    }
  }
  part_type make_part(std::span<std::string const> names) { return {memory_->list(names), {}}; }
  void update(part_type& part) {
    start(part, 0);
    finish(part);
  }
  void start(part_type& part, std::size_t urgency) {
    keys_type& keys = part.keys;
    priority const when{std::numeric_limits<int>::max() - static_cast<int>(urgency)};
    if constexpr (keys_type::takes_lists) {
      part.work = pushed(keys.names, keys.gradients, keys.mirrors, when);
    } else {
      try {
        for (std::size_t i = 0; i < keys.names.size(); ++i)
          pushed(keys.names[i], keys.gradients[i], keys.mirrors[i], when);
      } catch (...) {
        wait_at_exit const finished(*store_);  // earlier calls use the memory
        throw;
      }
    }
  }
  void finish(part_type& part) {
    if constexpr (HostDevice<D>) {
      if constexpr (keys_type::takes_lists && returns_completion) {
        part.work.wait();
      } else {
        store_->wait();
      }
    }
  }

 private:
  template <class Keys, class Gradients, class Outputs>
  completion pushed(Keys const& keys, Gradients const& gradients, Outputs const& outputs, priority when) {
    auto const push = [&] {
      if constexpr (requires { store_->pushpull(keys, gradients, outputs, when); }) {
        return store_->pushpull(keys, gradients, outputs, when);
      } else {
        return store_->pushpull(keys, gradients, outputs);
      }
    };
    if constexpr (std::same_as<decltype(push()), completion>) {
      return push();
    } else {
      push();
      return {};
    }
  }
  static constexpr bool returns_completion = requires(S& store, keys_type& keys) {
    { store.pushpull(keys.names, keys.gradients, keys.mirrors) } -> std::same_as<completion>;
  };

  S* store_;
  Memory* memory_;
};

}  // namespace pushpull::detail
