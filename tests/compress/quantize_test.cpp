/// @file
/// Two-bit and one-bit gradients: byte streams, decoded values and residuals against a slow scalar model.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <pushpull/pushpull.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

namespace pp = pushpull;
namespace compress = pushpull::compress;
namespace update = pushpull::update;

/// One source as the reference describes it, element by element.
struct model {
  bool two_bits;
  float threshold;
  std::vector<float> residual;

  std::vector<float> decoded;
  std::vector<std::uint8_t> bytes;

  void push(std::vector<float> const& gradient) {
    residual.resize(gradient.size());
    decoded.assign(gradient.size(), 0.0F);
    bytes.assign((gradient.size() + (two_bits ? 3 : 7)) / (two_bits ? 4 : 8), 0);
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      float& r = residual[i];
      r += gradient[i];
      if (two_bits) {
        unsigned code = 0;
        if (r >= threshold) {
          code = 3;
          decoded[i] = threshold;
        } else if (r <= -threshold) {
          code = 2;
          decoded[i] = -threshold;
        }
        bytes[i / 4] = static_cast<std::uint8_t>(bytes[i / 4] | code << (6 - 2 * (i % 4)));
      } else {
        decoded[i] = r > threshold ? 1.0F : -1.0F;
        if (r > threshold) bytes[i / 8] = static_cast<std::uint8_t>(bytes[i / 8] | 0x80U >> (i % 8));
      }
      r -= decoded[i];
    }
  }
};

std::vector<float> random_gradient(std::mt19937& random, std::size_t size) {
  std::vector<float> gradient(size);  // halves of the thresholds below: the comparisons meet equality often
  for (float& x : gradient) x = 0.25F * static_cast<float>(static_cast<int>(random() % 17) - 8);
  return gradient;
}

template <class Compressor>
std::vector<std::uint8_t> encoded(Compressor const& compressor, std::vector<float> const& gradient,
                                  std::vector<float>& residual) {
  using body = compress::encode_body<Compressor, pp::pass::host_execution>;
  constexpr std::size_t elements = body::code::elements;
  std::size_t const padded = (gradient.size() + 63) / 64 * 64;
  residual.resize(padded);
  std::vector<std::uint8_t> bytes(padded / elements + 1, 0xEE);
  auto const size = static_cast<std::int64_t>(gradient.size());
  float flaw = 0;
  body const encode{compressor,
                    {gradient.data(), residual.data(), size},
                    reinterpret_cast<typename body::code*>(bytes.data()),
                    &flaw};
  for (std::int64_t task = 0; task < body::tasks(size); ++task) encode(task);
  REQUIRE(flaw == 0);
  REQUIRE(bytes.back() == 0xEE);
  bytes.resize((gradient.size() + elements - 1) / elements);
  return bytes;
}

template <class Compressor, class D>
void compare_store(Compressor const& compressor, bool two_bits, std::vector<D> const& devices, std::size_t size,
                   std::size_t sources) {
  INFO(size << " elements from " << sources << " sources on " << devices.size() << " devices");
  pp::kv_store<float, D, Compressor> plain{devices, pp::no_updater{}, compressor};
  pp::kv_store trained{devices, update::sgd{.learning_rate = 0.5}, compressor, pp::reduce::mean{}};
  std::vector<float> w(size, 1.0F), out(size);
  std::vector<double> expected(size, 1.0);
  plain.init("w", w);
  trained.init("w", w);
  std::mt19937 random(static_cast<unsigned>(size));
  std::vector<model> models(sources, model{two_bits, compressor.threshold, {}, {}, {}});
  for (int t = 0; t < 5; ++t) {
    std::vector<std::vector<float>> gradients;
    std::vector<float> sum(size);
    for (auto& m : models) {
      gradients.push_back(random_gradient(random, size));
      m.push(gradients.back());
      for (std::size_t i = 0; i < size; ++i) sum[i] += m.decoded[i];
    }
    plain.pushpull("w", gradients, out).wait();
    REQUIRE(out == sum);
    trained.pushpull("w", gradients, out).wait();
    for (std::size_t i = 0; i < size; ++i) {
      expected[i] -= 0.5 * double{sum[i]} / static_cast<double>(sources);
      REQUIRE(out[i] == Approx(expected[i]).margin(1e-5));
    }
  }
}

}  // namespace

TEST_CASE("2-bit codes of the reference's example are 83 F2 A0", "[compress]") {
  std::vector<float> residual;
  auto const bytes = encoded(compress::two_bit{4.0F}, {-4, 0, 0, 4, 4, 4, 0, -4, -4, -4}, residual);
  REQUIRE(bytes == std::vector<std::uint8_t>{0x83, 0xF2, 0xA0});
  REQUIRE(residual == std::vector<float>(64, 0.0F));
}

TEST_CASE("byte streams and residuals equal the scalar model's over many pushes", "[compress]") {
  std::mt19937 random(1);
  for (std::size_t const size : {1, 3, 4, 7, 63, 64, 65, 1000, 40003}) {
    std::vector<float> two, one;
    model reference_two{true, 0.5F, {}, {}, {}}, reference_one{false, -0.25F, {}, {}, {}};
    for (int t = 0; t < 6; ++t) {
      auto const gradient = random_gradient(random, size);
      reference_two.push(gradient);
      reference_one.push(gradient);
      REQUIRE(encoded(compress::two_bit{0.5F}, gradient, two) == reference_two.bytes);
      REQUIRE(encoded(compress::one_bit{-0.25F}, gradient, one) == reference_one.bytes);
      for (std::size_t i = 0; i < two.size(); ++i) {
        REQUIRE(two[i] == (i < size ? reference_two.residual[i] : 0.0F));
        REQUIRE(one[i] == (i < size ? reference_one.residual[i] : 0.0F));
      }
    }
  }
}

TEST_CASE("a store with compression sums and applies what the codes say", "[compress]") {
  for (std::size_t const size : {1, 5, 64, 1023, 5003})
    for (std::size_t const sources : {1, 2, 9}) {
      compare_store(compress::two_bit{}, true, pp::cpu_devices(3), size, sources);
      compare_store(compress::one_bit{}, false, pp::cpu_devices(1), size, sources);
    }
  using device = pp::test::counting_device;
  compare_store(compress::two_bit{0.75F}, true, std::vector{device(0, true), device(1, true)}, 5003, 3);
}

TEST_CASE("every source of every key has a residual of its own, and norms see decoded gradients", "[compress]") {
  pp::kv_store store{pp::cpu_devices(2), update::clip_global_norm(1e9) | update::sgd{1.0}, compress::one_bit{}};
  std::vector<std::string> const keys{"a", "b"};
  store.init(keys, std::vector{std::vector<float>(3), std::vector<float>(70)});
  std::vector<float> a(3, 0.75F), b(70, -0.75F), out(70);
  // Sent +1 and left -0.25, then sent +1 again; the second source never sends twice the same.
  std::vector<float> const little(3, 0.25F);
  std::vector const gradients{std::vector{a, little}, std::vector{b, b}};
  store.push(keys, gradients);
  store.push(keys, gradients);
  store.pull("b", out).wait();
  REQUIRE(out == std::vector<float>(70, 4.0F));
  std::vector<float> first(3);
  store.pull("a", first).wait();
  REQUIRE(first == std::vector<float>(3, -(1.0F + 1.0F) - (1.0F - 1.0F)));
}

TEST_CASE("at most one threshold goes per push, of a single source too, and the rest stays", "[compress]") {
  pp::kv_store store{pp::cpu_devices(2), pp::no_updater{}, compress::two_bit{0.5F}};
  std::vector<float> const first{2.25F, -1.0F, 0.25F, 0.0F}, zero(4);
  std::vector<float> out(4);
  store.init("w", zero);
  std::vector<std::vector<float>> sent;
  for (int t = 0; t < 5; ++t) {
    store.pushpull("w", t == 0 ? first : zero, out).wait();
    sent.push_back(out);
  }
  std::vector<float> const both{0.5F, -0.5F, 0, 0}, one{0.5F, 0, 0, 0};
  REQUIRE(sent == std::vector{both, both, one, one, zero});
}

TEST_CASE("initial values and pulled values are never compressed", "[compress]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}, compress::two_bit{0.5F}};
  std::vector<float> w(70), out(70);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = 0.1F * static_cast<float>(i);
  store.init("w", w);
  store.pull("w", out).wait();
  REQUIRE(out == w);
  std::vector<float> const g(70, 0.75F);
  store.push("w", g);
  store.pull("w", out).wait();
  for (std::size_t i = 0; i < w.size(); ++i) REQUIRE(out[i] == w[i] - 0.5F);
}

TEST_CASE("parameter_store trains over a compressing store", "[compress]") {
  pp::kv_store store{pp::cpu_devices(2), update::sgd{1.0}, compress::two_bit{0.5F}};
  pp::parameter_store parameters{store};
  std::vector<float> w(100, 1.0F);
  parameters.add("w", w);
  for (std::size_t n = 0; n < 2; ++n) std::fill_n(parameters.grad("w", n).data(), 100, 0.25F);
  for (int t = 0; t < 4; ++t) parameters.update_all();
  parameters.close();
  REQUIRE(w == std::vector<float>(100, -1.0F));
}

TEST_CASE("thresholds that can never be right are refused", "[compress]") {
  auto const devices = pp::cpu_devices(1);
  REQUIRE_THROWS_AS((pp::kv_store{devices, update::sgd{}, compress::two_bit{0.0F}}), pp::invalid_argument);
  REQUIRE_THROWS_AS((pp::kv_store{devices, update::sgd{}, compress::two_bit{-1.0F}}), pp::invalid_argument);
  float const nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE_THROWS_AS((pp::kv_store{devices, update::sgd{}, compress::one_bit{nan}}), pp::invalid_argument);
}
