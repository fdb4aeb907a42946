// expect: takes a state by value or as const
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct centered {
  static constexpr auto state_names = pp::states("average");
  template <class S, class V>
#ifdef CONTROL
  void operator()(S const&, V const&, V& g, V& average) const noexcept {
#else
  void operator()(S const&, V const&, V& g, V average) const noexcept {
#endif
      average = 0.9 * average + 0.1 * g;
  g -= average;
}
}
;
using pp::update::operator|;
[[maybe_unused]] auto const rule = centered{} | pp::update::sgd{};
