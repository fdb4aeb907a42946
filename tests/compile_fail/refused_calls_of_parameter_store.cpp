// case 1: a parameter's name is expected first
// case 2: Tensor: an argument is neither a tensor, a contiguous range of elements, nor a range of these
// case 3: Device: a device of the store, or its number, is expected behind the parameter's name
// case 4: Device: a tensor is on a device of another kind than the store's
#include <pushpull/pushpull.hpp>

#include "refused_calls.hpp"
using store_type = pp::kv_store<float, pp::cpu_device<>, pp::update::sgd>;
void f(pp::parameter_store<store_type>& parameters, pp::tensor_view<float, far_device>& far) {
#if defined(CONTROL)
  parameters.add("w", g);
  parameters.value("w", 0);
  (void)far;
#elif CASE == 1
  parameters.add(7, g);
#elif CASE == 2
  parameters.assign("w", number);
#elif CASE == 3
  parameters.grad("w", "gpu").data();
#else
  parameters.add("w", far);
#endif
}
