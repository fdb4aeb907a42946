// case 1: add_group: the rule has another type than the store's
// case 2: the call takes other arguments than these
// case 3: add_group: the rule has another type than the store's
#include <pushpull/pushpull.hpp>

#include "refused_calls.hpp"
using sgd = pp::update::sgd;
using adam = pp::update::adam;
using rules_store = pp::kv_store<float, pp::cpu_device<>, pp::rules<sgd, pp::update::momentum>>;
void f(pp::kv_store<float, pp::cpu_device<>, sgd>& store, rules_store& several) {
  auto const belongs = [](std::string_view) { return true; };
#if defined(CONTROL)
  store.add_group(belongs, sgd{0.1});
  store.add_group(belongs, {.learning_rate = 0.1});
  several.add_group(belongs, pp::update::momentum{});
#elif CASE == 1
  store.add_group(belongs, adam{});
#elif CASE == 2
  store.add_group(1, sgd{0.1});
#else
  several.add_group(belongs, adam{});
#endif
}
