// expect: a rule ends a pipe
#include <pushpull/pushpull.hpp>
namespace update = pushpull::update;
#ifdef CONTROL
[[maybe_unused]] auto const rule = update::clip_value(1) | update::sgd{};
#else
[[maybe_unused]] auto const rule = update::sgd{} | update::clip_value(1);
#endif
