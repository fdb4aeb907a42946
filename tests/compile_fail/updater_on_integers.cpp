// expect: an Updater needs floating-point elements
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
template class pp::kv_store<float, pp::cpu_device<>, pp::update::sgd>;
#else
template class pp::kv_store<std::int32_t, pp::cpu_device<>, pp::update::sgd>;
#endif
