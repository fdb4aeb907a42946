/// @file
/// The library's rules as they are written for registers by hand: a formula each, with what depends on t as constants.
#pragma once

#include <cstddef>
#include <utility>

#include <pushpull/pushpull.hpp>
#include <xsimd/xsimd.hpp>

#include "pass/hand_loops.hpp"

namespace pushpull::bench {

/// A formula f(w, g, state...) on registers, in the form that the loops of hand_loops.hpp take.
template <std::size_t States, class F>
struct hand_rule {
  static constexpr std::size_t states = States;
  F f;

  template <class... State>
  [[gnu::always_inline]] void operator()(vector_register& w, vector_register const& g, State&... state) const {
    f(w, g, state...);
  }
};
template <std::size_t States, class F>
hand_rule<States, F> by_formula(F f) {
  return {f};
}

/// f(name, rule, hand-written rule) for every elementwise rule but sgld, whose random numbers are the library's own.
template <class F>
void for_each_rule_by_hand(F const& f) {
  using V = vector_register;
  auto const sqrt = [](V const& x) { return detail::simd_sqrt(x); };
  auto const abs = [](V const& x) { return detail::simd_abs(x); };
  auto const select = [](auto const& mask, V const& a, V const& b) { return detail::simd_select(mask, a, b); };
  auto const max = [=](V const& a, V const& b) { return select(a < b, b, a); };
  constexpr float r = 1e-3F, b1 = 0.9F, b2 = 0.999F, c1 = 1.01F, c2 = 1.02F, e = 1e-8F, d = 1e-2F;
  auto const sign = [=](V const& x) { return select(x > V(0), V(1), select(x < V(0), V(-1), V(0))); };
  auto const moments = [](V const& g, V& m, V& v) {
    m = b1 * m + (1 - b1) * g;
    v = b2 * v + (1 - b2) * g * g;
  };

  f("sgd", update::sgd{}, by_formula<0>([=](V& w, V const& g) { w -= r * g; }));
  f("momentum", update::momentum{}, by_formula<1>([=](V& w, V const& g, V& b) {
      b = b1 * b + g;
      w -= r * b;
    }));
  f("nesterov", update::nesterov{}, by_formula<1>([=](V& w, V const& g, V& b) {
      b = b1 * b + g;
      w -= r * (g + b1 * b);
    }));
  f("signsgd", update::signsgd{}, by_formula<0>([=](V& w, V const& g) { w -= r * (sign(g) + d * w); }));
  f("signum", update::signum{}, by_formula<1>([=](V& w, V const& g, V& m) {
      m = b1 * m + (1 - b1) * g;
      w -= r * (sign(m) + d * w);
    }));
  f("lion", update::lion{}, by_formula<1>([=](V& w, V const& g, V& m) {
      w -= r * (sign(b1 * m + (1 - b1) * g) + d * w);
      m = b2 * m + (1 - b2) * g;
    }));
  f("adagrad", update::adagrad{}, by_formula<1>([=](V& w, V const& g, V& h) {
      h += g * g;
      w -= r * g / (sqrt(h) + e);
    }));
  f("rmsprop", update::rmsprop{}, by_formula<1>([=](V& w, V const& g, V& v) {
      v = b1 * v + (1 - b1) * g * g;
      w -= r * g / (sqrt(v) + e);
    }));
  f("centered_rmsprop", update::centered_rmsprop{}, by_formula<2>([=](V& w, V const& g, V& v, V& a) {
      v = b1 * v + (1 - b1) * g * g;
      a = b1 * a + (1 - b1) * g;
      w -= r * g / (sqrt(max(v - a * a, V(0))) + e);
    }));
  f("adadelta", update::adadelta{}, by_formula<2>([=](V& w, V const& g, V& v, V& u) {
      v = b1 * v + (1 - b1) * g * g;
      V const x = sqrt(u + e) / sqrt(v + e) * g;
      u = b1 * u + (1 - b1) * x * x;
      w -= r * x;
    }));
  f("adam", update::adam{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      moments(g, m, v);
      w -= r * m / (sqrt(v) + e);
    }));
  f("adamw", update::adamw{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      w *= 1 - r * d;
      moments(g, m, v);
      w -= r * m / (sqrt(v) + e);
    }));
  f("amsgrad", update::amsgrad{}, by_formula<3>([=](V& w, V const& g, V& m, V& v, V& u) {
      moments(g, m, v);
      u = max(u, v);
      w -= r * m / (sqrt(u) + e);
    }));
  f("adamax", update::adamax{}, by_formula<2>([=](V& w, V const& g, V& m, V& u) {
      m = b1 * m + (1 - b1) * g;
      u = max(b2 * u, abs(g) + e);
      w -= r * m / u;
    }));
  f("nadam", update::nadam{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      moments(g, m, v);
      w -= (r * g + d * m) / (sqrt(v) * c2 + e);
    }));
  f("radam", update::radam{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      moments(g, m, v);
      w -= r * c1 * m / (sqrt(v) + e);
    }));
  f("adabelief", update::adabelief{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      m = b1 * m + (1 - b1) * g;
      v = b2 * v + (1 - b2) * (g - m) * (g - m) + e;
      w -= r * m / (sqrt(v) + e);
    }));
  f("yogi", update::yogi{}, by_formula<2>([=](V& w, V const& g, V& m, V& v) {
      m = b1 * m + (1 - b1) * g;
      v -= (1 - b2) * sign(v - g * g) * g * g;
      w -= r * m / (sqrt(v) + e);
    }));
  f("dcasgd", update::dcasgd{}, by_formula<1>([=](V& w, V const& g, V& old) {
      V const before = w;
      w -= r * (g + d * g * g * (w - old));
      old = before;
    }));
  f("ftrl", update::ftrl{}, by_formula<2>([=](V& w, V const& g, V& z, V& n) {
      V const root = sqrt(n + g * g);
      z += g - (root - sqrt(n)) * c1 * w;
      n += g * g;
      w = select(abs(z) <= V(d), V(0), (sign(z) * d - z) / ((1 + root) * c1 + r));
    }));
  f("ftml", update::ftml{}, by_formula<3>([=](V& w, V const& g, V& last, V& v, V& z) {
      v = b2 * v + (1 - b2) * g * g;
      V const now = c1 * (sqrt(v) * c2 + e);
      z = b1 * z + (1 - b1) * g - (now - b1 * last) * w;
      last = now;
      w = -z / now;
    }));
  f("test", update::test{}, by_formula<1>([=](V& w, V const& g, V& copy) { copy = w += g; }));
  f("trace and sgd", update::trace(0.9) | update::sgd{}, by_formula<1>([=](V& w, V const& g, V& t) {
      t = b1 * t + g;
      w -= r * t;
    }));
  f("ema of sgd", update::sgd{} | update::ema(0.999), by_formula<1>([=](V& w, V const& g, V& a) {
      w -= r * g;
      a += d * (w - a);
    }));
  f("lookahead around sgd", update::sgd{} | update::lookahead(1 << 30),
    by_formula<1>([=](V& w, V const& g, V&) { w -= r * g; }));
}

}  // namespace pushpull::bench
