/// @file
/// kv_store with a rule and without one, under allocations that fail.
#include <cstddef>
#include <vector>

#include <pushpull/pushpull.hpp>
#include <pushpull/store/table/embedding_table.hpp>

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

/// A full table of two rows, and an id that has been seen once. A call that fails may have given ids rows, but each id has its
/// own row.
struct table : subject {
  std::vector<device> devices{failing_devices()[0]};
  pp::kv_store<float, device, update::momentum> store{devices, update::momentum{.learning_rate = 1}};
  pp::table_options const options{
      .capacity = 2, .initial_rows = 2, .admission = 2, .evicts = pp::eviction::least_recently_used};
  pp::embedding_table<decltype(store)> rows{store, "w", 1, options, pp::zero_rows{}};

  table() {
    for (int i = 0; i < 2; ++i) push({1, 2}, -5);
    push({3}, 0);
  }
  void push(ids const& which, float gradient) { rows.push(which, floats(which.size(), gradient)); }
  std::vector<double> held() override {
    auto const all = rows.export_rows();
    std::vector<double> wrong;
    for (std::size_t i = 0; i < all.ids.size(); ++i)
      wrong.push_back(static_cast<double>(all.values[i]) - (all.ids[i] <= 2 ? 5 : 0));
    return wrong;
  }
  void work_on() override {
    for (int i = 0; i < 2; ++i) push({4, 5}, 0);
  }
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

TEST_CASE("after any allocation that fails in a call that evicts each id of a table has its own row", "[faults]") {
  calls<table> const all("table");
  all.check("pull", [](auto& s) {
    floats out(2);
    s.rows.pull(ids{3, 4}, out);
  });
}

TEST_CASE("after any allocation that fails in a call a store with a function holds what it held", "[faults]") {
  calls<store_subject<with_function>> const all("function");
  all.check("push", [](auto& s) { s.store->push("a", s.a).wait(); });
  all.check("pushpull of a list", [](auto& s) { s.store->pushpull(s.both, s.values, s.outputs); });
}
