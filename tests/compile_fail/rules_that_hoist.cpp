// case 1: the rule has a hoist, and no operator takes its result
// case 2: the rule has a hoist, and no operator takes its result, or that operator takes the weight
// case 3: the rule has a hoist, .* or one of the two may throw
// case 4: a stage has a hoist, and no operator takes its result
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct descent {
  static constexpr auto state_names = pp::states();
  template <class A>
  struct numbers {
    A rate;
  };
#if CASE == 3
  template <class A>
  numbers<A> hoist(pp::step<A> const&) const {
    return {A(0.1)};
  }
#else
  template <class A>
  numbers<A> hoist(pp::step<A> const&) const noexcept {
    return {A(0.1)};
  }
#endif
#if CASE == 2
  template <class A, class V>
  void operator()(numbers<A> const& s, V w, V g) const noexcept {
    w -= s.rate * g;
  }
#elif CASE != 1 && CASE != 4
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
#if CASE == 4
using rule = decltype(pp::update::rescale(2) | descent{});
#else
using rule = descent;
#endif
template class pp::kv_store<float, pp::cpu_device<>, rule>;
