// Arithmetic of floats and doubles. Operands are volatile, so that the compiler computes under the rounding mode set.
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "instructions/decode.hpp"
#include "instructions/floats.hpp"
#include "instructions/values.hpp"
#include "settings.hpp"

namespace emulator {
namespace {

template <class T, auto Op>
void float_unary(grid&, thread& t, instruction const& i) {
  reg const ra = at(t, i.a);
  T volatile const a = flushed(get<T>(ra), (i.mode & mode_ftz) != 0);
  T const x = rounded<T>(i.mode, [&] { return T(Op(T(a))); });
  put<T>(at(t, i.d), finished(x, i.mode), undefined<T>(ra) != 0);
}
template <class T, auto Op>
void float_binary(grid&, thread& t, instruction const& i) {
  reg const ra = at(t, i.a), rb = at(t, i.b);
  bool const ftz = (i.mode & mode_ftz) != 0;
  T volatile const a = flushed(get<T>(ra), ftz), b = flushed(get<T>(rb), ftz);
  T const x = rounded<T>(i.mode, [&] { return T(Op(T(a), T(b))); });
  put<T>(at(t, i.d), finished(x, i.mode), (undefined<T>(ra) | undefined<T>(rb)) != 0);
}
template <class T>
void fused_multiply_add(grid&, thread& t, instruction const& i) {
  reg const ra = at(t, i.a), rb = at(t, i.b), rc = at(t, i.c);
  bool const ftz = (i.mode & mode_ftz) != 0;
  T volatile const a = flushed(get<T>(ra), ftz), b = flushed(get<T>(rb), ftz), c = flushed(get<T>(rc), ftz);
  T const x = rounded<T>(i.mode, [&] { return std::fma(T(a), T(b), T(c)); });
  put<T>(at(t, i.d), finished(x, i.mode), (undefined<T>(ra) | undefined<T>(rb) | undefined<T>(rc)) != 0);
}

// ptxas may fuse a product without a rounding modifier and a sum of it. With setting().contract all are fused.
template <class T>
void remembered_product(grid&, thread& t, instruction const& i) {
  reg const ra = at(t, i.a), rb = at(t, i.b);
  T volatile const a = get<T>(ra), b = get<T>(rb);
  put<T>(at(t, i.d), T(a) * T(b), (undefined<T>(ra) | undefined<T>(rb)) != 0);
  if (t.products.size() < t.r.size()) t.products.resize(t.r.size());
  t.products[static_cast<std::size_t>(i.d)] = {ra.v, rb.v, at(t, i.d).v, true};
}
template <class T, bool Minus>
void contracted_sum(grid&, thread& t, instruction const& i) {
  reg const ra = at(t, i.a), rb = at(t, i.b);
  auto const product_in = [&](std::int32_t r) -> product const* {
    if (static_cast<std::size_t>(r) >= t.products.size()) return nullptr;
    product const& p = t.products[static_cast<std::size_t>(r)];
    return p.valid && p.value == at(t, r).v ? &p : nullptr;
  };
  auto const factor = [](u64 bits) { return get<T>({bits, 0}); };
  T const a = get<T>(ra), b = get<T>(rb);
  T x = Minus ? a - b : a + b;
  if (product const* p = product_in(i.a)) {
    x = std::fma(factor(p->a), factor(p->b), Minus ? -b : b);
  } else if (product const* q = product_in(i.b)) {
    x = std::fma(Minus ? -factor(q->a) : factor(q->a), factor(q->b), a);
  }
  put<T>(at(t, i.d), x, (undefined<T>(ra) | undefined<T>(rb)) != 0);
}

/// A NaN loses against a number, and -0 is less than 0.
template <class T>
T smaller(T a, T b) {
  if (std::isnan(a) && std::isnan(b)) return std::numeric_limits<T>::quiet_NaN();
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <class T>
T larger(T a, T b) {
  T const x = smaller(T(-a), T(-b));
  return std::isnan(x) ? x : -x;
}

/// The upper half of a double's bits; the lower one is zero.
void approximate_reciprocal(grid&, thread& t, instruction const& i) {
  reg const a = at(t, i.a);
  u64 const x = std::bit_cast<u64>(1.0 / get<double>(a));
  put<u64>(at(t, i.d), x & ~u64{0xFFFFFFFF}, undefined<double>(a) != 0);
}

template <class T>
handler sum_handler(instruction_text const& text) {
  bool const contract = setting().contract && text.parts.size() == 2;
  if (text.name() == "add")
    return contract ? contracted_sum<T, false> : float_binary<T, [](T a, T b) { return a + b; }>;
  return contract ? contracted_sum<T, true> : float_binary<T, [](T a, T b) { return a - b; }>;
}

template <class T>
bool decode_arithmetic(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  if (name == "add" || name == "sub") {
    i.execute = sum_handler<T>(text);
  } else if (name == "mul") {
    bool const contract = setting().contract && text.parts.size() == 2;
    i.execute = contract ? remembered_product<T> : float_binary<T, [](T a, T b) { return a * b; }>;
  } else if (name == "fma" || name == "mad") {
    i.execute = fused_multiply_add<T>;
  } else if (name == "div") {
    i.execute = float_binary<T, [](T a, T b) { return a / b; }>;
  } else if (name == "min" || name == "max") {
    if (text.has("NaN")) return true;
    i.execute = name == "min" ? float_binary<T, [](T a, T b) { return smaller(a, b); }>
                              : float_binary<T, [](T a, T b) { return larger(a, b); }>;
  } else if (name == "abs") {
    i.execute = float_unary<T, [](T a) { return std::fabs(a); }>;
  } else if (name == "neg") {
    i.execute = float_unary<T, [](T a) { return -a; }>;
  } else if (name == "copysign") {
    i.execute = float_binary<T, [](T a, T b) { return std::copysign(b, a); }>;
  } else {
    return false;
  }
  return true;
}

/// Functions that are approximate on a GPU are exact to the last bit or so.
template <class T>
bool decode_function(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  if (name == "sqrt") {
    i.execute = float_unary<T, [](T a) { return std::sqrt(a); }>;
  } else if (name == "rcp") {
    bool const upper_half = text.has("approx") && std::is_same_v<T, double>;
    i.execute = upper_half ? approximate_reciprocal : float_unary<T, [](T a) { return T(1) / a; }>;
  } else if (name == "rsqrt") {
    i.execute = float_unary<T, [](T a) { return static_cast<T>(1 / std::sqrt(static_cast<long double>(a))); }>;
  } else {
    return false;
  }
  return true;
}

/// Of floats only.
bool decode_approximate_function(instruction& i, instruction_text const& text) {
  std::string const& name = text.name();
  if (name == "ex2") {
    i.execute = float_unary<float, [](float a) { return static_cast<float>(std::exp2(double{a})); }>;
  } else if (name == "lg2") {
    i.execute = float_unary<float, [](float a) { return static_cast<float>(std::log2(double{a})); }>;
  } else if (name == "sin") {
    i.execute = float_unary<float, [](float a) { return static_cast<float>(std::sin(double{a})); }>;
  } else if (name == "cos") {
    i.execute = float_unary<float, [](float a) { return static_cast<float>(std::cos(double{a})); }>;
  } else if (name == "tanh") {
    i.execute = float_unary<float, [](float a) { return static_cast<float>(std::tanh(double{a})); }>;
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool decode_floating_point(instruction& i, instruction_text const& text) {
  bool found = false;
  with_float(text.type(), [&]<class T>(T) { found = decode_arithmetic<T>(i, text) || decode_function<T>(i, text); });
  return found || (text.type() == "f32" && decode_approximate_function(i, text));
}

}  // namespace emulator
