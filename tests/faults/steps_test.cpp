/// @file
/// Stores whose steps need more memory than a pass, under allocations that fail.
#include <vector>

#include <pushpull/pushpull.hpp>

#include "faults/store_calls.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using namespace pushpull::test::faults;

/// Sums of each tensor, and sums over all that go from step to step.
struct with_norms {
  static constexpr bool warm = false, dense_only = true;
  static auto other_rule() { return update::dynamic_loss_scale{} | update::lamb{.learning_rate = 0.5}; }
  static auto make(std::vector<device> const& devices) { return pp::kv_store{devices, other_rule()}; }
};

struct with_matrices {
  static constexpr bool warm = false, dense_only = true;
  static auto other_rule() { return update::adafactor{.learning_rate = 0.5}; }
  static auto make(std::vector<device> const& devices) { return pp::kv_store{devices, update::adafactor{}}; }
};

struct accumulating {
  static constexpr bool warm = false, dense_only = true, gathers = true;
  static auto other_rule() { return update::momentum{.learning_rate = 0.5}; }
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store{devices, update::momentum{}, pp::accumulate{3}};
  }
};

struct compressing {
  static constexpr bool warm = false, dense_only = true, stateless = true;
  static auto other_rule() { return update::sgd{0.5}; }
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store{devices, update::sgd{0.25}, pp::compress::two_bit{0.5F}, pp::synchronous{}};
  }
};

}  // namespace

TEST_CASE("after any allocation that fails in a call a store with norms holds what it held", "[faults]") {
  check_calls<with_norms>("norms");
}

TEST_CASE("after any allocation that fails in a call a store with sums of rows and columns holds what it held",
          "[faults]") {
  check_calls<with_matrices>("matrices");
}

TEST_CASE("after any allocation that fails in a call a store amid a window holds what it held", "[faults]") {
  check_calls<accumulating>("accumulate");
}

TEST_CASE("after any allocation that fails in a call a store that compresses holds what it held", "[faults]") {
  check_calls<compressing>("compressed, synchronous");
}
