// expect: Updater: the rule has no list state_names
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
struct rule {
#ifdef CONTROL
  static constexpr auto state_names = pp::states();
#endif
  template <class S, class V>
  void operator()(S const&, V& w, V g) const noexcept {
    w -= g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, rule>;
