// expect: may throw amid a pass, where nothing could be undone: write noexcept
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct descent {
  static constexpr auto state_names = pp::states();
  template <class S, class V>
#ifdef CONTROL
  void operator()(S const&, V& w, V g) const noexcept {
#else
  void operator()(S const&, V& w, V g) const {
#endif
      w -= 0.1 * g;
}
}
;
template class pp::kv_store<float, pp::cpu_device<>, descent>;
