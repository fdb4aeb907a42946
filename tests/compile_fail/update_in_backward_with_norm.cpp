// expect: the rule is a PreReduction, which sums over the gradients of all parameters
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
void f() {
#ifdef CONTROL
  auto const rule = pp::update::sgd{0.1};
#else
  auto const rule = pp::update::clip_global_norm(1) | pp::update::sgd{0.1};
#endif
  pp::kv_store store{pp::cpu_devices(1), rule};
  pp::parameter_store parameters{store};
  parameters.update_in_backward();
}
