// expect: OutputTensor|OutlivesCall: a temporary
#include <pushpull/pushpull.hpp>
#include <vector>
namespace pp = pushpull;
void f(pp::kv_store<float, pp::cpu_device<>>& store, std::vector<float>& y) {
#ifdef CONTROL
  store.pull("w", pp::view_of(y));
#else
  store.pull("w", std::vector<float>(y.size()));
#endif
}
