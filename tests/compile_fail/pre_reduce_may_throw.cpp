// expect: PreReduction: pre_reduce may throw
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct unit_gradient {
  static constexpr auto state_names = pp::states();
  template <class S, class V>
#ifdef CONTROL
  V pre_reduce(S const&, V, V g) const noexcept {
#else
  V pre_reduce(S const&, V, V g) const {
#endif
      return g * g;
} template <class A>
A prepare(pp::step<A> const&, double sum) const {
  return static_cast<A>(sum > 0 ? 1 / sum : 0);
}
template <class A, class V>
void operator()(A const& factor, V const&, V& g) const noexcept {
  g *= factor;
}
}
;
using pp::update::operator|;
auto const rule = unit_gradient{} | pp::update::sgd{};
pp::kv_store<float, pp::cpu_device<>, std::remove_const_t<decltype(rule)>> store(pp::cpu_devices(1), rule);
