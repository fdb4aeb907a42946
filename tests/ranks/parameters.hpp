/// @file
/// Trains resident parameters: the ranks' shares of a job, or all of it in one process.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "ranks/same_bits.hpp"

namespace pushpull::test {

/// A job's devices, of which each brings the sum of `summed` sources. Of several micro-batches it is that of `summed` ranks of
/// `of_rank` devices, which add up their own micro-batches first.
struct parameter_job {
  std::size_t steps = 6, micro_batches = 1, summed = 1, of_rank = 1;
};

/// The sum of sources, one after the other.
inline std::vector<float> summed_gradient(std::size_t key, std::size_t step, std::size_t first, std::size_t count,
                                          std::size_t size) {
  auto sum = gradient_of<float>(key, step, first, size);
  for (std::size_t k = 1; k < count; ++k) {
    auto const next = gradient_of<float>(key, step, first + k, size);
    for (std::size_t i = 0; i < size; ++i) sum[i] += next[i];
  }
  return sum;
}

/// The sum of the ranks that a device stands for, over all micro-batches of the step that ends with number `step`.
inline std::vector<float> sum_of_ranks(std::size_t key, std::size_t step, std::size_t device, parameter_job const& of,
                                       std::size_t size) {
  std::size_t const begin = step == 0 ? 0 : step - of.micro_batches + 1;
  std::vector<float> total(size);
  for (std::size_t r = 0; r < of.summed; ++r) {
    std::vector<float> sum(size);
    for (std::size_t batch = begin; batch <= step; ++batch) {
      auto const next = summed_gradient(key, batch, (device * of.summed + r) * of.of_rank, of.of_rank, size);
      for (std::size_t i = 0; i < size; ++i) sum[i] = batch == begin ? next[i] : next[i] + sum[i];
    }
    for (std::size_t i = 0; i < size; ++i) total[i] = r == 0 ? sum[i] : total[i] + sum[i];
  }
  return total;
}

/// The weights of each rank's first and last device after all steps.
template <class Store>
std::vector<std::vector<std::uint64_t>> train_parameters(Store& store, share const& own, parameter_job const& of) {
  parameter_store parameters{store};
  auto const sizes = sizes_of_keys();
  auto const name = [](std::size_t i) { return "parameter " + std::to_string(i); };
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    auto value = initial_value<float>(i, sizes[i]);
    if (own.first != 0) std::fill(value.begin(), value.end(), 7.0F);
    parameters.add(name(i), value, {.requires_grad = i != 3});
  }
  constexpr bool accumulates = requires { parameters.accumulate_all(); };
  for (std::size_t step = 0; step < of.steps; ++step) {
    bool const waits = step % of.micro_batches != 0, in_sums = !accumulates && of.micro_batches > 1;
    if (in_sums && waits) continue;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (i == 3) continue;
      for (std::size_t n = 0; n < own.count; ++n) {
        auto const gradient = in_sums ? sum_of_ranks(i, step, own.first + n, of, sizes[i])
                                      : summed_gradient(i, step, (own.first + n) * of.summed, of.summed, sizes[i]);
        std::copy(gradient.begin(), gradient.end(), parameters.grad(name(i), n).data());
      }
    }
    if constexpr (accumulates)
      if (waits) {
        parameters.accumulate_all();
        continue;
      }
    parameters.update_all();
  }
  std::vector<std::vector<std::uint64_t>> result;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (std::size_t n : {std::size_t{0}, own.count - 1})
      result.push_back(bits_of(to_vector(parameters.value(name(i), n))));
  return result;
}

}  // namespace pushpull::test
