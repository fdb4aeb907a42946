/// @file
/// The arrays of one step, laid out as the stores lay them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace pushpull::bench {

/// The same arrays as a user has them without a library: a vector each.
template <class T>
struct vectors {
  std::vector<std::vector<T>> gradient, mirror;
  std::vector<std::vector<float>> state;
  std::vector<float> weight;

  vectors(std::int64_t n, std::size_t gradients, std::size_t mirrors, std::size_t states)
      : gradient(gradients, std::vector<T>(static_cast<std::size_t>(n), convert<T>(0.01F))),
        mirror(mirrors, std::vector<T>(static_cast<std::size_t>(n))),
        state(states, std::vector<float>(static_cast<std::size_t>(n))),
        weight(static_cast<std::size_t>(n), 1.0F) {}
};

/// K gradients and R mirrors of `T`, weight, states and a scratch array of float. `size` is a multiple of the padding.
template <class T>
struct operands {
  std::int64_t size;
  std::vector<T const*> gradient;
  std::vector<T*> mirror;
  std::vector<float*> state;
  float* weight;
  float* scratch;

  operands(cpu_device<> const& device, std::int64_t n, std::size_t gradients, std::size_t mirrors, std::size_t states)
      : size(n), arrays_(device, bytes(n, gradients, mirrors, states), 0) {
    std::size_t next = 0;
    auto const array = [&]<class U>(U value) {
      U* const p = arrays_.template array<U>(next++);
      for (std::int64_t i = 0; i < n; ++i) p[i] = value;
      return p;
    };
    for (std::size_t k = 0; k < gradients; ++k) gradient.push_back(array(convert<T>(0.01F)));
    for (std::size_t r = 0; r < mirrors; ++r) mirror.push_back(array(convert<T>(0.0F)));
    weight = array(1.0F);
    scratch = array(0.01F);
    for (std::size_t s = 0; s < states; ++s) state.push_back(array(0.0F));
  }

  /// What a step has to move: every operand once, weight and states in both directions.
  double bytes_moved() const {
    std::size_t const per_element =
        (gradient.size() + mirror.size()) * sizeof(T) + (1 + state.size()) * 2 * sizeof(float);
    return static_cast<double>(per_element) * static_cast<double>(size);
  }

 private:
  static std::vector<std::size_t> bytes(std::int64_t n, std::size_t gradients, std::size_t mirrors,
                                        std::size_t states) {
    auto const elements = static_cast<std::size_t>(n);
    std::vector<std::size_t> result(gradients + mirrors, elements * sizeof(T));
    result.insert(result.end(), 2 + states, elements * sizeof(float));
    return result;
  }

  detail::staggered_arrays<cpu_device<>> arrays_;
};

}  // namespace pushpull::bench
