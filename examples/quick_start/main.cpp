#include <cstdio>
#include <vector>

#include <pushpull/pushpull.hpp>

int main() {
  using namespace pushpull::update;
  std::vector<float> weight(100'000, 1.0F);
  std::vector<std::vector<float>> const gradients(4, std::vector<float>(100'000, 0.5F));  // one per source

  // Declare the store after the tensors that its calls borrow: it is then destroyed first, and waits for its work.
  pushpull::kv_store store{pushpull::cpu_devices(4), rescale(0.25) | weight_decay(1e-4) | adam{.learning_rate = 0.01}};
  store.init("fc1.weight", weight);
  for (int step = 0; step < 50; ++step) store.pushpull("fc1.weight", gradients, weight);
  store.wait();  // calls return when their work is enqueued
  std::printf("%zu weights of %.4f after %d steps\n", weight.size(), double{weight[0]}, int(store.steps("fc1.weight")));
}
