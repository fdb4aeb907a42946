// case 1: the key has another kind than the store's: keys are strings
// case 2: TensorsOf: a tensor has another element type than the store
// case 3: the key has another kind than the store's: keys are strings
// case 4: TensorsOf: a tensor has another element type than the store
#include <pushpull/pushpull.hpp>

#include "refused_calls.hpp"
using typed = pp::kv_store<pp::type_list<float, pp::bfloat16>, pp::cpu_device<>>;
using ruled = pp::kv_store<float, pp::cpu_device<>, pp::rules<pp::update::sgd, pp::update::adam>>;
void f(typed& by_type, ruled& by_rule) {
#if defined(CONTROL)
  by_type.push("w", g);
  by_rule.push("w", g);
#elif CASE == 1
  by_type.pull(7, output);
#elif CASE == 2
  by_type.push("w", doubles);
#elif CASE == 3
  by_rule.push(7, g);
#else
  by_rule.pushpull("w", doubles, output);
#endif
}
