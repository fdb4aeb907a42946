/// @file
/// Muon against 50 steps that PyTorch recorded, on several numbers of devices, and through a file.
#include <pushpull/update/muon.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "checkpoint/resume.hpp"
#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "update/rows_recorded.hpp"

namespace pp = pushpull;
namespace update = pushpull::update;

TEMPLATE_TEST_CASE("muon follows PyTorch for 50 steps", "[update][muon]", float, double) {
  // The iteration stretches small singular values, and with them their rounding.
  double const most = std::is_same_v<TestType, double> ? 1e-12 : 1e-5;
  pp::test::compare_rows<TestType>("pytorch", "muon", update::muon{.learning_rate = 0.02}, most);
  update::muon const plain{.learning_rate = 0.02,
                           .momentum = 0.8,
                           .weight_decay = 0.5,
                           .iterations = 3,
                           .nesterov = false,
                           .rate = update::muon_rate::match_rms_adamw};
  pp::test::compare_rows<TestType>("pytorch", "muon_plain", plain, most);
}

TEST_CASE("muon's matrices are those of one device, behind transforms and in wrappers", "[update][muon]") {
  std::vector<pp::shape> const shapes{{61, 17}, {0, 3}, {5, 7, 3}, {9}, {1, 1}, {17, 4099}};
  std::vector<std::string> const names{"a", "b", "c", "d", "e", "f"};
  auto const rule = update::clip_global_norm(5) | update::muon{.learning_rate = 0.1} | update::ema(0.9) |
                    update::learning_rate(pp::lr_schedule::constant{0.05});
  std::vector<std::vector<float>> first;
  for (int const devices : {1, 2, 4, 7}) {
    pp::kv_store store{pp::cpu_devices(devices), rule, pp::synchronous{}};
    std::vector<std::vector<float>> weights, gradients;
    std::vector<pp::tensor_view<float>> w, g;
    for (auto const& s : shapes) {
      weights.emplace_back(s.size(), 1.0F);
      gradients.emplace_back(s.size());
    }
    for (std::size_t k = 0; k < shapes.size(); ++k) {
      w.emplace_back(weights[k].data(), shapes[k]);
      g.emplace_back(gradients[k].data(), shapes[k]);
    }
    store.init(names, w);
    for (std::size_t t = 0; t < 3; ++t) {
      for (auto& x : gradients)
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37 + t * 11) % 29) / 8 - 1.5F;
      store.push(names, g);
    }
    store.pull(names, w);
    for (auto const& x : weights)
      for (float const y : x) REQUIRE(std::isfinite(y));
    if (first.empty()) first = weights;
    REQUIRE(weights == first);
  }
}

TEST_CASE("muon's step has singular values near 1, of matrices tall and wide, and none for no gradient",
          "[update][muon]") {
  for (pp::shape const& shape : {pp::shape{3, 50}, pp::shape{50, 3}}) {
    pp::kv_store store{pp::cpu_devices(1), update::muon{.learning_rate = 1, .momentum = 0, .weight_decay = 0},
                       pp::synchronous{}};
    std::vector<float> w(150), g(150);
    store.init("w", pp::tensor_view(w.data(), shape));
    store.push("w", pp::tensor_view(g.data(), shape));
    store.pull("w", pp::tensor_view(w.data(), shape));
    REQUIRE(w == std::vector<float>(150));
    for (std::size_t i = 0; i < 150; ++i) g[i] = 1e18F * static_cast<float>((i * 37) % 29);
    store.push("w", pp::tensor_view(g.data(), shape));
    store.pull("w", pp::tensor_view(w.data(), shape));
    double squares = 0;
    for (float const x : w) squares += static_cast<double>(x) * static_cast<double>(x);
    double const size =
        std::sqrt(squares / 3 / std::max(1.0, static_cast<double>(shape[0]) / static_cast<double>(shape[1])));
    REQUIRE(size > 0.6);
    REQUIRE(size < 1.2);
  }
}

TEST_CASE("muon's keys go to the devices whose products cost least", "[update][muon]") {
  pp::kv_store store{pp::cpu_devices(2), update::muon{}, pp::synchronous{}};
  std::vector<std::string> const names{"vector", "square", "first", "second"};
  std::vector<pp::shape> const shapes{{9000}, {64, 64}, {40, 40}, {40, 40}};
  std::vector<std::vector<float>> values;
  std::vector<pp::tensor_view<float>> views;
  for (auto const& s : shapes) values.emplace_back(s.size());
  for (std::size_t k = 0; k < shapes.size(); ++k) views.emplace_back(values[k].data(), shapes[k]);
  store.init(names, views);
  // The products of 64 x 64 cost more than those of twice 40 x 40 and of a vector, whose elements are the most.
  auto const report = store.memory_report();
  CHECK(report.devices[0].masters == 64 * 64 * sizeof(float));
  CHECK(report.devices[1].masters > 9000 * sizeof(float));
}

TEST_CASE("muon over ranks has the bits of one process", "[update][muon][ranks]") {
  auto const make = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::muon{.learning_rate = 0.1}, c);
  };
  pp::test::require_same_bits<float>(3, 1, 5, make, pp::test::push_and_pull);
}

TEST_CASE("muon resumes bit for bit", "[update][muon]") { pp::test::resumable::check("muon", update::muon{}); }

TEST_CASE("a push of muon for which there is no memory takes nothing from residuals", "[update][muon][errors]") {
  std::vector<pp::test::counting_device> const devices{pp::test::counting_device(0)};
  std::vector<float> g{1, 0.3F, -0.2F, 0.4F, 5, -6};
  auto const shape = pp::shape{2, 3};
  auto const trained = [&](int failing) {
    std::vector<float> w(6, 1);
    pp::kv_store store{devices, update::muon{.learning_rate = 0.1}, pp::compress::two_bit{0.5F}, pp::synchronous{}};
    store.init("w", pp::tensor_view(w.data(), shape));
    bool has_failed = false;
    devices[0].count().before_allocation = [&] {
      if (failing-- != 0) return;
      has_failed = true;
      throw pp::out_of_memory("no room");
    };
    for (int t = 0; t < 4; ++t) {
      try {
        store.push("w", pp::tensor_view(g.data(), shape)).wait();
      } catch (pp::out_of_memory const&) {
        store.push("w", pp::tensor_view(g.data(), shape)).wait();
      }
    }
    devices[0].count().before_allocation = nullptr;
    store.pull("w", pp::tensor_view(w.data(), shape)).wait();
    return std::pair(w, has_failed);
  };
  auto const expected = trained(-1).first;
  int failures = 0;
  for (bool failed = true; failed; failures += failed) {
    auto const result = trained(failures);
    REQUIRE(result.first == expected);
    failed = result.second;
  }
  REQUIRE(failures > 2);
}

TEST_CASE("muon refuses what its formula cannot use", "[update][muon]") {
  for (double const wrong : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    REQUIRE_THROWS_AS((update::muon{.learning_rate = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::muon{.momentum = wrong}.validate()), pp::invalid_argument);
    REQUIRE_THROWS_AS((update::muon{.weight_decay = wrong}.validate()), pp::invalid_argument);
  }
  REQUIRE_THROWS_AS((update::muon{.iterations = 100}.validate()), pp::invalid_argument);
  update::muon{}.validate();
}
