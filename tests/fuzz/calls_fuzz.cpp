/// @file
/// Random programs of calls over several kinds of store.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "fuzz/calls.hpp"
#include "fuzz/input.hpp"
#include "fuzz/models.hpp"

namespace {

namespace pp = pushpull;
using devices = std::vector<pp::cpu_device<>>;
using pp::test::descent;
using pp::test::halving;
using pp::test::update_kind;

struct of_a_rule {
  static constexpr std::int64_t micro_batches = 0;
  static constexpr bool rows = true, has_steps = true;
  static update_kind update_of(std::string_view) { return update_kind::halves; }
  static std::vector<float> state(auto& store, std::string const& key) { return store.state(key, "m"); }
};
struct with_rule : of_a_rule {
  static auto make(devices const& d) { return pp::kv_store{d, halving{}}; }
};
struct without_rule : of_a_rule {
  static constexpr bool has_steps = false;
  static update_kind update_of(std::string_view) { return update_kind::replaces; }
  static auto make(devices const& d) { return pp::kv_store{d}; }
};
struct accumulating : of_a_rule {
  static constexpr std::int64_t micro_batches = 3;
  static constexpr bool rows = false;
  static auto make(devices const& d) { return pp::kv_store{d, halving{}, pp::accumulate{3}}; }
};
struct of_several_rules : of_a_rule {
  static bool is_b(std::string_view key) { return key.starts_with('b'); }
  static update_kind update_of(std::string_view key) { return is_b(key) ? update_kind::descends : update_kind::halves; }
  static auto make(devices const& d) { return pp::kv_store{d, pp::rules{halving{}, pp::where(is_b, descent{})}}; }
};

struct chosen_at_run_time : of_a_rule {
  static std::vector<float> state(auto& store, std::string const& key) {
    std::vector<std::byte> const bytes = store.state(key, "m");
    std::vector<float> elements(bytes.size() / sizeof(float));
    if (!bytes.empty()) std::memcpy(elements.data(), bytes.data(), bytes.size());
    return elements;
  }
  static auto make(devices const& d) {
    auto store = pp::create("device", d);
    store.set_optimizer(halving{});
    return store;
  }
};
struct of_a_function : of_a_rule {
  static constexpr bool rows = false, has_steps = false;
  static update_kind update_of(std::string_view) { return update_kind::descends; }
  static auto make(devices const& d) {
    pp::kv_store store{d};
    store.set_updater([](auto const&, auto const& received, auto const& stored) {
      for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] -= received.data()[i];
    });
    return store;
  }
};

template <class Kind>
void run(pp::test::fuzz_input& input) {
  pp::test::call_program<Kind>(input).run();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  pp::test::fuzz_input input({data, size});
  switch (input.below(7)) {
    case 0: run<with_rule>(input); break;
    case 1: run<without_rule>(input); break;
    case 2: run<accumulating>(input); break;
    case 3: run<of_several_rules>(input); break;
    case 4: run<chosen_at_run_time>(input); break;
    case 5: run<of_a_function>(input); break;
    case 6: pp::test::model_program(input).run(); break;
  }
  return 0;
}
