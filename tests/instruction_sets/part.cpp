#include "part.hpp"

#include <vector>

#include <pushpull/pushpull.hpp>

double PART(char const* key) {
  using namespace pushpull::update;
  std::vector<float> weight(1000, 1.0F);
  std::vector<float> const gradient(1000, 0.5F);
  pushpull::kv_store store{pushpull::cpu_devices(2), rescale(0.5) | adam{.learning_rate = 0.01}};
  store.init("w", weight);
  store.pushpull(key, gradient, weight);
  store.wait();
  return double{weight[0]};
}
