// expect: the rule has a hoist, .* or that operator takes the weight or a state by value
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
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
#ifdef CONTROL
  void operator()(numbers<A> const& s, V& w, V g) const noexcept {
#else
  void operator()(numbers<A> const& s, V w, V g) const noexcept {
#endif
    w -= s.rate * g;
  }
  template <class A, class V>
  void operator()(pp::step<A> const&, V& w, V g) const noexcept {
    w -= 0.1 * g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, descent>;
