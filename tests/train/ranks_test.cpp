#include <cstddef>
#include <cstdint>
#include <map>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/module.hpp>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/temporary_folder.hpp"
#include "train/models.hpp"

using namespace pushpull;
using namespace pushpull::test;

TEST_CASE("Ranks train as one process does, with and without overlap, and save once [C5.2] [D3]", "[train][ranks]") {
  std::int64_t const in = 3, out = 2;
  linear_batch const whole{12, in, out};
  std::vector<float> const w0 = numbers(6, 5), b0 = numbers(2, 6);
  float const zero = 0;
  std::map<std::string, tensor_view<float const>> const args{{"weight", tensor_view(w0.data(), shape{out, in})},
                                                             {"bias", tensor_view(b0.data(), shape{out})}},
      aux{{"seen", tensor_view(&zero, shape{1})}};
  linear_reference expected(w0, b0);
  for (int step = 0; step < 5; ++step) expected.step(whole, 0.1);
  temporary_folder const folder;
  std::vector<float> const others(6, 3);  // a rank's own values, which do not count
  std::map<std::string, tensor_view<float const>> const args_of_others{
      {"weight", tensor_view(others.data(), shape{out, in})}, {"bias", tensor_view(others.data(), shape{out})}};
  struct way {
    train::overlap overlap;
    bool on_store;
  };
  for (way const chosen :
       {way{train::overlap::automatic, true}, way{train::overlap::off, true}, way{train::overlap::off, false}})
    comm::run_ranks(2, [&](comm::threads const& ranks) {
      auto const first = static_cast<std::size_t>(ranks.rank()) * 6;  // each takes half of every batch
      train::batch<> const own{.data = {tensor_view<float const>(whole.x.data() + first * 3, shape{6, in})},
                               .labels = {tensor_view<float const>(whole.t.data() + first * 2, shape{6, out})}};
      train::module model(linear_factory{out}, cpu_devices(2));
      model.bind({{.name = "x", .shape = shape{6, in}}}, {{.name = "t", .shape = shape{6, out}}});
      model.set_params(ranks.rank() == 0 ? args : args_of_others, aux);
      update::sgd const rule{.learning_rate = 0.1};
      train::optimizer_options const options{.overlap = chosen.overlap};
      chosen.on_store ? model.init_optimizer(rule, options, ranks)
                      : model.init_optimizer(rule, train::on_each_device, options, ranks);
      for (int step = 0; step < 5; ++step) {
        model.forward(own);
        model.backward();
        model.update();
      }
      auto const trained = to_vector(model.params().args.find("weight")->second);
      for (std::size_t i = 0; i < trained.size(); ++i) {
        float const error = trained[i] - static_cast<float>(expected.weight[i]);
        expect(error < 1e-5F && error > -1e-5F);
      }
      model.save_checkpoint(folder.file("model").string(), 5);
      model.set_params(ranks.rank() == 0 ? args : args_of_others, aux);
      expect(to_vector(model.params().args.find("weight")->second) == w0);
      model.load_checkpoint(folder.file("model").string(), 5);
      expect(to_vector(model.params().args.find("weight")->second) == trained);

      train::module partly(linear_factory{out}, cpu_devices(2), {.fixed = {"bias"}});
      partly.bind({{.name = "x", .shape = shape{6, in}}}, {{.name = "t", .shape = shape{6, out}}});
      partly.set_params(ranks.rank() == 0 ? args : args_of_others, aux);
      chosen.on_store ? partly.init_optimizer(rule, options, ranks)
                      : partly.init_optimizer(rule, train::on_each_device, options, ranks);
      expect(to_vector(partly.params().args.find("bias")->second) == b0);
      partly.set_params(ranks.rank() == 0 ? args_of_others : args, aux);
      expect(to_vector(partly.params().args.find("bias")->second) == std::vector<float>(2, 3));
    });
}
