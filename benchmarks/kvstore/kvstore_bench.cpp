/// @file
/// What kv_store adds to the pass: many small keys, the keys of real models, compressed gradients, a type-erased store.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#include <pushpull/pushpull.hpp>

#include "pass/bare_pass.hpp"
#include "support/contest.hpp"
#include "support/models.hpp"
#include "support/operands.hpp"

namespace {

using namespace pushpull;
using view = tensor_view<float>;

/// Tensors of the given sizes in one allocation, `count` sets of them.
class tensors {
 public:
  tensors(cpu_device<> const& device, std::vector<std::int64_t> const& sizes, std::size_t count, float value)
      : sizes_(sizes), arrays_(device, std::vector(count, static_cast<std::size_t>(total(sizes)) * sizeof(float)), 3) {
    for (std::size_t set = 0; set < count; ++set) std::fill_n(arrays_.array<float>(set), total(sizes), value);
  }

  /// One range per key, with one view per set.
  std::vector<std::vector<view>> by_key(std::size_t sets) const {
    std::vector<std::vector<view>> result;
    std::int64_t first = 0;
    for (std::int64_t const size : sizes_) {
      std::vector<view> key;
      for (std::size_t set = 0; set < sets; ++set) key.emplace_back(arrays_.array<float>(set) + first, shape{size});
      result.push_back(std::move(key));
      first += padded(size);
    }
    return result;
  }

 private:
  static std::int64_t padded(std::int64_t size) { return detail::padded(static_cast<std::size_t>(size)); }
  static std::int64_t total(std::vector<std::int64_t> const& sizes) {
    std::int64_t sum = 0;
    for (std::int64_t const size : sizes) sum += padded(size);
    return sum;
  }

  std::vector<std::int64_t> sizes_;
  detail::staggered_arrays<cpu_device<>> arrays_;
};

/// pushpull of keys with the given sizes, `replicas` gradients and outputs each, in one list and key by key, against the
/// pass over one array of as many elements.
void pushpull_keys(benchmark::State& state, std::vector<std::int64_t> const& sizes, std::size_t replicas) {
  cpu_device<> const device;
  kv_store store{std::vector{device}, update::momentum{}, integer_keys{}};
  tensors const all_gradients(device, sizes, replicas, 0.01F), all_outputs(device, sizes, replicas, 0.0F);
  auto const gradients = all_gradients.by_key(replicas), outputs = all_outputs.by_key(replicas);
  std::vector<std::int64_t> keys(sizes.size());
  std::iota(keys.begin(), keys.end(), 0);
  std::vector<view> initial;
  for (auto const& key : outputs) initial.push_back(key.front());
  store.init(keys, initial);

  std::int64_t const total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  bench::operands<float> o(device, detail::padded(static_cast<std::size_t>(total)), replicas, replicas, 1);
  bench::bare_pass<float, update::momentum> one_array(device, o, {});
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(total));
  contest.enter("ours", [&] { store.pushpull(keys, gradients, outputs).wait(); });
  contest.enter("one array", [&] { one_array(); });
  contest.enter("key by key", [&] {
    for (std::size_t k = 0; k < keys.size(); ++k) store.pushpull(keys[k], gradients[k], outputs[k]);
    store.wait();
  });
  contest.run(state, static_cast<double>(total), o.bytes_moved());
  state.counters["keys"] = static_cast<double>(keys.size());
}

void small_keys(benchmark::State& state) {
  pushpull_keys(state, std::vector<std::int64_t>(1000, 64), static_cast<std::size_t>(state.range(0)));
}
void resnet50(benchmark::State& state) { pushpull_keys(state, bench::resnet50(), 4); }
void bert_base(benchmark::State& state) { pushpull_keys(state, bench::bert_base(), 4); }

/// Gradients that differ, so that selecting the largest is work.
void fill_normally(float* x, std::int64_t size) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate_n(x, std::min<std::int64_t>(size, 65536), [&] { return normal(random); });
  for (std::int64_t i = 65536; i < size; ++i) x[i] = x[i - 65536] * (i % 131072 < 65536 ? 0.7F : 1.4F);
}

/// One source's memory and its encoder.
template <class Compressor>
class encoded_source {
  using encoder = compress::encoder<Compressor, float, cpu_device<>>;

 public:
  encoded_source(cpu_device<> const& device, Compressor const& compressor, std::int64_t size)
      : compressor_(compressor), size_(size), memory_(std::type_identity<encoder>{}, device, compressor, size) {}

  void encode(float const* gradient) {
    encoder::encode(memory_.device, compressor_, gradient, size_, memory_.residual.data(), memory_.codes.data());
  }
  auto source() const {
    return encoder::source(compressor_, memory_.codes.data(), size_, 0, size_,
                           [](void const* p, std::size_t) { return p; });
  }

 private:
  Compressor compressor_;
  std::int64_t size_;
  detail::compressed_source<cpu_device<>> memory_;
};

/// The encoder alone, in bytes of its float input.
template <auto const& Compressor>
void encode(benchmark::State& state) {
  cpu_device<> const device;
  std::int64_t const size = std::int64_t{1} << state.range(0);
  bench::operands<float> o(device, size, 1, 1, 0);
  auto* const gradient = const_cast<float*>(o.gradient[0]);
  fill_normally(gradient, size);
  encoded_source source(device, Compressor, size);
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(size));
  contest.enter("ours", [&] { source.encode(gradient); });
  contest.enter("copy", [&] {
    device.for_each(size >> 15, [&](std::int64_t i) {
      std::memcpy(o.mirror[0] + (i << 15), o.gradient[0] + (i << 15), sizeof(float) << 15);
    });
  });
  contest.run(state, static_cast<double>(size), 4 * static_cast<double>(size));
}

/// The pass alone, from four sources that are encoded, in bytes of the pass that reads floats.
template <auto const& Compressor>
void decode(benchmark::State& state) {
  using compressor = std::remove_cvref_t<decltype(Compressor)>;
  using encoded = typename compressor::template encoded_type<float>;
  using types = pass::element_types<encoded, float, float, float, float>;
  using rule = update::momentum;
  cpu_device<> const device;
  std::int64_t const size = std::int64_t{1} << state.range(0);
  bench::operands<float> o(device, size, 4, 1, 1);
  std::vector<encoded_source<compressor>> sources;
  std::vector<detail::source_of<encoded>> gradients;
  for (float const* const gradient : o.gradient) {
    fill_normally(const_cast<float*>(gradient), size);
    sources.emplace_back(device, Compressor, size);
    sources.back().encode(gradient);
    gradients.push_back(sources.back().source());
  }
  pass::plan<cpu_device<>, types, 1> plan;
  pass::run<types, 1> run{};
  run.size = size;
  run.unit = 0.5F;
  run.master = o.weight;
  run.state[0] = o.state[0];
  plan.add_clock(0, true);
  plan.add(run, gradients, o.mirror);
  plan.commit(device);
  rule const momentum{};
  pass::clock_of<rule, types> clock{};
  bench::bare_pass<float, rule> plain(device, o, momentum);
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(size));
  contest.enter("ours", [&] {
    plan.begin_step(device, &momentum, &clock);
    plan.template launch<rule, reduce::sum, pass::memory::foreign>(device, &momentum, &clock);
  });
  contest.enter("uncompressed", [&] { plain(); });
  contest.run(state, static_cast<double>(size), o.bytes_moved());
}

/// push and pull of one key from four sources, compressed and not.
template <auto const& Compressor>
void compressed_push(benchmark::State& state) {
  cpu_device<> const device;
  std::vector<std::int64_t> const sizes{std::int64_t{1} << state.range(0)};
  kv_store plain{std::vector{device}, update::momentum{}, integer_keys{}};
  kv_store compressed{std::vector{device}, update::momentum{}, integer_keys{}, Compressor};
  tensors const all_gradients(device, sizes, 4, 0.01F), all_outputs(device, sizes, 1, 0.0F);
  auto const gradients = all_gradients.by_key(4).front();
  auto const output = all_outputs.by_key(1).front();
  plain.init(0, output.front());
  compressed.init(0, output.front());
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(sizes.front()));
  contest.enter("ours", [&] { compressed.pushpull(0, gradients, output).wait(); });
  contest.enter("uncompressed", [&] { plain.pushpull(0, gradients, output).wait(); });
  contest.run(state, static_cast<double>(sizes.front()), 16 * static_cast<double>(sizes.front()));
}

/// pushpull of one key, K = R = 1, by an any_store and by the kv_store that it hides.
void type_erased(benchmark::State& state) {
  cpu_device<> const device;
  std::vector<std::int64_t> const sizes{std::int64_t{1} << state.range(0)};
  kv_store typed{std::vector{device}, update::momentum{}, integer_keys{}};
  auto erased = create("local", std::vector{device});
  tensors const all_gradients(device, sizes, 1, 0.01F), all_outputs(device, sizes, 1, 0.0F);
  auto const gradient = all_gradients.by_key(1).front().front();
  auto const output = all_outputs.by_key(1).front().front();
  typed.init(0, output);
  erased.init(0, output);
  erased.set_optimizer(update::momentum{});
  bench::contest contest((std::size_t{1} << 22) / static_cast<std::size_t>(sizes.front()));
  contest.enter("ours", [&] { erased.pushpull(0, gradient, output).wait(); });
  contest.enter("typed", [&] { typed.pushpull(0, gradient, output).wait(); });
  contest.run(state, static_cast<double>(sizes.front()), 20 * static_cast<double>(sizes.front()));
}

void entry(char const* name, void (*run)(benchmark::State&), std::vector<std::int64_t> const& arguments) {
  auto* const b = benchmark::RegisterBenchmark(name, run);
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(15);
  for (std::int64_t const argument : arguments) b->Arg(argument);
}

constexpr compress::two_bit two_bit{};
constexpr compress::one_bit one_bit{};
constexpr compress::cast<half> to_half{};
constexpr compress::cast<bfloat16> to_bfloat16{};
constexpr compress::cast<float8_e4m3> to_e4m3{};
constexpr compress::cast<float8_e5m2> to_e5m2{};
constexpr compress::cast<float8_e5m2> to_e5m2_with_feedback{true};
constexpr compress::top_k top_percent{};

template <auto const& Compressor>
void entries(std::string const& name) {
  entry(("kvstore/encode " + name).c_str(), encode<Compressor>, {18, 25});
  entry(("kvstore/decode " + name + " of 4 sources").c_str(), decode<Compressor>, {18, 25});
  entry(("kvstore/push " + name + " of 4 sources").c_str(), compressed_push<Compressor>, {18, 25});
}

bool const entered = [] {
  entry("kvstore/1000 keys of 64 floats", small_keys, {1, 4});
  entry("kvstore/ResNet-50", resnet50, {});
  entry("kvstore/BERT-base", bert_base, {});
  entry("kvstore/any_store", type_erased, {16, 18, 20, 25});
  entries<two_bit>("2bit");
  entries<one_bit>("1bit");
  entries<to_half>("float16");
  entries<to_bfloat16>("bfloat16");
  entries<to_e4m3>("float8_e4m3");
  entries<to_e5m2>("float8_e5m2");
  entries<to_e5m2_with_feedback>("float8_e5m2 with error feedback");
  entries<top_percent>("top 1%");
  return true;
}();

}  // namespace
