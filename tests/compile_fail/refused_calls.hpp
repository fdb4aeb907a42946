// The arguments of refused_calls_*.cpp, which include the umbrella header first.
#include <complex>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace pp = pushpull;
using floats = std::vector<float>;
using strings = std::vector<std::string>;

/// A device that is neither the host nor of the store's kind.
struct far_device : pp::cpu_device<> {
  struct memory_space {};
  using pp::cpu_device<>::cpu_device;
};

inline floats g, output;
inline floats const constant;
inline std::vector<double> doubles;
inline std::vector<floats> sources;
inline std::vector<std::vector<floats>> lists;
inline strings const keys;
inline std::vector<int> const ids;
inline std::complex<float> number;
