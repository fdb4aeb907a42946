// expect: Device
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
using device = pp::cpu_device<>;
#else
using device = int;
#endif
using store = pp::kv_store<float, device>;
store* s;
