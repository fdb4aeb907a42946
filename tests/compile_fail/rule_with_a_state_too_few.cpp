// expect: Updater: the rule cannot be called as rule.prepared_or_step, w, g, state
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
struct rule {
#ifdef CONTROL
  static constexpr auto state_names = pp::states("m");
#else
  static constexpr auto state_names = pp::states("m", "v");
#endif
  template <class S, class V>
  void operator()(S const&, V& w, V g, V& m) const noexcept {
    w -= m = g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, rule>;
