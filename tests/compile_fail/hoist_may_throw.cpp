// expect: the rule has a hoist, .* or one of the two may throw: write noexcept
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
constexpr bool quiet = true;
#else
constexpr bool quiet = false;
#endif
struct descent {
  static constexpr auto state_names = pp::states();
  template <class A>
  struct numbers {
    A rate;
  };
  template <class A>
  numbers<A> hoist(pp::step<A> const&) const noexcept(quiet) {
    return {A(0.1)};
  }
  template <class A, class V>
  void operator()(numbers<A> const& s, V& w, V g) const noexcept {
    w -= s.rate * g;
  }
  template <class A, class V>
  void operator()(pp::step<A> const&, V& w, V g) const noexcept {
    w -= 0.1 * g;
  }
};
template class pp::kv_store<float, pp::cpu_device<>, descent>;
