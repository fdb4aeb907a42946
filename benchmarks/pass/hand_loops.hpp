/// @file
/// What the pass is measured against: loops with vector registers written for the purpose, steps one after the other,
/// and a scalar functor. All on the same threads, with the same tasks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/zip_iterator.h>
#include <thrust/system/tbb/execution_policy.h>
#include <thrust/tuple.h>
#include <pushpull/pushpull.hpp>
#include <pushpull/registers/detail/memory.hpp>
#include <xsimd/xsimd.hpp>

#include "pass/rules.hpp"
#include "support/operands.hpp"

namespace pushpull::bench {

using vector_register = xsimd::batch<float>;
inline constexpr std::int64_t lanes = vector_register::size;
inline constexpr std::int64_t unroll = 4;
inline constexpr std::int64_t task_size = std::int64_t{1} << 15;

// The conversions of 16-bit elements are the library's: they are not what is compared.
template <class T>
vector_register load(T const* from) {
  return detail::simd_load(from, std::type_identity<vector_register>{});
}

/// f(first, last) for every task of n elements.
template <class F>
void for_ranges(std::int64_t n, F const& f) {
  auto const run = [&](std::int64_t task) { f(task * task_size, std::min(n, (task + 1) * task_size)); };
  if (n <= task_size) return run(0);
  thrust::for_each_n(thrust::tbb::par, thrust::make_counting_iterator<std::int64_t>(0), (n + task_size - 1) / task_size,
                     run);
}

/// One loop over all operands. Mirrors are streamed where they are large, as the pass does.
template <class T, class Rule>
void fused_loop(Rule const rule, operands<T> const& o, std::size_t gradients, std::size_t mirrors) {
  bool const streaming = o.size >= std::int64_t{1} << 16;
  for_ranges(o.size, [&o, rule, gradients, mirrors, streaming](std::int64_t first, std::int64_t last) {
    constexpr std::size_t states = Rule::states;
    T const* const* const gradient = o.gradient.data();
    T* const* const mirror = o.mirror.data();
    float* const weight = o.weight;
    float* state[states + 1] = {};
    std::copy_n(o.state.begin(), states, state);
    for (std::int64_t i = first; i < last; i += unroll * lanes) {
      vector_register g[unroll], w[unroll];
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < unroll; ++j) g[j] = load(gradient[0] + i + j * lanes);
      for (std::size_t k = 1; k < gradients; ++k) {
#pragma GCC unroll 4
        for (std::int64_t j = 0; j < unroll; ++j) g[j] += load(gradient[k] + i + j * lanes);
      }
#pragma GCC unroll 4
      for (std::int64_t j = 0; j < unroll; ++j) {
        std::int64_t const at = i + j * lanes;
        vector_register s[states + 1];
#pragma GCC unroll 4
        for (std::size_t k = 0; k < states; ++k) s[k] = load(state[k] + at);
        w[j] = load(weight + at);
        call(rule, w[j], g[j], [&](std::size_t k) -> vector_register& { return s[k]; });
        w[j].store_unaligned(weight + at);
#pragma GCC unroll 4
        for (std::size_t k = 0; k < states; ++k) s[k].store_unaligned(state[k] + at);
      }
      for (std::size_t r = 0; r < mirrors; ++r) {
#pragma GCC unroll 4
        for (std::int64_t j = 0; j < unroll; ++j) {
          if (streaming) {
            detail::simd_stream(mirror[r] + i + j * lanes, w[j]);
          } else {
            detail::simd_store(mirror[r] + i + j * lanes, w[j]);
          }
        }
      }
    }
    detail::simd_fence();
  });
}

/// weight += a * x, in place.
inline void axpy(float* weight, float const* x, std::int64_t n) {
  for_ranges(n, [=](std::int64_t first, std::int64_t last) {
    vector_register const a(-1e-3F);
    for (std::int64_t i = first; i < last; i += lanes)
      xsimd::fma(a, load(x + i), load(weight + i)).store_unaligned(weight + i);
  });
}

/// Sum into memory, update in place, then copy by copy: what is left to users whose libraries know no fused step.
template <class T, class Rule>
void three_steps(Rule const rule, operands<T>& o, bool streaming) {
  bool const sum = o.gradient.size() > 1;
  if (sum) {
    for_ranges(o.size, [&o](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; i += lanes) {
        vector_register g = load(o.gradient[0] + i);
        for (std::size_t k = 1; k < o.gradient.size(); ++k) g += load(o.gradient[k] + i);
        g.store_unaligned(o.scratch + i);
      }
    });
  }
  for_ranges(o.size, [&o, rule, sum](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; i += lanes) {
      vector_register w = load(o.weight + i), s[Rule::states + 1];
      for (std::size_t k = 0; k < Rule::states; ++k) s[k] = load(o.state[k] + i);
      vector_register const g = sum ? load(o.scratch + i) : load(o.gradient[0] + i);
      call(rule, w, g, [&](std::size_t k) -> vector_register& { return s[k]; });
      w.store_unaligned(o.weight + i);
      for (std::size_t k = 0; k < Rule::states; ++k) s[k].store_unaligned(o.state[k] + i);
    }
  });
  for (T* const mirror : o.mirror) {
    for_ranges(o.size, [&o, mirror, streaming](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; i += lanes) {
        if (streaming) {
          detail::simd_stream(mirror + i, load(o.weight + i));
        } else {
          detail::simd_store(mirror + i, load(o.weight + i));
        }
      }
      detail::simd_fence();
    });
  }
}

/// Thrust with a functor of one element, over a user's vectors.
template <class T, class Rule>
void scalar_functor(Rule const rule, vectors<T>& v) {
  std::vector<T const*> gradient;
  std::vector<T*> mirror;
  float* state[Rule::states + 1] = {};
  for (auto const& g : v.gradient) gradient.push_back(g.data());
  for (auto& m : v.mirror) mirror.push_back(m.data());
  for (std::size_t k = 0; k < Rule::states; ++k) state[k] = v.state[k].data();
  thrust::for_each_n(thrust::tbb::par, thrust::make_counting_iterator<std::size_t>(0), v.weight.size(),
                     [rule, state, weight = v.weight.data(), gradient = gradient.data(), mirror = mirror.data(),
                      gradients = gradient.size(), mirrors = mirror.size()](std::size_t i) {
                       float g = convert<float>(gradient[0][i]);
                       for (std::size_t k = 1; k < gradients; ++k) g += convert<float>(gradient[k][i]);
                       call(rule, weight[i], g, [&](std::size_t k) -> float& { return state[k][i]; });
                       for (std::size_t r = 0; r < mirrors; ++r) mirror[r][i] = convert<T>(weight[i]);
                     });
}

/// As above in place with one gradient, by a zip iterator: the form of Thrust's own examples.
template <class T, class Rule, std::size_t... K>
void zipped_functor(Rule const rule, vectors<T>& v, std::index_sequence<K...>) {
  auto const first =
      thrust::make_zip_iterator(thrust::make_tuple(v.weight.begin(), v.gradient[0].begin(), v.state[K].begin()...));
  thrust::for_each_n(thrust::tbb::par, first, v.weight.size(), [rule](auto t) {
    rule(thrust::get<0>(t), convert<float>(thrust::get<1>(t)), thrust::get<2 + K>(t)...);
  });
}

}  // namespace pushpull::bench
