// expect: takes a state by value or as const
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct heavy_ball {
  static constexpr auto state_names = pp::states("first", "second");
  template <class S, class V>
#ifdef CONTROL
  void operator()(S const&, V& w, V g, V& first, V& second) const noexcept {
#else
  void operator()(S const&, V& w, V g, V& first, V second) const noexcept {
#endif
      first = 0.9 * first + g;
  second = 0.9 * second + first;
  w -= 0.1 * second;
}
}
;
template class pp::kv_store<float, pp::cpu_device<>, heavy_ball>;
