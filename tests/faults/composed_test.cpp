/// @file
/// Stores that consist of others, whole models and checkpoints, under allocations that fail.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/pushpull.hpp>

#include "faults/store_calls.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using namespace pushpull::test::faults;

struct of_rules {
  static constexpr bool warm = false;
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store{
        devices, pp::rules{update::momentum{.learning_rate = 0.25},
                           pp::where([](std::string_view key) { return key == "b" || key == "r"; }, update::sgd{0.5})}};
  }
};

struct of_types {
  static constexpr bool warm = false;
  static auto other_rule() { return update::momentum{.learning_rate = 0.125}; }
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store<pp::type_list<float, pp::half>, device, update::momentum>{devices};
  }
};

struct at_run_time {
  static constexpr bool warm = false;
  static auto make(std::vector<device> const& devices) {
    auto store = pp::create("device", devices);
    store.set_optimizer(update::momentum{.learning_rate = 0.25});
    return store;
  }
};

/// A model of four parameters, one of which is frozen: the next one makes its list of parameters grow.
template <class Kind>
struct model : subject {
  std::vector<device> devices = failing_devices();
  decltype(Kind::make(devices)) store{Kind::make(devices)};
  pp::parameter_store<decltype(store)> parameters{store};
  floats w = floats(9000, 1.0F), v = floats(300, 2.0F), u = floats(70, 3.0F), t = floats(1, 4.0F);

  model() {
    parameters.add("w", w);
    parameters.add("v", v);
    parameters.add("u", u, {.requires_grad = false});
    parameters.add("t", t, {.requires_grad = false});
    parameters.materialize();
    fill();
  }
  void fill() {
    for (auto const* name : {"w", "v"})
      for (std::size_t n = 0; n < 2; ++n) {
        if (!parameters.requires_grad(name)) continue;
        auto const g = parameters.grad(name, n);
        for (std::size_t i = 0; i < g.size(); ++i) g.data()[i] = static_cast<float>(i % 5) + static_cast<float>(n);
      }
  }
  void wait() override { store.wait(); }
  std::vector<double> held() override {
    std::vector<double> all;
    for (std::string const name : {"w", "v", "u"}) {
      for (std::size_t n = 0; n < 2; ++n) {
        auto const mirror = parameters.value(name, n);
        all.insert(all.end(), mirror.data(), mirror.data() + mirror.size());
      }
      append_states(all, store, name);
      all.push_back(parameters.requires_grad(name));
    }
    all.push_back(static_cast<double>(parameters.size()));
    for (float const x : w) all.push_back(x);
    return all;
  }
  void work_on() override {
    fill();
    for (int step = 0; step < 3; ++step) parameters.update_all();
  }
};

/// With one more parameter, whose mirrors and gradients are not made.
template <class Kind>
struct unmade : model<Kind> {
  unmade() { this->parameters.add("p", this->v); }
  std::vector<double> held() override {
    auto all = model<Kind>::held();
    for (std::size_t n = 0; n < 2; ++n) {
      auto const mirror = this->parameters.value("p", n);
      all.insert(all.end(), mirror.data(), mirror.data() + mirror.size());
    }
    return all;
  }
  void work_on() override {
    for (std::size_t n = 0; n < 2; ++n) std::fill_n(this->parameters.grad("p", n).data(), this->v.size(), 0.5F);
    model<Kind>::work_on();
  }
};

struct accumulating {
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store{devices, update::momentum{.learning_rate = 0.25}, pp::accumulate{2}};
  }
};

template <class Kind>
void check_model(char const* kind) {
  calls<model<Kind>> const all(kind);
  all.check("update_all", [](auto& s) { s.parameters.update_all(); });
  if constexpr (requires(model<Kind> s) { s.parameters.accumulate_all(); })
    all.check("accumulate_all", [](auto& s) { s.parameters.accumulate_all(); });
  all.check("freeze", [](auto& s) { s.parameters.freeze("v"); });
  all.check("unfreeze", [](auto& s) { s.parameters.unfreeze("u"); });
  all.check("add", [](auto& s) { s.parameters.add("x", s.v); });
  all.check("sync_master", [](auto& s) { s.parameters.sync_master(); });
}

/// Numbers that go from step to step, and a step of several pushes.
struct amid_a_step {
  static constexpr bool warm = false, dense_only = true, gathers = true;
  static auto make(std::vector<device> const& devices) {
    return pp::kv_store{devices, update::dynamic_loss_scale{.interval = 2} | update::momentum{.learning_rate = 0.25},
                        pp::accumulate{3}};
  }
};

/// A store that has gone on for two steps after its states were saved to a file.
template <class Kind>
struct saved : store_subject<Kind> {
  using base = store_subject<Kind>;
  pp::test::temporary_folder folder;
  std::filesystem::path const path = folder.file("states"), other = folder.file("other");

  saved() {
    base::work_on();
    if constexpr (requires { requires Kind::gathers; }) this->store->accumulate("a", this->a).wait();
    pp::checkpoint::save_optimizer_states(*this->store, path);
    base::work_on();
  }
  std::vector<double> held() override {
    auto all = base::held();
    for (double const number : this->store->carried_numbers()) all.push_back(number);
    if constexpr (requires { this->store->micro_batches("a"); })
      for (auto const* const key : {"a", "b"}) all.push_back(static_cast<double>(this->store->micro_batches(key)));
    return all;
  }
};

}  // namespace

TEST_CASE("after any allocation that fails in a call a store of several rules holds what it held", "[faults]") {
  check_calls<of_rules>("rules");
}

TEST_CASE("after any allocation that fails in a call a store of several types holds what it held", "[faults]") {
  check_calls<of_types>("type_list");
}

TEST_CASE("after any allocation that fails in a call a store that is chosen at run time holds what it held",
          "[faults]") {
  check_calls<at_run_time>("any_store");
  calls<store_subject<at_run_time>> const all("any_store");
  all.check("set_optimizer", [](auto& s) { s.store->set_optimizer(update::sgd{0.5}); });
}

TEST_CASE("after any allocation that fails in a call a model holds what it held", "[faults]") {
  check_model<accumulating>("model, accumulate");
  check_model<of_rules>("model, rules");
  calls<unmade<at_run_time>> const all("model, any_store");
  all.check("value", [](auto& s) { s.parameters.value("p", 0); });
}

TEST_CASE("a request for gradients that there is no memory for is not made", "[faults]") {
  model<of_rules> m;
  for (auto& device : m.devices) device.count().before_allocation = [] { throw std::bad_alloc(); };
  CHECK_THROWS_AS(m.parameters.set_request("u", pp::grad_request::add), std::bad_alloc);
  for (auto& device : m.devices) device.count().before_allocation = point;
  m.parameters.unfreeze("u");
  CHECK(m.parameters.request("u") == pp::grad_request::write);
}

TEST_CASE("after any allocation that fails in a save the store holds what it held", "[faults]") {
  calls<saved<at_run_time>> const all("checkpoint");
  all.check("save_optimizer_states", [](auto& s) { pp::checkpoint::save_optimizer_states(*s.store, s.other); });
}

TEST_CASE("after any allocation that fails in a load the store holds what it held, in all keys", "[faults]") {
  auto const check = [](auto const& all) {
    all.check("load_optimizer_states", [](auto& s) { pp::checkpoint::load_optimizer_states(*s.store, s.path); });
  };
  check(calls<saved<at_run_time>>("checkpoint, any_store"));
  check(calls<saved<amid_a_step>>("checkpoint, amid a step"));
  check(calls<saved<of_rules>>("checkpoint, rules"));
  check(calls<saved<of_types>>("checkpoint, type_list"));
}
