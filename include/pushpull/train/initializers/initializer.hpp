/// @file
/// The concept of an initializer, and one of any type.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The parameter that an initializer fills.
struct parameter_target {
  std::string_view name;
  pushpull::shape shape;
  std::uint64_t seed = 0;  ///< of the whole model; random initializers add the name
};

/// Needs:  copies; a const call operator (parameter_target const&, std::span<float> values) that writes all values, row-major.
///         The values should depend on the target alone, so that ranks, devices and runs agree.
/// Models: those of initializers/, `initializer`, and lambdas.
template <class I>
concept Initializer = requires(I const& i, parameter_target const& target, std::span<float> values) {
  { i(target, values) } -> std::same_as<void>;
};

/// An Initializer of any type.
class initializer {
 public:
  template <class I>
    requires(!std::same_as<std::remove_cvref_t<I>, initializer> && Initializer<std::remove_cvref_t<I>>)
  initializer(I&& own) : own_(std::forward<I>(own)) {}

  /// @throws the errors of the initializer
  void operator()(parameter_target const& target, std::span<float> values) const { own_(target, values); }

 private:
  std::function<void(parameter_target const&, std::span<float>)> own_;
};

static_assert(Initializer<initializer>);

}  // namespace pushpull::train
