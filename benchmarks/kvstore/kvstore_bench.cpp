/// @file
/// What kv_store adds to the pass: many small keys, the keys of real models, compressed gradients, a type-erased store.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
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

/// Tensors of the given sizes in one arena, `count` sets of them.
class tensors {
 public:
  tensors(cpu_device<> const& device, std::vector<std::int64_t> const& sizes, std::size_t count, float value)
      : sizes_(sizes) {
    std::int64_t total = 0;
    for (std::int64_t const size : sizes) total += padded(size);
    arena_ = detail::arena<cpu_device<>>(device, std::vector(count, static_cast<std::size_t>(total) * sizeof(float)), 3);
    for (std::size_t set = 0; set < count; ++set) std::fill_n(arena_.array<float>(set), total, value);
  }

  /// One range per key, with one view per set.
  std::vector<std::vector<view>> by_key(std::size_t sets) const {
    std::vector<std::vector<view>> result;
    std::int64_t first = 0;
    for (std::int64_t const size : sizes_) {
      std::vector<view> key;
      for (std::size_t set = 0; set < sets; ++set) key.emplace_back(arena_.array<float>(set) + first, shape{size});
      result.push_back(std::move(key));
      first += padded(size);
    }
    return result;
  }

 private:
  static std::int64_t padded(std::int64_t size) { return detail::padded(static_cast<std::size_t>(size)); }

  std::vector<std::int64_t> sizes_;
  detail::arena<cpu_device<>> arena_;
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

/// The encoder alone, in bytes of its float input.
template <class Compressor>
void encode(benchmark::State& state) {
  cpu_device<> const device;
  std::int64_t const size = std::int64_t{1} << state.range(0);
  bench::operands<float> o(device, size, 1, 1, 0);
  detail::compressed_source<cpu_device<>> source(device, Compressor{}, size);
  bench::contest contest((std::size_t{1} << 20) / static_cast<std::size_t>(size));
  contest.enter("ours", [&] { source.encode(Compressor{}, o.gradient[0], size); });
  contest.enter("copy", [&] {
    device.for_each(size >> 15, [&](std::int64_t i) {
      std::memcpy(o.mirror[0] + (i << 15), o.gradient[0] + (i << 15), sizeof(float) << 15);
    });
  });
  contest.run(state, static_cast<double>(size), 4 * static_cast<double>(size));
}

/// push and pull of one key from four sources, compressed and not.
void compressed_push(benchmark::State& state) {
  cpu_device<> const device;
  std::vector<std::int64_t> const sizes{std::int64_t{1} << state.range(0)};
  kv_store plain{std::vector{device}, update::momentum{}, integer_keys{}};
  kv_store compressed{std::vector{device}, update::momentum{}, integer_keys{}, compress::two_bit{}};
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

bool const entered = [] {
  entry("kvstore/1000 keys of 64 floats", small_keys, {1, 4});
  entry("kvstore/ResNet-50", resnet50, {});
  entry("kvstore/BERT-base", bert_base, {});
  entry("kvstore/encode 2bit", encode<compress::two_bit>, {18, 25});
  entry("kvstore/encode 1bit", encode<compress::one_bit>, {18, 25});
  entry("kvstore/push 2bit of 4 sources", compressed_push, {18, 25});
  entry("kvstore/any_store", type_erased, {16, 18, 20, 25});
  return true;
}();

}  // namespace
