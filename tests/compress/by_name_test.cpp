/// @file
/// Compressors by their names.
#include <pushpull/pushpull.hpp>
#include <string>
#include <variant>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace compress = pushpull::compress;

template <class C>
C chosen(compress::parameters const& parameters) {
  auto const any = compress::by_name(parameters);
  REQUIRE(std::holds_alternative<C>(any));
  return std::get<C>(any);
}

std::string complaint(compress::parameters const& parameters) {
  try {
    compress::by_name(parameters);
  } catch (pp::invalid_argument const& e) {
    return e.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("each name chooses its compressor, with parameters or their defaults", "[compress]") {
  REQUIRE(chosen<compress::two_bit>({{"type", "2bit"}}).threshold == 0.5F);
  REQUIRE(chosen<compress::two_bit>({{"type", "2bit"}, {"threshold", "0.25"}, {"unknown", "x"}}).threshold == 0.25F);
  REQUIRE(chosen<compress::one_bit>({{"type", "1bit"}}).threshold == 0.5F);
  REQUIRE(chosen<compress::one_bit>({{"type", "1bit"}, {"threshold", "-1e-3"}}).threshold == -1e-3F);
  REQUIRE_FALSE(chosen<compress::cast<pp::half>>({{"type", "float16"}}).error_feedback);
  REQUIRE(chosen<compress::cast<pp::bfloat16>>({{"type", "bfloat16"}, {"error_feedback", "true"}}).error_feedback);
  REQUIRE(chosen<compress::cast<pp::float8_e4m3>>({{"type", "float8_e4m3fn"}, {"error_feedback", "1"}}).error_feedback);
  REQUIRE_FALSE(
      chosen<compress::cast<pp::float8_e5m2>>({{"type", "float8_e5m2"}, {"error_feedback", "0"}}).error_feedback);
  REQUIRE(chosen<compress::top_k>({{"type", "topk"}, {"ratio", "0.5"}}).ratio == 0.5);
  REQUIRE(chosen<compress::top_k>({{"type", "topk"}, {"count", "12"}}).count == 12);
  chosen<compress::none>({{"type", "none"}});
}

TEST_CASE("a threshold keeps all digits of its text", "[compress]") {
  REQUIRE(chosen<compress::two_bit>({{"type", "2bit"}, {"threshold", "1.2345678e-7"}}).threshold == 1.2345678e-7F);
  REQUIRE(chosen<compress::two_bit>({{"type", "2bit"}, {"threshold", "0.0000004"}}).threshold == 4e-7F);
}

TEST_CASE("a missing or unknown type and parameters that can never be right are refused", "[compress]") {
  REQUIRE(complaint({}) == "compression: a parameter \"type\" expected, got none");
  REQUIRE(complaint({{"threshold", "1"}}) == "compression: a parameter \"type\" expected, got none");
  REQUIRE(complaint({{"type", "3bit"}}).find("got \"3bit\"") != std::string::npos);
  REQUIRE(complaint({{"type", "2BIT"}}).find("got \"2BIT\"") != std::string::npos);
  REQUIRE(complaint({{"type", "2bit"}, {"threshold", "0"}}) ==
          "two_bit: threshold: a value in (0, 3.40282e+38] expected, got 0");
  REQUIRE(complaint({{"type", "2bit"}, {"threshold", "-2"}}) ==
          "two_bit: threshold: a value in (0, 3.40282e+38] expected, got -2");
  for (char const* const text : {"", "half", "0.5x", " 1"})
    REQUIRE(complaint({{"type", "2bit"}, {"threshold", text}}) ==
            "compression: threshold: a number expected, got \"" + std::string(text) + "\"");
  REQUIRE(complaint({{"type", "1bit"}, {"threshold", "nan"}}) ==
          "one_bit: threshold: a value in [-3.40282e+38, 3.40282e+38] expected, got nan");
  REQUIRE(complaint({{"type", "topk"}, {"ratio", "2"}}) == "top_k: ratio: a value above 0 and up to 1 expected, got 2");
  REQUIRE(complaint({{"type", "topk"}, {"count", "-1"}}) == "top_k: count: at least 0 expected, got -1");
  REQUIRE(complaint({{"type", "float16"}, {"error_feedback", "maybe"}}) ==
          "compression: error_feedback: true or false expected, got \"maybe\"");
}

TEST_CASE("a compressor that does not take the element type is refused", "[compress]") {
  compress::by_name<double>({{"type", "none"}});
  compress::by_name<pp::half>({{"type", "float8_e5m2"}});
  REQUIRE_THROWS_AS(compress::by_name<double>({{"type", "topk"}}), pp::invalid_argument);
  REQUIRE_THROWS_AS(compress::by_name<pp::half>({{"type", "2bit"}}), pp::invalid_argument);
  REQUIRE_THROWS_AS(compress::by_name<pp::bfloat16>({{"type", "float16"}}), pp::invalid_argument);
}

TEST_CASE("a store is made of what was chosen", "[compress]") {
  for (char const* const type : {"2bit", "1bit", "float8_e4m3fn", "topk", "none"}) {
    auto const compressor = compress::by_name({{"type", type}, {"threshold", "1"}, {"ratio", "1"}});
    std::vector<float> w(3), gradient{1, -1, 1};
    std::visit(
        [&](auto const& c) {
          pp::kv_store store{pp::cpu_devices(1), pp::no_updater{}, c};
          store.init("w", w);
          store.pushpull("w", gradient, w).wait();
        },
        compressor);
    if (std::string(type) == "1bit") gradient[0] = gradient[2] = -1;  // not above the threshold
    REQUIRE(w == gradient);
  }
}
