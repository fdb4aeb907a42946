// expect: OutputTensor
#include <pushpull/pushpull.hpp>
#include <vector>
namespace pp = pushpull;
void f(pp::kv_store<float, pp::cpu_device<>>& store,
#ifdef CONTROL
       std::vector<float>& y
#else
       std::vector<float> const& y
#endif
) {
  store.pull("w", y);
}
