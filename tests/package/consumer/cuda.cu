// nvcc gets C++20, pushpull.cuh and, where range-v3 is installed, a range-v3 that it can compile.
#include <concepts>
#include <cstdlib>
#include <pushpull/pushpull.cuh>

static_assert(std::same_as<int, int>);

#if __has_include(<range/v3/view/transform.hpp>)
#include <range/v3/numeric/accumulate.hpp>
#include <range/v3/view/iota.hpp>
#include <range/v3/view/transform.hpp>

// Runs before main. range-v3 keeps a lambda with a capture in the class whose header was changed.
[[maybe_unused]] static bool const pipelines_work = [] {
  int const factor = 2;
  auto const even = ranges::views::iota(0, 4) | ranges::views::transform([=](int i) { return factor * i; });
  if (ranges::accumulate(even, 0) != 12) std::abort();
  return true;
}();
#endif
