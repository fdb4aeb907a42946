// expect: one_element_at_a_time = true
#include <pushpull/pushpull.hpp>
#include <vector>
namespace pp = pushpull;
struct branch {
  static constexpr auto state_names = pp::states();
#ifdef CONTROL
  static constexpr bool one_element_at_a_time = true;
#endif
  template <class S, class V>
  void operator()(S const&, V& w, V g) const noexcept {
    if (g > 0) w -= g;
  }
};
void f(pp::kv_store<float, pp::cpu_device<>, branch>& store, std::vector<float> const& g) { store.push("w", g); }
