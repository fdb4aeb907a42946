// expect: operator\|: a stage's operator may throw amid a pass, where nothing could be undone: write noexcept
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
struct halved {
  static constexpr auto state_names = pp::states();
  template <class S, class V>
#ifdef CONTROL
  void operator()(S const&, V const&, V& g) const noexcept {
#else
  void operator()(S const&, V const&, V& g) const {
#endif
      g *= 0.5;
}
}
;
using pp::update::operator|;
[[maybe_unused]] auto const rule = halved{} | pp::update::sgd{};
