// expect: the rule has hoist, but it or a second operator
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct descent {
  static constexpr auto state_names = pp::states();
  template <class A>
  A hoist(pp::step<A> const&) const noexcept {
    return A(0.1);
  }
#ifdef CONTROL
  template <class V>
  void operator()(float const& rate, V& w, V g) const noexcept {
    w -= rate * g;
  }
#endif
  template <class A, class V>
  void operator()(pp::step<A> const&, V& w, V g) const noexcept {
    w -= 0.1 * g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, descent>;
