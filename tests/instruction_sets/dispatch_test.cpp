#include <pushpull/error.hpp>

#include "part.hpp"
#include "support/catch.hpp"

TEST_CASE("Parts compiled for different processors work in one program") {
  double const oldest = train_on_oldest("w");
  CHECK(oldest == Approx(0.99).epsilon(1e-6));
  CHECK_THROWS_AS(train_on_oldest("typo"), pushpull::unknown_key);
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
#endif
  CHECK(train_on_newest("w") == Approx(oldest).epsilon(1e-6));
  CHECK_THROWS_AS(train_on_newest("typo"), pushpull::unknown_key);
}
