/// @file
/// Linear regression as large models are trained: bfloat16 gradients over float weights, a loss scale, groups of parameters
/// with rates of their own, and steps of several micro-batches.
#include <cmath>
#include <cstdio>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

using namespace pushpull;

int main() {
  // example-begin store
  int const micro_batches = 4;
  auto const rule = [](double decay) {
    return update::dynamic_loss_scale{} | update::rescale(1.0 / micro_batches) | update::clip_global_norm(10) |
           update::adamw{.learning_rate = 0.05, .weight_decay = decay};
  };
  auto store = make_kv_store<bfloat16>(cpu_devices(2), rule(0.01), element::master<float>{}, accumulate{micro_batches});
  store.add_group([](std::string_view name) { return name.ends_with("bias"); }, rule(0));
  // example-end store

  parameter_store model{store};
  model.add("line.weight", std::vector<float>{0});
  model.add("line.bias", std::vector<float>{0});

  // y = 3 x - 1, half of each micro-batch on each device.
  // example-begin loop
  auto const mean_gradient = [&](std::size_t device, std::size_t batch) {
    double const scale = *store.loss_scale(device);
    double weight = 0, bias = 0;
    for (std::size_t i = 0; i < 8; ++i) {
      double const x = std::sin(1.0 + static_cast<double>(16 * batch + 8 * device + i));
      double const error = convert<float>(model.value("line.weight", device).data()[0]) * x +
                           convert<float>(model.value("line.bias", device).data()[0]) - (3 * x - 1);
      weight += error * x / 16;
      bias += error / 16;
    }
    model.grad("line.weight", device).data()[0] = convert<bfloat16>(static_cast<float>(scale * weight));
    model.grad("line.bias", device).data()[0] = convert<bfloat16>(static_cast<float>(scale * bias));
  };
  for (std::size_t batch = 0; batch < 300 * micro_batches; ++batch) {
    for (std::size_t device = 0; device < 2; ++device) mean_gradient(device, batch);
    model.update_all();  // every fourth call makes a step
  }
  // example-end loop

  double const weight = convert<float>(model.value("line.weight", 0).data()[0]);
  double const bias = convert<float>(model.value("line.bias", 0).data()[0]);
  std::printf("weight %.3f (3 expected), bias %.3f (-1 expected), %lld steps, loss scale %.0f\n", weight, bias,
              static_cast<long long>(store.steps("line.weight")), *store.loss_scale(0));
  return std::abs(weight - 3) < 0.1 && std::abs(bias + 1) < 0.1 ? 0 : 1;
}
