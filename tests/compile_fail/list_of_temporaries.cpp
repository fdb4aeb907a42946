// expect: OutlivesCall: a temporary
#include <pushpull/pushpull.hpp>
#include <ranges>
#include <span>
#include <string>
#include <vector>
namespace pp = pushpull;
void f(pp::kv_store<float, pp::cpu_device<>>& store, std::vector<std::string> const& keys, std::vector<float>& x) {
#ifdef CONTROL
  store.init(keys, std::views::iota(0, 3) | std::views::transform([&](int) { return std::span(x); }));
#else
  store.init(keys, std::views::iota(0, 3) | std::views::transform([&](int) { return x; }));
#endif
}
