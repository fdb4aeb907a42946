// expect: ElementType
#include <pushpull/pushpull.hpp>

#include <complex>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
using element = float;
#else
using element = std::complex<float>;
#endif
pp::tensor<element>* t;
