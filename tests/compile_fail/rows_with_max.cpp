// expect: row-sparse gradients need an AdditiveReduction
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using reduction = pp::reduce::mean;
#else
using reduction = pp::reduce::max;
#endif
void push(pp::kv_store<float, pp::cpu_device<>, reduction>& store, pp::row_sparse<float> const& gradient) {
  store.push("w", gradient);
}
