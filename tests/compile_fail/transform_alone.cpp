// expect: a GradientTransform alone is no rule
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
using rule = pp::update::pipeline<pp::update::rescale, pp::update::sgd>;
#else
using rule = pp::update::rescale;
#endif
template class pp::kv_store<float, pp::cpu_device<>, rule>;
