// expect: more than one Updater among the policies
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
template class pp::kv_store<float, pp::cpu_device<>, pp::update::sgd>;
#else
template class pp::kv_store<float, pp::cpu_device<>, pp::update::sgd, pp::update::adam>;
#endif
