#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <pushpull/train/module.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;
using train::module;

namespace {

using net = module<linear_factory>;
using values = std::map<std::string, std::vector<float>>;

std::int64_t const in = 3, out = 2;

/// A module that collects its warnings.
struct warned {
  std::vector<std::string> texts;
  train::module_options options(train::module_options base = {}) {
    base.warn = [this](std::string const& text) { texts.push_back(text); };
    return base;
  }
};

std::map<std::string, tensor_view<float const>> args(std::vector<float> const& w, std::vector<float> const& b) {
  return {{"weight", tensor_view(w.data(), shape{out, in})}, {"bias", tensor_view(b.data(), shape{out})}};
}
std::map<std::string, tensor_view<float const>> seen(float const& x) { return {{"seen", tensor_view(&x, shape{1})}}; }
float const zero = 0;

std::vector<float> weight_of(net const& m) { return to_vector(m.params().args.find("weight")->second); }
std::vector<float> bias_of(net const& m) { return to_vector(m.params().args.find("bias")->second); }

std::vector<float> const w0 = numbers(6, 5), b0 = numbers(2, 6);

void check_close(std::vector<float> const& found, std::vector<double> const& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(2e-5));
}

/// Bound, with values w0 and b0.
void begin(net& m, linear_batch const& batch, train::module_bind_options options = {}) {
  m.bind(batch.descs().data, batch.descs().labels, options);
  m.set_params(args(w0, b0), seen(zero));
}

}  // namespace

TEST_CASE(
    "A module trains as the closed form does, over a rule, a store and a name [C5.1] [C6.1] [C6.2] [C6.3] [C6.5] "
    "[C14-10]",
    "[train][module]") {
  linear_batch const full{13, in, out}, rest{5, in, out};
  for (int devices : {1, 2, 3}) {
    auto const check = [&](auto const& init) {
      net m(linear_factory{out}, cpu_devices(devices));
      begin(m, full);
      init(m);
      linear_reference expected(w0, b0);
      for (auto const* batch : {&full, &rest, &full, &rest}) {
        m.forward(batch->view());
        m.backward();
        m.update();
        expected.step(*batch, 0.1);
      }
      check_close(weight_of(m), expected.weight);
      check_close(bias_of(m), expected.bias);
      for (std::size_t k = 0; k < static_cast<std::size_t>(devices); ++k)
        CHECK(to_vector(m.group().param(0, k)) == weight_of(m));
    };
    update::sgd const rule{.learning_rate = 0.1};
    check([&](net& m) { m.init_optimizer(rule); });
    check([&](net& m) { m.init_optimizer(rule, {.update_on_store = false}); });
    check([&](net& m) { m.init_optimizer("local", rule); });
  }
}
