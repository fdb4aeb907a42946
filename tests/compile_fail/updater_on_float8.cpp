// expect: an Updater needs floating-point elements
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
template class pp::kv_store<pp::bfloat16, pp::cpu_device<>, pp::update::sgd, pp::element::master<float>>;
#else
template class pp::kv_store<pp::bfloat16, pp::cpu_device<>, pp::update::sgd, pp::element::master<pp::float8_e4m3>>;
#endif
