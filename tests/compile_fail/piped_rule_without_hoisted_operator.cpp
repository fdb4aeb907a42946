// expect: a stage has a hoist, and no operator takes its result
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
#ifdef CONTROL
  template <class A, class V>
  void operator()(numbers<A> const& s, V& w, V g) const noexcept {
    w -= s.rate * g;
  }
#endif
  template <class A, class V>
  void operator()(pp::step<A> const&, V& w, V g) const noexcept {
    w -= 0.1 * g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, decltype(pp::update::rescale(2) | descent{})>;
