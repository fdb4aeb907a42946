/// @file
/// The calls of a store mean the same on every kind of store.
#include "store/face_test.hpp"

#include <pushpull/pushpull.hpp>
#include <string_view>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
using pp::update::sgd;
using device = pp::cpu_device<>;

bool is_bias(std::string_view name) { return name.ends_with("bias"); }

/// The same rule in every kind of store. @param given  Further policies.
template <class... P>
auto of_one_type(P const&... given) {
  return pp::kv_store(pp::cpu_devices(2), sgd{0.5}, given...);
}
template <class... P>
auto of_several_types(P const&... given) {
  return pp::make_kv_store<pp::type_list<float, double>>(pp::cpu_devices(2), sgd{0.5}, given...);
}
template <class... P>
auto of_several_rules(P const&... given) {
  return pp::kv_store(pp::cpu_devices(2), pp::rules{sgd{0.5}, pp::where(is_bias, pp::update::rescale(1.0) | sgd{0.5})},
                      given...);
}
template <class... P>
auto of_any_rule(P const&... given) {
  auto store = pp::create<float, double>("local", pp::cpu_devices(2));
  store.set_optimizer(sgd{0.5}, given...);
  return store;
}

/// f(an empty store) for each kind.
template <class F, class... P>
void with_each_kind(F const& f, P const&... given) {
  auto const check = [&](auto store) { f(store); };
  SECTION("kv_store") { check(of_one_type(given...)); }
  SECTION("several element types") { check(of_several_types(given...)); }
  SECTION("several rules") { check(of_several_rules(given...)); }
  SECTION("any_store") { check(of_any_rule(given...)); }
}

}  // namespace

TEST_CASE("every store takes dense tensors in the same calls", "[store]") {
  with_each_kind([](auto& store) { pp::test::check_dense_calls(store); });
}

TEST_CASE("every store takes row-sparse tensors in the same calls", "[store]") {
  with_each_kind([](auto& store) { pp::test::check_row_calls(store); });
}

TEST_CASE("every store has steps, groups, waiting and bytes", "[store]") {
  with_each_kind([](auto& store) { pp::test::check_key_calls(store, sgd{0.25}); });
}

TEST_CASE("every store adds micro-batches", "[store]") {
  with_each_kind([](auto& store) { pp::test::check_micro_batches(store); }, pp::accumulate{0});
}

TEST_CASE("every store refuses wrong calls by the same errors", "[store][errors]") {
  with_each_kind([](auto& store) { pp::test::check_errors(store); });
}
