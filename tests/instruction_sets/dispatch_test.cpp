#include <cstddef>
#include <cstring>
#include <vector>

#include <pushpull/error.hpp>

#include "part.hpp"
#include "support/catch.hpp"

namespace {

struct part {
  char const* name;
  bool runs;
  double (*train)(char const*);
  std::vector<double> (*results)();
};

std::vector<part> newer_parts() {
  bool newest = true, widest = true;
#if defined(__x86_64__)
  newest = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  widest = newest && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
#endif
  return {{"newest", newest, train_on_newest, results_on_newest},
          {"widest", widest, train_on_widest, results_on_widest}};
}

}  // namespace

TEST_CASE("Parts compiled for different processors work in one program") {
  double const oldest = train_on_oldest("w");
  CHECK(oldest == Approx(0.99).epsilon(1e-6));
  CHECK_THROWS_AS(train_on_oldest("typo"), pushpull::unknown_key);
  for (part const& p : newer_parts()) {
    if (!p.runs) continue;
    INFO(p.name);
    CHECK(p.train("w") == Approx(oldest).epsilon(1e-6));
    CHECK_THROWS_AS(p.train("typo"), pushpull::unknown_key);
  }
}

TEST_CASE("Rules have the same bits with and without fused products and for all sizes of registers") {
  auto const expected = results_on_oldest();
  for (part const& p : newer_parts()) {
    if (!p.runs) {
      WARN("skipped: this processor has no instructions of the " << p.name << " part");
      continue;
    }
    auto const given = p.results();
    REQUIRE(given.size() == expected.size());
    std::size_t different = 0;
    for (std::size_t i = 0; i < given.size(); ++i)
      different += std::memcmp(&given[i], &expected[i], sizeof(double)) != 0;
    INFO(p.name << " of " << given.size());
    CHECK(different == 0);
  }
}
