// expect: more than one Reduction
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
template class pp::kv_store<float, pp::cpu_device<>, pp::reduce::sum>;
#else
template class pp::kv_store<float, pp::cpu_device<>, pp::reduce::sum, pp::reduce::mean>;
#endif
