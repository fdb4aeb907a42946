/// @file
/// Steps that are captured in CUDA graphs: launches leave the bits of as many plain steps, and calls that cannot be captured
/// are refused. Without a GPU every case reports that it was skipped.
#include <pushpull/pushpull.cuh>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/cuda_devices.cuh"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using pp::test::logical_devices;
using floats = std::vector<float>;
using strings = std::vector<std::string>;
using tensor = pp::tensor<float, pp::cuda_device>;

floats random_values(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-1, 1);
  floats result(size);
  for (float& x : result) x = value(random);
  return result;
}

bool have_same_bits(floats const& a, floats const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Captures what is given to a device's stream, from its construction to `end`.
class capture {
 public:
  explicit capture(pp::cuda_device device) : device_(std::move(device)) {
    REQUIRE(cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeGlobal) == cudaSuccess);
  }
  capture(capture const&) = delete;
  capture& operator=(capture const&) = delete;
  ~capture() {
    if (launchable_ != nullptr) static_cast<void>(cudaGraphExecDestroy(launchable_));
  }

  /// @returns  The nodes of the graph
  std::size_t end() {
    cudaGraph_t graph{};
    REQUIRE(cudaStreamEndCapture(device_.stream(), &graph) == cudaSuccess);
    std::size_t nodes = 0;
    REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&launchable_, graph, 0) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
    return nodes;
  }
  void launch() const { REQUIRE(cudaGraphLaunch(launchable_, device_.stream()) == cudaSuccess); }

 private:
  pp::cuda_device device_;
  cudaGraphExec_t launchable_{};
};

strings const names{"a", "b", "c", "d", "none"};
std::vector<std::size_t> const sizes{1, 1021, 4096, 2500, 0};

/// A store, and its parameters with a mirror and a gradient on every device.
template <class Rule>
struct model {
  pp::kv_store<float, pp::cuda_device, Rule> store;
  pp::parameter_store<pp::kv_store<float, pp::cuda_device, Rule>> parameters{store};

  model(std::vector<pp::cuda_device> const& devices, Rule const& rule) : store(devices, rule) {
    for (std::size_t k = 0; k < names.size(); ++k)
      parameters.add(names[k], random_values(sizes[k], static_cast<unsigned>(k)));
    parameters.materialize();
  }
  void set_gradients(unsigned t) {
    store.wait();
    for (std::size_t k = 0; k < names.size(); ++k)
      for (std::size_t n = 0; n < store.devices().size(); ++n)
        pp::copy(random_values(sizes[k], 1000 * t + static_cast<unsigned>(10 * k + n)), parameters.grad(names[k], n));
  }
  void step(unsigned t) {
    set_gradients(t);
    parameters.update_all();
  }
  /// Everything, on every device.
  std::vector<floats> contents() {
    store.wait();
    std::vector<floats> result;
    for (auto const& name : names) {
      for (std::size_t n = 0; n < store.devices().size(); ++n)
        result.push_back(pp::to_vector(parameters.value(name, n)));
      for (auto const& state : store.state_names()) result.push_back(store.state(name, state));
      if (name != "none") result.push_back({static_cast<float>(store.steps(name))});
    }
    return result;
  }
};

/// Rates that depend on t, and sums over all keys that may skip a step.
auto adam(double rate) {
  return update::adam{} | update::learning_rate(pp::lr_schedule::cosine{.base = rate, .updates = 20});
}
auto momentum(double rate) {
  return update::dynamic_loss_scale{.initial = 4} | update::clip_global_norm{1} |
         update::momentum{.learning_rate = rate};
}

/// Two equal models on streams of their own, one of which launches graphs in the place of plain steps.
template <class Rule>
struct twins {
  model<Rule> plain, graphed;
  unsigned t = 0;

  twins(std::vector<pp::cuda_device> const& devices, Rule const& rule)
      : plain(logical_devices(static_cast<int>(devices.size())), rule), graphed(devices, rule) {}

  void step() {
    plain.step(++t);
    graphed.step(t);
  }
  void launch(capture const& graph) {
    plain.step(++t);
    graphed.set_gradients(t);
    graph.launch();
  }
  void launch_with_infinity(capture const& graph) {
    ++t;
    for (auto* const m : {&plain, &graphed}) {
      m->set_gradients(t);
      pp::copy(floats(1, std::numeric_limits<float>::infinity()), m->parameters.grad("a", 0));
    }
    plain.parameters.update_all();
    graph.launch();
  }
  void set_hyperparameters(Rule const& rule) {
    plain.store.set_hyperparameters(rule);
    graphed.store.set_hyperparameters(rule);
  }
  /// Both push the same gradient, from device number n.
  void push(std::string const& key, tensor const& gradient) {
    plain.store.push(key, gradient);
    graphed.store.push(key, gradient);
  }
  void compare() {
    auto const found = graphed.contents(), expected = plain.contents();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      INFO("array " << i << " after step " << t);
      REQUIRE(have_same_bits(found[i], expected[i]));
    }
  }
};

/// Launches of a captured update_all among plain steps, and hyperparameters that change, against plain steps alone.
template <class Rule>
void compare_models(std::vector<pp::cuda_device> const& devices, Rule const& rule, Rule const& other_rule) {
  twins<Rule> both(devices, rule);
  both.step();
  capture graph(devices.back());
  both.graphed.parameters.update_all();
  CHECK(graph.end() > 0);
  both.compare();  // a capture runs nothing
  for (int k = 0; k < 3; ++k) both.launch(graph);
  for (auto const& name : {"a", "b", "c", "d"})  // read on the device that owns the key, after the launches
    REQUIRE(both.graphed.store.steps(name) == 4);
  both.compare();
  both.step();
  both.launch(graph);
  both.launch_with_infinity(graph);
  both.set_hyperparameters(other_rule);
  for (int k = 0; k < 2; ++k) both.launch(graph);
  both.step();
  both.compare();
}

}  // namespace

TEST_CASE("launches of a captured update_all leave the bits of as many plain steps", "[cuda]") {
  for (int const count : {1, 3}) {
    auto const devices = logical_devices(count);
    if (devices.empty()) return;
    compare_models(devices, adam(0.1), adam(0.05));
    compare_models(devices, momentum(0.1), momentum(0.01));
  }
}

TEST_CASE("a graph of backward passes and updates is a training step on all devices", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  twins both(devices, adam(0.1));
  auto const backward = [&](auto& parameters) {  // the gradients of half the squares are the weights
    auto const& own = parameters.devices();
    for (std::size_t n = 0; n < own.size(); ++n) {
      if (n > 0) own[n].wait_for(own[0]);
      for (auto const& name : names) {
        auto const w = parameters.value(name, n), g = parameters.grad(name, n);
        own[n].copy(g.data(), w.data(), w.size() * sizeof(float));
      }
    }
  };
  auto& parameters = both.graphed.parameters;
  // example-begin captured_step
  cudaStream_t const stream = devices.front().stream();
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  backward(parameters);
  parameters.update_all();  // captured, not run
  cudaGraph_t graph{};
  cudaStreamEndCapture(stream, &graph);
  cudaGraphExec_t step{};
  cudaGraphInstantiate(&step, graph, 0);

  for (int k = 0; k < 10; ++k) cudaGraphLaunch(step, stream);
  parameters.sync_master();  // as after 10 plain steps
  // example-end captured_step
  cudaGraphExecDestroy(step);
  cudaGraphDestroy(graph);
  for (int k = 0; k < 10; ++k) {
    backward(both.plain.parameters);
    both.plain.parameters.update_all();
  }
  both.compare();
  both.step();
  both.compare();
}

TEST_CASE("keys of a captured step may be stepped apart from it, and in other graphs", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  twins both(devices, adam(0.1));
  both.step();
  capture all(devices.front());
  both.graphed.parameters.update_all();
  all.end();
  tensor gradient(devices[1], pp::shape{1021});
  pp::copy(random_values(1021, 7), gradient);
  tensor other(devices[0], pp::shape{2500});
  pp::copy(random_values(2500, 8), other);
  both.push("b", gradient);  // now has a count of its own
  both.launch(all);
  both.compare();
  tensor plain_output(devices[2], pp::shape{1021}), output(devices[2], pp::shape{1021});
  capture one(devices.front());
  both.graphed.store.pushpull("b", gradient, output);
  both.graphed.parameters.update("d", other);
  one.end();
  for (int k = 0; k < 2; ++k) {
    both.plain.store.pushpull("b", gradient, plain_output);
    both.plain.parameters.update("d", other);
    one.launch();
    both.launch(all);
  }
  both.step();
  both.compare();
  REQUIRE(have_same_bits(pp::to_vector(output), pp::to_vector(plain_output)));
  both.plain.store.set_steps("b", both.plain.store.steps("a"));
  both.graphed.store.set_steps("b", both.graphed.store.steps("a"));
  both.step();
  both.launch(all);
  one.launch();  // which the host does not see: its count of "b" is that of "a"
  both.plain.store.pushpull("b", gradient, plain_output);
  both.plain.parameters.update("d", other);
  both.step();
  both.compare();
}

TEST_CASE("a whole sequence of calls can be captured, with what the caller enqueues between them", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  for (bool const lists : {false, true}) {
    std::vector<floats> results;
    for (bool const captured : {false, true}) {
      pp::kv_store store{devices, adam(0.1)};
      strings const keys{"x", "y"};
      store.init(keys, std::vector{random_values(300, 1), random_values(5000, 2)});
      std::vector<std::vector<tensor>> gradients(2), weights(2);
      for (std::size_t k = 0; k < 2; ++k)
        for (auto const& device : devices) {
          auto const size = static_cast<std::int64_t>(k == 0 ? 300 : 5000);
          gradients[k].emplace_back(device, pp::shape{size});
          weights[k].emplace_back(device, pp::shape{size});
        }
      tensor read(devices[1], pp::shape{5000});
      auto const step = [&] {
        // The gradients are the weights, which the caller copies on each device: w, w', w'' ...
        for (std::size_t n = 0; n < devices.size(); ++n) {
          if (n > 0) devices[n].wait_for(devices[0]);
          for (std::size_t k = 0; k < 2; ++k)
            devices[n].copy(gradients[k][n].data(), weights[k][n].data(), gradients[k][n].size() * sizeof(float));
        }
        if (lists) {
          store.pushpull(keys, gradients, weights);
        } else {
          for (std::size_t k = 0; k < 2; ++k) {
            store.push(keys[k], gradients[k]);
            store.pull(keys[k], weights[k]);
          }
        }
        store.pull("y", read);
      };
      store.pull(keys, weights);
      step();
      if (captured) {
        store.wait();
        capture graph(devices[0]);
        step();
        graph.end();
        for (int k = 0; k < 3; ++k) graph.launch();
      } else {
        for (int k = 0; k < 3; ++k) step();
      }
      store.wait();
      for (std::size_t k = 0; k < 2; ++k)
        for (auto const& w : weights[k]) results.push_back(pp::to_vector(w));
      results.push_back(pp::to_vector(read));
      results.push_back({static_cast<float>(store.steps("x")), static_cast<float>(store.steps("y"))});
    }
    for (std::size_t i = 0; i < results.size() / 2; ++i) {
      INFO("result " << i << (lists ? " of lists" : ""));
      REQUIRE(have_same_bits(results[i], results[results.size() / 2 + i]));
    }
  }
}

TEST_CASE("calls that cannot be captured are refused, and the capture and the store stay as they are", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  twins both(devices, adam(0.1));
  auto& store = both.graphed.store;
  auto& parameters = both.graphed.parameters;
  both.step();
  pp::cuda_device const other(devices[0].id());  // a stream that is not captured
  floats host(1021);
  tensor elsewhere(other, pp::shape{1021}), gradient(devices[0], pp::shape{1021});
  tensor const nothing(devices[0], pp::shape{0});
  auto const done = store.push("none", nothing);
  both.plain.store.push("none", nothing);
  capture graph(devices.front());
  auto const refuses = [&](char const* what, auto const& call) {
    INFO(what);
    REQUIRE_THROWS_AS(call(), pp::capture_error);
  };
  refuses("wait", [&] { store.wait(); });
  refuses("init", [&] { store.init("new", host); });
  refuses("assign", [&] { store.assign("b", host); });
  refuses("steps", [&] { static_cast<void>(store.steps("b")); });
  refuses("set_steps", [&] { store.set_steps("b", 3); });
  refuses("state", [&] { static_cast<void>(store.state("b", "exp_avg")); });
  refuses("hyperparameters", [&] { store.set_hyperparameters(adam(1)); });
  refuses("add_group", [&] { store.add_group([](auto) { return true; }, adam(1)); });
  refuses("host gradient", [&] { store.push("b", host); });
  refuses("host output", [&] { store.pull("b", host); });
  refuses("stream outside", [&] { store.push("b", elsewhere); });
  refuses("stream outside, output", [&] { store.pushpull("b", gradient, elsewhere); });
  refuses("a device that waits", [&] { devices[0].synchronize(); });
  refuses("a tensor that is made", [&] { static_cast<void>(tensor(devices[0], pp::shape{3})); });
  refuses("a copy to the host", [&] { static_cast<void>(pp::to_vector(gradient)); });
  refuses("completion", [&] { static_cast<void>(done.ready()); });
  refuses("sync_master", [&] { parameters.sync_master(); });
  parameters.update_all();
  auto const captured = store.push("none", nothing);
  refuses("completion of a captured call", [&] { captured.wait(); });
  graph.end();
  captured.wait();
  both.compare();
  both.launch(graph);
  both.step();
  both.compare();
  // Memory to which the graph refers cannot move.
  strings more;
  for (int i = 0; i < 1000; ++i) more.push_back("more " + std::to_string(i));
  refuses("room for more keys", [&] { store.init(more, std::vector<floats>(1000)); });
  refuses("room for more groups", [&] { store.add_group([](auto) { return true; }, adam(1)); });
  both.compare();
  store.discard_captures();
  store.init("more", floats(7));
  store.add_group([](auto key) { return key == "more"; }, adam(1));
  both.step();
  both.compare();
}

TEST_CASE("a captured step with sums over all keys forbids steps of some of them", "[cuda]") {
  auto const devices = logical_devices();
  if (devices.empty()) return;
  twins both(devices, momentum(0.1));
  auto& store = both.graphed.store;
  both.step();
  capture graph(devices.front());
  both.graphed.parameters.update_all();
  graph.end();
  tensor gradient(devices[1], pp::shape{1021});
  pp::copy(random_values(1021, 7), gradient);
  REQUIRE_THROWS_AS(store.push("b", gradient), pp::capture_error);
  REQUIRE_THROWS_AS(store.set_steps("b", 9), pp::capture_error);
  both.launch(graph);
  both.compare();
  store.discard_captures();
  both.push("b", gradient);
  both.step();
  both.compare();
}

TEST_CASE("stores whose steps the host decides refuse captures", "[cuda]") {
  auto const devices = logical_devices(1);
  if (devices.empty()) return;
  pp::kv_store<float, pp::cuda_device, pp::synchronous> store(devices);
  tensor w(devices[0], pp::shape{7});
  store.init("w", floats(7, 1.0F));
  floats const two(7, 2.0F);
  store.push("w", two);
  capture graph(devices[0]);
  REQUIRE_THROWS_AS(store.pull("w", w), pp::capture_error);
  REQUIRE_THROWS_AS(store.push("w", w), pp::capture_error);
  CHECK(graph.end() == 0);
  store.pull("w", w);
  REQUIRE(pp::to_vector(w) == two);
}

TEST_CASE("a captured list of a store of several rules is kept by all of its rules", "[cuda]") {
  auto const devices = logical_devices(1);
  if (devices.empty()) return;
  pp::kv_store store{devices, pp::rules{update::sgd{.learning_rate = 1},
                                        pp::where([](std::string_view key) { return key[0] == 'b'; }, update::adam{})}};
  strings const keys{"b"};
  store.init(keys, std::vector<floats>(1, floats(7)));
  std::vector<tensor> gradients;
  gradients.emplace_back(devices[0], pp::shape{7});
  pp::copy(floats(7, 1.0F), gradients[0].view());
  capture graph(devices[0]);
  store.push(keys, gradients);
  graph.end();
  strings more;
  for (int i = 0; i < 1000; ++i) more.push_back("b" + std::to_string(i));
  REQUIRE_THROWS_AS(store.init(more, std::vector<floats>(1000)), pp::capture_error);  // counts of "b" would move
  graph.launch();
  graph.launch();
  REQUIRE(store.steps("b") == 2);
  store.discard_captures();
  store.init(more, std::vector<floats>(1000));
  REQUIRE(store.steps("b") == 2);
}
