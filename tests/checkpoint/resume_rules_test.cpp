/// @file
/// Every elementwise rule resumes from a checkpoint bit for bit, on any number of devices.
#include <pushpull/pushpull.hpp>

#include "checkpoint/resume.hpp"
#include "support/catch.hpp"
#include "update/formulas.hpp"

TEST_CASE("every elementwise rule resumes bit for bit", "[optimizer_states][resume]") {
  pushpull::test::for_each_rule(
      [](char const* name, auto const& rule, auto const&) { pushpull::test::resumable::check(name, rule); });
}
