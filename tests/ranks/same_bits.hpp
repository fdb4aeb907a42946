/// @file
/// Trains one store over several ranks, and one of a single process with as many devices, and compares their bits.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace pushpull::test {

using host = cpu_device<>;

/// Sizes that are 0, 1, prime, of a few leaves of the norms' trees, and not multiples of a SIMD width.
inline std::vector<std::size_t> sizes_of_keys() { return {5, 1031, 1, 0, 4099, 64, 2048, 17}; }

/// The bits of any tensor's elements.
template <class T>
std::vector<std::uint64_t> bits_of(std::vector<T> const& elements) {
  std::vector<std::uint64_t> result(elements.size());
  for (std::size_t i = 0; i < elements.size(); ++i) std::memcpy(&result[i], &elements[i], sizeof(T));
  return result;
}

/// The gradient of a source in a step: the same whoever asks.
template <class T>
std::vector<T> gradient_of(std::size_t key, std::size_t step, std::size_t source, std::size_t size) {
  std::mt19937 random(static_cast<unsigned>(1 + key + 100 * step + 10000 * source));
  std::normal_distribution<float> normal;
  std::vector<T> result(size);
  for (T& x : result) x = static_cast<T>(normal(random));
  return result;
}
template <class T>
std::vector<T> initial_value(std::size_t key, std::size_t size) {
  return gradient_of<T>(key, 999, 0, size);
}

/// One rank's share of a job: sources [first, first + count) of each key.
struct share {
  std::size_t first, count;
};

/// A step of all keys, whose outputs become the new weights.
inline constexpr auto push_and_pull = [](auto& store, std::size_t, auto const& keys, auto const& gradients,
                                         auto& outputs) { store.pushpull(keys, gradients, outputs).wait(); };

/// Calls f(store, step, keys, gradients, outputs) for each step, and returns the outputs of each and, last, the weights of
/// all keys.
template <class T, class Store, class Step>
std::vector<std::vector<std::uint64_t>> train(Store& store, share const& own, std::size_t steps, Step const& f,
                                              key_options options = {}) {
  auto const sizes = sizes_of_keys();
  std::vector<std::string> keys;
  std::vector<std::vector<T>> values;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    keys.push_back("key " + std::to_string(i));
    values.push_back(initial_value<T>(i, sizes[i]));
    if (own.first != 0)  // the value of rank 0 counts
      for (T& x : values.back()) x = static_cast<T>(7);
  }
  store.init(keys, values, options);
  std::vector<std::vector<T>> outputs;
  for (std::size_t const size : sizes) outputs.emplace_back(size, T(0));
  std::vector<std::vector<std::uint64_t>> result;
  auto const keep = [&] {
    for (auto const& output : outputs) result.push_back(bits_of(output));
  };
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<std::vector<std::vector<T>>> gradients(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
      for (std::size_t k = own.first; k < own.first + own.count; ++k)
        gradients[i].push_back(gradient_of<T>(i, step, k, sizes[i]));
    f(store, step, keys, gradients, outputs);
    store.wait();
    keep();
  }
  store.pull(keys, outputs).wait();
  keep();
  return result;
}

/// f(options) for ranks that exchange all by messages, and for ranks that share memory; of several nodes, if asked for.
template <class F>
void for_each_reach(int ranks, F const& f, bool with_nodes = true) {
  for (int on_a_node = 1; on_a_node <= ranks; ++on_a_node) {
    if (ranks % on_a_node != 0 || (!with_nodes && on_a_node != 1 && on_a_node != ranks)) continue;
    CAPTURE(on_a_node);
    f(comm::threads_options{.deadline = std::chrono::seconds(20), .ranks_per_node = on_a_node});
  }
}

/// The communicator of one process: comm::single, or that of ranks, so that a store of both is compiled once.
template <class C>
C alone() {
  if constexpr (std::same_as<C, comm::threads>)
    return comm::threads::make(1).front();
  else
    return C();
}

/// @tparam Alone   The communicator of the one process.
/// @param make     make(devices, communicator) -> a store.
/// @param of_keys  On several ranks.
template <class T, class Alone = comm::threads, class Make, class Step>
void require_same_bits(int ranks, std::size_t devices, std::size_t steps, Make const& make, Step const& step,
                       key_options of_keys = {}) {
  CAPTURE(ranks, devices, of_keys.mirrored);
  std::size_t const all = static_cast<std::size_t>(ranks) * devices;
  auto of_one = make(cpu_devices(static_cast<int>(all)), alone<Alone>());
  auto const expected = train<T>(of_one, {0, all}, steps, step);
  for_each_reach(ranks, [&](comm::threads_options const& options) {
    std::vector<std::vector<std::vector<std::uint64_t>>> found(static_cast<std::size_t>(ranks));
    comm::run_ranks(ranks, options, [&](comm::threads const& c) {
      auto store = make(cpu_devices(static_cast<int>(devices)), c);
      auto const rank = static_cast<std::size_t>(c.rank());
      found[rank] = train<T>(store, {rank * devices, devices}, steps, step, of_keys);
    });
    for (auto const& weights : found)
      for (std::size_t i = 0; i < weights.size(); ++i) {
        CAPTURE(i);
        REQUIRE(weights[i] == expected[i]);
      }
  });
}

}  // namespace pushpull::test
