// expect: this Compressor does not take gradients of the store's element type
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using compressor = pp::compress::cast<pp::float8_e4m3>;
#else
using compressor = pp::compress::cast<pp::half>;
#endif
pp::kv_store<pp::bfloat16, pp::cpu_device<>, compressor> store(pp::cpu_devices(1));
