// expect: row-sparse gradients take no PreReduction
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
auto const rule = pp::update::clip_value(1) | pp::update::sgd{};
#else
auto const rule = pp::update::clip_global_norm(1) | pp::update::sgd{};
#endif
void push(pp::row_sparse<float> const& gradient) {
  pp::kv_store store{pp::cpu_devices(1), rule};
  store.push("w", gradient);
}
