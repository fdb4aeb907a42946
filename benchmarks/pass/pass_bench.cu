/// @file
/// The pass on a GPU against an in-place axpy, a copy kernel, and the three steps that it fuses; with states of 8 bits against
/// states of floats. Says that it is skipped where there is no GPU.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.cuh>

#include "support/launch_seconds.cuh"

namespace {

using namespace pushpull;

struct axpy {
  float4* weight;
  float4 const* x;
  __host__ __device__ void operator()(std::int64_t i) const {
    float4 w = weight[i];
    float4 const g = x[i];
    w.x -= 1e-3F * g.x;
    w.y -= 1e-3F * g.y;
    w.z -= 1e-3F * g.z;
    w.w -= 1e-3F * g.w;
    weight[i] = w;
  }
};

struct copy_vector {
  float4* to;
  float4 const* from;
  __host__ __device__ void operator()(std::int64_t i) const { to[i] = from[i]; }
};

/// Values in [0, 1) of which all bits differ: a GPU's clock depends on them.
template <class T>
struct small_numbers {
  T* to;
  __host__ __device__ void operator()(std::int64_t i) const {
    to[i] = convert<T>(static_cast<float>(static_cast<std::uint32_t>(i) * 2654435761U >> 8) * 0x1p-24F);
  }
};

template <class T>
using pointers = std::vector<T*>;

/// A step of `Rule` as a launch of its own over given arrays.
template <class T, class Rule, class S = float>
class launched_pass {
  using types = pass::element_types<T, float, float, S, T>;

 public:
  launched_pass(cuda_device const& device, std::int64_t size, pointers<T const> const& gradients,
                pointers<T> const& mirrors, float* weight, std::vector<detail::state_pointer<S>> const& states,
                std::int64_t runs)
      : device_(device), control_(device, std::vector<Rule>(1)) {
    control_.reserve(device, 1);
    plan_.add_clock(0, true);
    for (std::int64_t number = 0; number < runs; ++number) {
      std::int64_t const first = number * (size / runs);
      pass::run<types, detail::state_count<Rule>> run{};
      run.size = size / runs;
      run.master = weight + first;
      for (std::size_t s = 0; s < states.size(); ++s) run.state[s] = states[s] + first;
      pointers<T const> g = gradients;
      for (auto& p : g) p += first;
      pointers<T> m = mirrors;
      for (auto& p : m) p += first;
      plan_.add(run, g, m);
    }
    plan_.commit(device);
    plan_.begin_step(device, control_.rules(nullptr), control_.clocks());
  }

  void operator()() const {
    plan_.template launch<Rule, reduce::sum, pass::memory::arenas>(device_, control_.rules(nullptr), control_.clocks());
  }

 private:
  cuda_device device_;
  detail::control<cuda_device, Rule, types> control_;
  pass::plan<cuda_device, types, detail::state_count<Rule>> plan_;
};

template <class Element, class Rule>
void measure(benchmark::State& state) {
  auto const devices = cuda_devices();
  if (devices.empty()) return state.SkipWithError("skipped: no GPU");
  cuda_device const& device = devices.front();
  auto const gradients = static_cast<std::size_t>(state.range(0));
  auto const mirrors = static_cast<std::size_t>(state.range(1));
  std::int64_t const size = std::int64_t{1} << state.range(2);
  constexpr std::size_t states = detail::state_count<Rule>;

  std::vector<std::size_t> bytes(gradients + mirrors, static_cast<std::size_t>(size) * sizeof(Element));
  bytes.insert(bytes.end(), 2 + states, static_cast<std::size_t>(size) * sizeof(float));
  detail::staggered_arrays<cuda_device> const arena(device, bytes, 0);
  pointers<Element const> g;
  pointers<Element> m;
  pointers<float> s;
  std::size_t next = 0;
  for (std::size_t k = 0; k < gradients; ++k) g.push_back(arena.array<Element>(next++));
  for (std::size_t r = 0; r < mirrors; ++r) m.push_back(arena.array<Element>(next++));
  auto* const weight = arena.array<float>(next++);
  auto* const scratch = arena.array<float>(next++);
  while (s.size() != states) s.push_back(arena.array<float>(next++));
  for (Element const* gradient : g) device.for_each(size, small_numbers<Element>{const_cast<Element*>(gradient)});
  for (float* stored : s) device.for_each(size, small_numbers<float>{stored});
  for (float* stored : {weight, scratch}) device.for_each(size, small_numbers<float>{stored});

  launched_pass<Element, Rule> const pass(device, size, g, m, weight, s, state.range(3));
  double const moved =
      static_cast<double>(size) * static_cast<double>((gradients + mirrors) * sizeof(Element) + (1 + states) * 8);
  double const ours = bench::launch_seconds(device, [&] { pass(); });
  double const line = bench::launch_seconds(device, [&] {
    device.for_each(size / 4, axpy{reinterpret_cast<float4*>(weight), reinterpret_cast<float4 const*>(scratch)});
  });
  double const copied = bench::launch_seconds(device, [&] {
    device.for_each(size / 4, copy_vector{reinterpret_cast<float4*>(weight), reinterpret_cast<float4 const*>(scratch)});
  });
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(ours);
  double const elements = static_cast<double>(size);
  state.counters["bytes"] = moved;
  state.counters["GB/s"] = moved / ours * 1e-9;
  state.counters["x axpy"] = moved / ours / (12 * elements / line);
  state.counters["x copy"] = moved / ours / (8 * elements / copied);
}

/// Adam in place, of floats: "x float" above 1 means faster than with states of floats.
template <class S>
void measure_codecs(benchmark::State& state) {
  auto const devices = cuda_devices();
  if (devices.empty()) return state.SkipWithError("skipped: no GPU");
  cuda_device const& device = devices.front();
  std::int64_t const size = std::int64_t{1} << state.range(0);
  auto const floats = static_cast<std::size_t>(size) * sizeof(float);
  detail::staggered_arrays<cuda_device> const arena(
      device, std::vector<std::size_t>{floats, floats, floats, floats, floats, floats}, 0);
  std::vector<detail::state_pointer<S>> codes;
  pointers<float> states;
  for (std::size_t s = 0; s < 2; ++s) {
    auto* const bytes = arena.array<std::byte>(s);
    device.fill_zero(bytes, floats);
    codes.push_back({bytes, reinterpret_cast<float*>(bytes + size), 0});
    states.push_back(arena.array<float>(s + 2));
    device.for_each(size, small_numbers<float>{states.back()});
  }
  auto* const weight = arena.array<float>(4);
  auto* const gradient = arena.array<float>(5);
  device.for_each(size, small_numbers<float>{weight});
  device.for_each(size, small_numbers<float>{gradient});
  launched_pass<float, update::adam, S> const coded(device, size, {gradient}, {}, weight, codes, 1);
  launched_pass<float, update::adam> const plain(device, size, {gradient}, {}, weight, states, 1);
  double const ours = bench::launch_seconds(device, [&] { coded(); });
  double const other = bench::launch_seconds(device, [&] { plain(); });
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(ours);
  double const moved = static_cast<double>(12 * size + 2 * S::bytes(0, size) + 2 * S::bytes(1, size));
  state.counters["bytes"] = moved;
  state.counters["GB/s"] = moved / ours * 1e-9;
  state.counters["float GB/s"] = 28 * static_cast<double>(size) / other * 1e-9;
  state.counters["x float"] = other / ours;
}

template <class S>
void enter_codecs(std::string const& name) {
  auto* const entry = benchmark::RegisterBenchmark(("cuda/pass/adam/states/" + name).c_str(), measure_codecs<S>);
  entry->ArgName("log2")->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
  for (int const size : {18, 25, 28}) entry->Arg(size);
}

template <class Element, class Rule>
void enter(std::string const& name) {
  auto* const entry = benchmark::RegisterBenchmark(("cuda/pass/" + name).c_str(), measure<Element, Rule>);
  entry->ArgNames({"K", "R", "log2", "runs"})->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(1);
  for (auto const& [gradients, mirrors] : {std::pair{1, 0}, {1, 1}, {4, 4}, {8, 8}})
    for (int const size : {10, 18, 25, 28}) entry->Args({gradients, mirrors, size, 1});
  for (auto const& [gradients, mirrors] : {std::pair{1, 0}, {4, 4}}) entry->Args({gradients, mirrors, 25, 1 << 14});
}

bool const entered = [] {
  enter<float, update::sgd>("sgd/float");
  enter<float, update::momentum>("momentum/float");
  enter<float, update::adam>("adam/float");
  enter<bfloat16, update::adam>("adam/bfloat16");
  enter_codecs<detail::coded_states<256, codec::linear, codec::unsigned_float8>>("linear, unsigned_float8");
  enter_codecs<detail::coded_states<256, codec::dynamic, codec::unsigned_dynamic>>("dynamic, unsigned_dynamic");
  return true;
}();

}  // namespace
