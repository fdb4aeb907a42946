// expect: the key has another kind than the store
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
void f(pp::kv_store<float, pp::cpu_device<>>& store, std::vector<float> const& x) {
#ifdef CONTROL
  store.push("7", x);
#else
  store.push(7, x);
#endif
}
