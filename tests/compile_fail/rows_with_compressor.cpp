// expect: a Compressor takes dense gradients
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using compressor = pp::compress::none;
#else
using compressor = pp::compress::two_bit;
#endif
void push(pp::kv_store<float, pp::cpu_device<>, compressor>& store, pp::row_sparse<float> const& gradient) {
  store.push("w", gradient);
}
