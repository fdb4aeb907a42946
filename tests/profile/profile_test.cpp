/// @file
/// Traces of calls, and counts of a store's work.
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/comm/threads.hpp>
#include <pushpull/profile/chrome_trace.hpp>
#include <pushpull/profile/nvtx.hpp>
#include <pushpull/pushpull.hpp>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/expect.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
namespace profile = pushpull::profile;
using nlohmann::json;
using pp::test::counting_device;

std::vector<counting_device> devices_of(int count, bool isolated) {
  std::vector<counting_device> devices;
  for (int n = 0; n < count; ++n) devices.emplace_back(n, isolated);
  return devices;
}

/// Reads the trace of `work`, and expects begins and ends to match: on each thread in nested order, of messages by number.
template <class F>
std::vector<json> trace(F const& work) {
  pp::test::temporary_folder const folder;
  std::string const path = folder.file("trace.json");
  {
    profile::tracing<profile::chrome_trace> tracing;
    work();
    tracing.function().write(path);
  }
  std::ifstream file(path);
  json const all = json::parse(file);
  std::vector<json> begun;
  std::map<int, std::vector<std::string>> open;
  std::set<std::uint64_t> messages;
  double last = 0;
  for (json const& e : all.at("traceEvents")) {
    std::string const kind = e.at("ph"), name = e.at("name");
    if (kind == "M") continue;
    REQUIRE(e.at("ts").get<double>() >= last);
    last = e.at("ts");
    if (kind == "b") {
      REQUIRE(messages.insert(e.at("id2").at("local").get<std::uint64_t>()).second);
    } else if (kind == "e") {
      REQUIRE(messages.erase(e.at("id2").at("local").get<std::uint64_t>()) == 1);
    } else if (kind == "B") {
      auto& stack = open[e.at("tid")];
      json entry = e;
      entry["within"] = stack.empty() ? "" : stack.back();
      begun.push_back(std::move(entry));
      stack.push_back(name);
      continue;
    } else {
      REQUIRE(kind == "E");
      auto& stack = open[e.at("tid")];
      REQUIRE(!stack.empty());
      REQUIRE(stack.back() == name);
      stack.pop_back();
      continue;
    }
    begun.push_back(e);
  }
  for (auto const& [thread, stack] : open) REQUIRE(stack.empty());
  REQUIRE(messages.empty());
  return begun;
}

std::vector<json> of_name(std::vector<json> const& events, std::string const& name) {
  std::vector<json> found;
  for (json const& e : events)
    if (e.at("name") == name && e.at("ph") != "e") found.push_back(e);
  return found;
}

#if PUSHPULL_NVTX

/// What a profiler would see: the domain, and the ranges with their depths.
std::vector<std::string> ranges;
std::size_t depth = 0;

template <class F>
NvtxFunctionPointer erased(F* f) {
  return reinterpret_cast<NvtxFunctionPointer>(f);
}

int load_profiler(NvtxGetExportTableFunc_t table) {
  auto const* const callbacks = static_cast<NvtxExportTableCallbacks const*>(table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable functions = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &functions, &size) == 0) return 0;
  *functions[NVTX_CBID_CORE2_DomainCreateA] = erased(+[](char const* name) {
    ranges.push_back(std::string("domain ") + name);
    return reinterpret_cast<nvtxDomainHandle_t>(&ranges);
  });
  *functions[NVTX_CBID_CORE2_DomainRangePushEx] =
      erased(+[](nvtxDomainHandle_t, nvtxEventAttributes_t const* attributes) {
        ranges.push_back(std::string(depth, '>') + attributes->message.ascii);
        return static_cast<int>(depth++);
      });
  *functions[NVTX_CBID_CORE2_DomainRangePop] = erased(+[](nvtxDomainHandle_t) { return static_cast<int>(--depth); });
  return 1;
}

#endif

}  // namespace

#if PUSHPULL_NVTX

TEST_CASE("NVTX ranges have a domain of their own, and names with keys and bytes", "[profile]") {
  std::vector<float> weight(640, 1.0F);
  pp::kv_store store{devices_of(1, false), update::sgd{}};
  store.init("fc1", weight);
  InitializeInjectionNvtx2_fnptr = load_profiler;  // which the first call of NVTX asks for
  {
    profile::tracing<profile::nvtx_ranges> const tracing;
    store.pushpull("fc1", weight, weight).wait();
  }
  REQUIRE(ranges == std::vector<std::string>{"domain pushpull", "pushpull fc1", ">pass 10240 B"});
  REQUIRE(depth == 0);
}

#endif

TEST_CASE("a trace of a push and a pull of two keys has both operations, with their passes inside", "[profile]") {
  std::vector<std::string> const keys{"fc1.weight", "fc1.bias"};
  std::vector const gradients(2, std::vector<float>(640, 1.0F));
  auto outputs = gradients;
  pp::kv_store store{devices_of(1, false), update::sgd{}};
  store.init(keys, gradients);
  auto const events = trace([&] {
    store.push(keys, gradients).wait();
    store.pull(keys, outputs).wait();
  });
  REQUIRE(events.size() == 4);
  for (auto const& [name, bytes] : {std::pair{"push", 12}, std::pair{"pull", 8}}) {
    auto const found = of_name(events, name);
    REQUIRE(found.size() == 1);
    REQUIRE(found[0].at("cat") == "operation");
    REQUIRE(found[0].at("args") == json{{"keys", "fc1.weight, fc1.bias"}});
    std::vector<json> passes;
    for (json const& e : of_name(events, "pass"))
      if (e.at("within") == name) passes.push_back(e);
    REQUIRE(passes.size() == 1);
    REQUIRE(passes[0].at("cat") == "pass");
    REQUIRE(passes[0].at("args") == json{{"bytes", 2 * 640 * bytes}, {"device", 0}});
  }
  store.push(keys, gradients).wait();  // without a trace nothing is called
}

TEST_CASE("a trace names the first three keys of an operation, numbers too", "[profile]") {
  std::vector<int> const keys{7, 8, 9, 10, 11};
  std::vector const values(5, std::vector<float>(3, 1.0F));
  pp::kv_store store{pp::cpu_devices(1), update::sgd{}, pp::integer_keys{}};
  store.init(keys, values);
  auto const events = trace([&] { store.push(keys, values).wait(); });
  REQUIRE(of_name(events, "push")[0].at("args").at("keys") == "7, 8, 9 and 2 more");
}

TEST_CASE("a trace of devices that do not reach each other has the copies between them", "[profile]") {
  pp::kv_store store{devices_of(2, true), update::adam{}};
  pp::parameter_store parameters{store};
  parameters.add("w", std::vector<float>(4096, 1.0F));
  parameters.update_all();
  auto const before = store.statistics();
  auto const events = trace([&] { parameters.update_all(); });
  auto const done = store.statistics() - before;
  auto const copies = of_name(events, "copy");
  // Either device owns half of the key: it gets the other's half of the gradient, and sends its half of the mirror.
  REQUIRE(copies.size() == 4);
  for (json const& copy : copies) {
    REQUIRE(copy.at("within") == "update");
    REQUIRE(copy.at("args").at("bytes") == 2048 * 4);
  }
  REQUIRE(done.copies == 4);
  REQUIRE(done.copied_bytes == 4 * 2048 * 4);
  REQUIRE(of_name(events, "update").size() == 1);
}

TEST_CASE("a trace of several ranks has their messages, each with an end", "[profile]") {
  std::atomic<std::int64_t> sent{0};
  auto const events = trace([&] {
    pp::comm::run_ranks(2, {.ranks_per_node = 1}, [&](pp::comm::threads const& c) {
      auto store = pp::make_kv_store<float>(pp::cpu_devices(1), update::sgd{}, c);
      std::vector<float> weight(4096, 1.0F);
      store.init("w", weight);
      store.pushpull("w", weight, weight).wait();
      sent += store.statistics().sent_bytes;
    });
  });
  auto const exchanges = of_name(events, "exchange");
  REQUIRE(exchanges.size() == 2);
  for (json const& e : exchanges) {
    REQUIRE(e.at("cat") == "message");
    REQUIRE(e.at("args").at("bytes") == 2048 * 4);  // the half of the gradient that the other rank owns
  }
  REQUIRE(sent == 2 * 2048 * 4);
}

TEST_CASE("an operation that fails ends in the trace too", "[profile]") {
  pp::kv_store store{devices_of(1, false)};
  std::vector<float> const value(10, 1.0F);
  store.init("w", value);
  store.set_updater([](auto const&, auto const&, auto const&) { throw std::runtime_error("no"); });
  auto const events = trace([&] { REQUIRE_THROWS_AS(store.push("w", value).wait(), std::runtime_error); });
  REQUIRE(of_name(events, "push").size() == 1);
}

TEST_CASE("statistics are those that are counted by hand", "[profile]") {
  using f = float;
  auto const sources = GENERATE(std::size_t{1}, std::size_t{3});
  auto const outputs = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{2});
  std::int64_t const n = 64 * 13;
  CAPTURE(sources, outputs);
  std::vector const gradients(sources, std::vector<f>(n, 1.0F));
  std::vector written(outputs, std::vector<f>(n));
  auto const K = static_cast<std::int64_t>(sources), R = static_cast<std::int64_t>(outputs);
  auto const done_by = [&](auto const& rule) {
    auto const devices = devices_of(1, false);
    pp::kv_store store{devices, rule};
    store.init("w", std::vector<f>(n, 1.0F));
    REQUIRE(store.statistics().operations == 0);
    devices[0].count().clear();
    auto const before = store.statistics();
    if (outputs > 0) {
      store.pushpull("w", gradients, written).wait();
    } else {
      store.push("w", gradients).wait();
    }
    store.wait();
    auto const done = store.statistics() - before;
    REQUIRE(done.operations == 1);
    REQUIRE(done.copies == 0);
    REQUIRE(done.sent_bytes == 0);
    REQUIRE(devices[0].count().passes == 1);
    return done;
  };
  auto const sgd = done_by(update::sgd{});
  REQUIRE(sgd.launches == 1);
  REQUIRE(sgd.bytes == 4 * n * (K + 2 + R));
  auto const adam = done_by(update::rescale(0.5) | update::adam{});
  REQUIRE(adam.launches == 1);
  REQUIRE(adam.bytes == 4 * n * (K + 6 + R));  // README: 28 bytes per parameter with one gradient, in place
  auto const clipped = done_by(update::clip_global_norm(1.0) | update::adam{});
  REQUIRE(clipped.launches == 2);
  // The norm reads all gradients; of several it leaves the sum, which the pass reads in their place.
  REQUIRE(clipped.bytes == 4 * n * (K == 1 ? 1 + 1 + 6 + R : K + 1 + 1 + 6 + R));
}

TEST_CASE("statistics count narrow types, accumulation and rows", "[profile]") {
  std::int64_t const n = 64 * 5;
  std::vector<pp::half> const gradient(n, pp::convert<pp::half>(1.0F));
  auto narrow = pp::make_kv_store<pp::half>(pp::cpu_devices(1), update::momentum{}, pp::element::master<float>{},
                                            pp::accumulate{2});
  narrow.init("w", gradient);
  auto before = narrow.statistics();
  narrow.push("w", gradient).wait();
  auto const first = narrow.statistics() - before;
  REQUIRE(first.bytes == n * (2 + 4));  // reads the gradient, writes the sum
  before = narrow.statistics();
  narrow.push("w", gradient).wait();
  auto const second = narrow.statistics() - before;
  REQUIRE(second.bytes == n * (2 + 4 + 4 * 4));  // gradient and sum, master and momentum twice
  pp::kv_store table{pp::cpu_devices(1), update::sgd{}};
  table.init("rows", pp::tensor<float>(pp::cpu_device<>(), pp::shape{100, 64}));
  pp::row_sparse<float> rows(pp::cpu_device<>(), pp::shape{100, 64}, 3);
  for (std::int64_t i = 0; i < 3; ++i) rows.row_ids()[i] = 10 * i;
  std::fill_n(rows.values(), 3 * 64, 1.0F);
  auto const empty = table.statistics();
  table.push("rows", rows).wait();
  auto const done = table.statistics() - empty;
  REQUIRE(done.operations == 1);
  REQUIRE(done.launches == 1);
  REQUIRE(done.bytes == 3 * 64 * 12);
}

TEST_CASE("an any_store and a function in the place of the rule have statistics; waits take time", "[profile]") {
  auto store = pp::create("local");
  store.set_optimizer(update::sgd{});
  std::vector<float> weight(1000, 1.0F);
  store.init("w", weight);
  store.pushpull("w", weight, weight).wait();
  REQUIRE(store.statistics().operations == 1);
  REQUIRE(store.statistics().launches == 1);
  pp::kv_store slow{pp::cpu_devices(1)};
  slow.init("w", weight);
  std::atomic<bool> runs{false};
  slow.set_updater([&](auto const&, auto const&, auto const&) {
    runs = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  });
  pp::completion const done = slow.push("w", weight);
  while (!runs) std::this_thread::yield();  // another thread runs it: this one waits
  auto const before = slow.statistics();
  done.wait();
  auto const waited = slow.statistics() - before;
  REQUIRE(waited.waited > std::chrono::milliseconds(1));
  REQUIRE(to_string(slow.statistics()).find("1 operations") == 0);
}

namespace {

std::string counted(pp::kv_store<float, pp::cpu_device<>, update::adam>& store, std::vector<float>& weight) {
  std::ostringstream out;
  // example-begin statistics
  auto const before = store.statistics();
  store.pushpull("w", weight, weight).wait();
  out << store.statistics() - before << '\n';
  // example-end statistics
  return out.str();
}

}  // namespace

TEST_CASE("the examples of docs/profiling.md do what the page says", "[profile]") {
  pp::test::temporary_folder const folder;
  std::string const path = folder.file("trace.json");
  std::vector<float> weight(1000, 1.0F);
  pp::kv_store store{pp::cpu_devices(1), update::adam{}};
  store.init("w", weight);
  auto const train = [&] { store.pushpull("w", weight, weight).wait(); };
  {
    // example-begin trace
    pushpull::profile::tracing<pushpull::profile::chrome_trace> trace;
    train();
    store.wait();
    trace.function().write(path);  // open it in https://ui.perfetto.dev
    // example-end trace
  }
  REQUIRE(pp::test::read_file(path).find("\"keys\":\"w\"") != std::string::npos);
  std::atomic<std::int64_t> bytes{0};
  {
    // example-begin hook
    namespace profile = pushpull::profile;
    profile::tracing const count([&bytes](profile::event const& e) {
      if (e.what == profile::activity::pass && e.phase == profile::phase::begin) bytes += e.bytes;
    });
    // example-end hook
    train();
  }
  REQUIRE(bytes == 1000 * 32);
  REQUIRE(counted(store, weight).find("1 operations, 1 launches of 32000 bytes, 0 copies of 0 bytes, 0 bytes sent") ==
          0);
}
