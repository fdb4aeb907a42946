// Succeeds if a push changes a weight.
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/update/sgd.hpp>
#include <vector>

int main() {
  std::vector<float> weight(1000, 1.0F);
  pushpull::kv_store store{pushpull::cpu_devices(1), pushpull::update::sgd{.learning_rate = 0.5}};
  store.init("w", weight);
  store.pushpull("w", weight, weight).wait();
  return weight[999] == 0.5F ? 0 : 1;
}
