// expect: Updater: the rule is not trivially copyable
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
struct rule {
#ifndef CONTROL
  std::vector<float> history;
#endif
  static constexpr auto state_names = pp::states();
  template <class S, class V>
  void operator()(S const&, V& w, V g) const noexcept {
    w -= g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, rule>;
