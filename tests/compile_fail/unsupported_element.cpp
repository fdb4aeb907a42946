// expect: ElementType
#include <complex>
#include <pushpull/pushpull.hpp>
#include <vector>
namespace pp = pushpull;
#ifdef CONTROL
using element = float;
#else
using element = std::complex<float>;
#endif
pp::tensor<element>* t;
