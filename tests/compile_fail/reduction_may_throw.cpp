// expect: kv_store: the reduction does not model Reduction, whose operator and finish are noexcept
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct last_one {
  using policy_kind = pp::reduction_tag;
  template <class V>
#ifdef CONTROL
  V operator()(V, V b) const noexcept {
#else
  V operator()(V, V b) const {
#endif
      return b;
} template <class V>
V finish(V total, int) const noexcept {
  return total;
}
}
;
template class pp::kv_store<float, pp::cpu_device<>, pp::update::sgd, last_one>;
