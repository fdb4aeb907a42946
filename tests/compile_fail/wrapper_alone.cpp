// expect: stand behind a rule
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using rule = pp::update::ema<pp::update::sgd>;
#else
using rule = pp::update::ema<>;
#endif
template class pp::kv_store<float, pp::cpu_device<>, rule>;
