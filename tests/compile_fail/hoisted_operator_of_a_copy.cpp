// expect: the rule has a hoist, .* or that operator takes the weight or a state by value
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
template <class V>
using weight = V&;
#else
template <class V>
using weight = V;
#endif
struct descent {
  static constexpr auto state_names = pp::states();
  template <class A>
  struct numbers {
    A rate;
  };
  template <class A>
  numbers<A> hoist(pp::step<A> const&) const noexcept {
    return {A(0.1)};
  }
  template <class A, class V>
  void operator()(numbers<A> const& s, weight<V> w, V g) const noexcept {
    w -= s.rate * g;
  }
  template <class A, class V>
  void operator()(pp::step<A> const&, V& w, V g) const noexcept {
    w -= 0.1 * g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, descent>;
