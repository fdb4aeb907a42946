// expect: so it changes nothing
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct halve {
  static constexpr auto state_names = pp::states();
  template <class S, class V>
#ifdef CONTROL
  void operator()(S const&, V const&, V& g) const noexcept {
#else
  void operator()(S const&, V const&, V g) const noexcept {
#endif
      g *= 0.5;
}
}
;
#ifdef CONTROL
using rule = pp::update::pipeline<halve, pp::update::sgd>;
#else
using rule = halve;
#endif
template class pp::kv_store<float, pp::cpu_device<>, rule>;
