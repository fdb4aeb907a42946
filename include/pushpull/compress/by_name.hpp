/// @file
/// Compressors chosen at run time, by the name and the parameters that MXNet's stores take.
#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <variant>

#include <pushpull/compress/cast.hpp>
#include <pushpull/compress/none.hpp>
#include <pushpull/compress/quantize.hpp>
#include <pushpull/compress/top_k.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::compress {

/// Any of the library's compressors. Not one type that decides at run time: the pass would ask per block what it reads,
/// and codes of one bit would travel in two. std::visit makes a store of it; each alternative that it is given is a
/// pass.
/// Further ones go to the end: messages to servers name them by their place.
using any_compressor =
    std::variant<none, two_bit, one_bit, cast<half>, cast<bfloat16>, cast<float8_e4m3>, cast<float8_e5m2>, top_k>;

/// Names and texts of parameters.
using parameters = std::map<std::string, std::string, std::less<>>;

namespace detail {

/// The number that the parameter's text says, or `otherwise` where there is none.
template <class Number>
Number number_of(parameters const& given, std::string_view name, Number otherwise) {
  auto const found = given.find(name);
  if (found == given.end()) return otherwise;
  std::string const& text = found->second;
  Number value{};
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  pushpull::detail::expects<invalid_argument>(code == std::errc() && end == text.data() + text.size(), [&] {
    return "compression: " + std::string(name) + ": a number expected, got \"" + text + "\"";
  });
  return value;
}

inline bool flag_of(parameters const& given, std::string_view name) {
  auto const found = given.find(name);
  if (found == given.end()) return false;
  std::string const& text = found->second;
  bool const yes = text == "1" || text == "true" || text == "True";
  pushpull::detail::expects<invalid_argument>(yes || text == "0" || text == "false" || text == "False", [&] {
    return "compression: " + std::string(name) + ": true or false expected, got \"" + text + "\"";
  });
  return yes;
}

}  // namespace detail

/// The compressor that parameter "type" names, for gradients of element type `T`:
/// | type | compressor | parameters |
/// |---|---|---|
/// | "2bit" | two_bit | "threshold" (0.5), above 0 |
/// | "1bit" | one_bit | "threshold" (0.5) |
/// | "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2" | cast | "error_feedback" (false) |
/// | "topk" | top_k | "ratio" (0.01), or "count" |
/// | "none" | none | |
/// Other parameters are ignored, as in MXNet.
/// @throws invalid_argument if there is no type, an unknown one or one that does not take `T`, or a parameter that is
///         no number or out of range
template <ElementType T = float>
any_compressor by_name(parameters const& given) {
  auto const type = given.find("type");
  pushpull::detail::expects<invalid_argument>(
      type != given.end(), [] { return std::string("compression: a parameter \"type\" expected, got none"); });
  std::string const& name = type->second;
  auto const checked = [&]<class C>(C const& compressor) -> any_compressor {
    pushpull::detail::expects<invalid_argument>(C::template takes<T>, [&] {
      return "compression: \"" + name + "\" does not take gradients of type " + std::string(dtype_traits<T>::name);
    });
    if constexpr (requires { compressor.validate(); }) compressor.validate();
    return compressor;
  };
  auto const cast_to = [&]<class E>(cast<E> compressor) {
    compressor.error_feedback = detail::flag_of(given, "error_feedback");
    return checked(compressor);
  };
  if (name == "none") return checked(none{});
  if (name == "2bit") return checked(two_bit{detail::number_of(given, "threshold", 0.5F)});
  if (name == "1bit") return checked(one_bit{detail::number_of(given, "threshold", 0.5F)});
  if (name == dtype_traits<half>::name) return cast_to(cast<half>{});
  if (name == dtype_traits<bfloat16>::name) return cast_to(cast<bfloat16>{});
  if (name == dtype_traits<float8_e4m3>::name) return cast_to(cast<float8_e4m3>{});
  if (name == dtype_traits<float8_e5m2>::name) return cast_to(cast<float8_e5m2>{});
  pushpull::detail::expects<invalid_argument>(name == "topk", [&] {
    return "compression: a type out of 2bit, 1bit, float16, bfloat16, float8_e4m3fn, float8_e5m2, topk and none "
           "expected, "
           "got \"" +
           name + "\"";
  });
  return checked(top_k{detail::number_of(given, "ratio", 0.01), detail::number_of(given, "count", std::int64_t{0})});
}

}  // namespace pushpull::compress
