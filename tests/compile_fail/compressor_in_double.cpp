// expect: a Compressor needs a store that computes in float
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using masters = pp::element::master<float>;
#else
using masters = pp::element::master<double>;
#endif
pp::kv_store<float, pp::cpu_device<>, pp::update::sgd, pp::compress::top_k, masters> store(pp::cpu_devices(1));
