// case 1: the key has another kind than the store's: keys are strings
// case 2: TensorsOf: a tensor has another element type than the store
// case 3: OutlivesCall: a temporary that owns its elements ends before the work does
// case 4: TensorListOf: a range of keys takes a range that has a tensor, or a range of them, per key
// case 5: Device: a tensor is on a device of another kind than the store's
#include <pushpull/pushpull.hpp>

#include "refused_calls.hpp"
void f(pp::created_store_t<pp::cpu_device<>>& store, pp::tensor_view<float, far_device>& far) {
#if defined(CONTROL)
  store.push(7, g).wait();
  store.pull("w", output);
  (void)far;
#elif CASE == 1
  store.push(number, g).wait();
#elif CASE == 2
  store.push("w", doubles);
#elif CASE == 3
  store.pushpull("w", floats(3), output);
#elif CASE == 4
  store.pull(keys, output);
#else
  store.pull("w", far);
#endif
}
