/// @file
/// kv_store with a rule and without one, under allocations that fail.
#include <vector>

#include <pushpull/pushpull.hpp>

#include "faults/store_calls.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using namespace pushpull::test::faults;

template <bool Warm>
struct with_rule {
  static constexpr bool warm = Warm, averages = true;
  static auto rule(double rate = 0.25) { return update::momentum{.learning_rate = rate} | update::ema(0.5); }
  static auto other_rule() { return rule(0.125); }
  static auto make(std::vector<device> const& devices) { return pp::kv_store{devices, rule()}; }
};

struct without_rule {
  static constexpr bool warm = false, stateless = true;
  static auto make(std::vector<device> const& devices) { return pp::kv_store{devices}; }
};

struct with_function {
  static constexpr bool warm = false;
  static auto make(std::vector<device> const& devices) {
    pp::kv_store<float, device> store{devices};
    store.set_updater([](auto, auto const& received, auto const& stored) {
      for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += received.data()[i];
    });
    return store;
  }
};

}  // namespace

TEST_CASE("after any allocation that fails in a call a store with a rule holds what it held", "[faults]") {
  check_calls<with_rule<false>>("rule");
}

TEST_CASE("after any allocation that fails in a call a store that has made steps holds what it held", "[faults]") {
  check_calls<with_rule<true>>("rule, after steps");
}

TEST_CASE("after any allocation that fails in a call a store without a rule holds what it held", "[faults]") {
  check_calls<without_rule>("no rule");
}

TEST_CASE("after any allocation that fails in a call a store with a function holds what it held", "[faults]") {
  calls<store_subject<with_function>> const all("function");
  all.check("push", [](auto& s) { s.store->push("a", s.a).wait(); });
  all.check("pushpull of a list", [](auto& s) { s.store->pushpull(s.both, s.values, s.outputs); });
}
