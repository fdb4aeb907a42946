// expect: TensorsOf|TensorLikeOf
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
void f(pp::kv_store<float, pp::cpu_device<>, pp::update::sgd>& store) {
#ifdef CONTROL
  std::vector<float> gradient;
#else
  std::vector<double> gradient;
#endif
  store.push("w", gradient);
}
