// expect: WritableTensorLikeOf
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
void f(std::vector<float>& x,
#ifdef CONTROL
       std::vector<float>& y
#else
       std::vector<float> const& y
#endif
) {
  pp::copy(x, y);
}
