// A program whose author has made every warning an error: see CMakeLists.txt, which compiles it with our headers as
// headers of its own. It instantiates what warnings are found in.
#include <pushpull/checkpoint/optimizer_states.hpp>

#include <vector>

#include <pushpull/lr_schedule.hpp>
#include <pushpull/pushpull.hpp>

namespace {

namespace update = pushpull::update;
namespace compress = pushpull::compress;

template <class Store>
void train(Store& store) {
  std::vector<float> weight(100, 1.0F);
  std::vector<std::vector<float>> const gradients(2, std::vector<float>(100, 0.5F));
  store.init("weight", weight);
  store.push("weight", gradients);
  store.pull("weight", weight);
  store.pushpull("weight", gradients, weight);
  store.wait();
}

template <class Store>
void train_rows(Store& store) {
  pushpull::row_sparse<float> const gradient(pushpull::cpu_device<>(), {10, 10});
  pushpull::row_sparse<float> rows(pushpull::cpu_device<>(), {10, 10});
  std::vector<std::int64_t> const ids{1, 2};
  store.init("table", pushpull::tensor<float>(pushpull::cpu_device<>(), {10, 10}));
  store.push("table", gradient);
  store.row_sparse_pull("table", rows, ids);
  store.wait();
}

}  // namespace

int main() {
  pushpull::kv_store store{pushpull::cpu_devices(2), update::dynamic_loss_scale{} | update::clip_global_norm(1) |
                                                         update::add_noise(0.1) | update::lamb{}};
  train(store);
  pushpull::kv_store compressed{pushpull::cpu_devices(2), update::sgd{}, compress::two_bit{}};
  train(compressed);
  auto any = pushpull::create("local");
  any.set_optimizer(update::nadam{} | update::learning_rate(pushpull::lr_schedule::cosine{.base = 0.1, .updates = 9}));
  train(any);
  train_rows(any);

  pushpull::kv_store<pushpull::bfloat16, pushpull::cpu_device<>, update::adam, pushpull::element::master<float>> narrow{
      pushpull::cpu_devices(2), update::adam{}};
  pushpull::parameter_store parameters{narrow};
  std::vector<pushpull::bfloat16> weight(100);
  parameters.add("weight", weight);
  parameters.update_all();
  narrow.wait();
  pushpull::checkpoint::save_optimizer_states(narrow, "strict.safetensors");
  pushpull::checkpoint::load_optimizer_states(narrow, "strict.safetensors");
}
