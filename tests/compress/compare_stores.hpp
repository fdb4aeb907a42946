/// @file
/// A store that compresses against one without compression that is given what the codes stand for.
#pragma once

#include <cstddef>
#include <cstring>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace pushpull::test {

/// Equal bits, so that NaN equals itself.
inline bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

/// Gradients of very different magnitudes, many of them equal, some zero; of element type `T`.
template <class T>
std::vector<T> random_gradient(std::mt19937& random, std::size_t size) {
  std::vector<T> gradient(size);
  for (T& x : gradient) {
    auto const mantissa = static_cast<float>(static_cast<int>(random() % 65) - 32);
    x = convert<T>(mantissa * (random() % 3 == 0 ? 0.0001F : (random() % 2 == 0 ? 0.25F : 0.01F)));
  }
  return gradient;
}

template <class T>
std::vector<float> floats(std::vector<T> const& elements) {
  std::vector<float> result;
  for (T const& x : elements) result.push_back(convert<float>(x));
  return result;
}

/// Trains `steps` steps with both stores and requires equal weights after each.
/// @param model  A compressor's reference for one source: push(gradient) returns what a pass is to see of it.
template <class T, class D, class Rule, class Compressor, class Model>
void compare_stores(std::vector<D> const& devices, Rule const& rule, Compressor const& compressor, Model const& model,
                    std::size_t size, std::size_t sources, int steps = 4) {
  INFO(size << " elements from " << sources << " sources on " << devices.size() << " devices");
  kv_store<T, D, Rule, Compressor, element::master<float>> store{devices, rule, compressor};
  kv_store<float, cpu_device<serial_system>, Rule, synchronous> reference{cpu_devices<serial_system>(1), rule};
  // Another key before it, so that slices do not begin where the key does.
  std::vector<std::string> const keys{"a", "w"};
  std::vector<std::vector<float>> const initial{std::vector<float>(1000, 0.5F), std::vector<float>(size, 1.0F)};
  store.init(keys, initial);
  reference.init(keys, initial);
  std::vector<std::vector<Model>> models(2, std::vector<Model>(sources, model));
  std::mt19937 random(static_cast<unsigned>(size * 31 + sources));
  auto got = initial, expected = initial;
  for (int t = 0; t < steps; ++t) {
    std::vector<std::vector<std::vector<T>>> gradients(2);
    std::vector<std::vector<std::vector<float>>> decoded(2);
    for (std::size_t key = 0; key < 2; ++key)
      for (auto& m : models[key]) {
        gradients[key].push_back(random_gradient<T>(random, initial[key].size()));
        decoded[key].push_back(m.push(floats(gradients[key].back())));
      }
    store.push(keys, gradients).wait();
    reference.push(keys, decoded);
    store.pull(keys, got).wait();
    reference.pull(keys, expected);
    for (std::size_t key = 0; key < 2; ++key) REQUIRE(same_bits(got[key], expected[key]));
  }
}

/// The memory of one source, as a store has it, without a store.
template <class Compressor, class T>
struct one_source {
  using device = cpu_device<serial_system>;
  using encoder = compress::encoder<Compressor, T, device>;

  Compressor compressor;
  std::int64_t size;
  std::vector<float> residual;
  std::vector<std::uint64_t> codes;

  one_source(Compressor const& encoding, std::size_t elements)
      : compressor(encoding),
        size(static_cast<std::int64_t>(elements)),
        residual(encoder::residual_bytes(compressor, size) / sizeof(float)),
        codes(encoder::code_bytes(device(), compressor, size) / 8 + 1) {}

  /// Encodes and returns where a pass reads.
  auto push(std::vector<T> const& gradient) {
    encoder::encode(device(), compressor, gradient.data(), size, residual.data(), codes.data());
    return encoder::source(compressor, codes.data(), size, 0, size, [](void const* p, std::size_t) { return p; });
  }
};

}  // namespace pushpull::test
