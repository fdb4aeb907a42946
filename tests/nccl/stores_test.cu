/// @file
/// Stores of ranks with one or two GPUs each, over comm::nccl and the stand-in for libnccl, or NCCL itself: the weights are those of one
/// process with as many devices, bit for bit.
#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.cuh>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nccl/alone.cuh"
#include "nccl/numbers.hpp"
#include "nccl/ranks_of_a_file.cuh"
#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/cuda_devices.cuh"
#include "support/expect.hpp"
#include "support/meet.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace update = pushpull::update;
namespace stand_in = pushpull::test::stand_in;
using communicator = comm::nccl<pp::cuda_device>;
using lists = std::vector<std::vector<float>>;

using pp::test::keys;
using pp::test::rows_of;
using pp::test::sizes;

std::vector<float> gradient(std::size_t key, std::size_t step, std::size_t source) {
  return pp::test::numbers(sizes[key], key, step, source);
}

/// Weights after each step, of a store whose rank brings source number `own` of each key, or of one that has all `sources`.
template <class Store>
lists train(Store& store, std::size_t own, std::size_t sources, std::size_t steps, pp::key_options options = {}) {
  lists values, result;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    values.push_back(own == 0 ? gradient(i, 99, 0) : std::vector<float>(sizes[i], 7));  // those of rank 0 count
  store.init(keys(), values, options);
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<lists> gradients(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i)
      for (std::size_t k = own; k < own + sources; ++k) gradients[i].push_back(gradient(i, step, k));
    store.pushpull(keys(), gradients, values);
    store.wait();
    result.insert(result.end(), values.begin(), values.end());
  }
  store.pull(keys(), values);
  store.wait();
  result.insert(result.end(), values.begin(), values.end());
  return result;
}

/// Same, of resident parameters on the store's devices. @param each  Each gradient is the sum of so many.
template <class Store>
lists train_parameters(Store& store, std::size_t own, std::size_t sources, std::size_t steps, std::size_t each) {
  pp::parameter_store parameters{store};
  for (std::size_t i = 0; i < sizes.size(); ++i)
    parameters.add(keys()[i], own == 0 ? gradient(i, 99, 0) : std::vector<float>(sizes[i], 7));
  lists result;
  for (std::size_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < sizes.size(); ++i)
      for (std::size_t n = 0; n < sources; ++n) {
        auto sum = gradient(i, step, (own + n) * each);
        for (std::size_t k = 1; k < each; ++k) {
          auto const more = gradient(i, step, (own + n) * each + k);
          for (std::size_t e = 0; e < sum.size(); ++e) sum[e] += more[e];
        }
        pp::copy(sum, parameters.grad(keys()[i], n));
      }
    parameters.update_all();
  }
  store.wait();
  for (auto const& key : keys()) result.push_back(pp::to_vector(parameters.value(key, sources - 1)));
  return result;
}
/// Same, of keys that rows update: of the host, and of the store's devices. Rows are cut by slices.
template <class Store>
lists train_rows(Store& store, std::size_t own, std::size_t sources, std::size_t steps, pp::key_options options) {
  pp::shape const& whole = pp::test::rows_shape;
  store.init("rows", rows_of(1, own == 0 ? 1 : 0), options);  // those of rank 0 count
  std::vector<float> weights(67 * 61);
  pp::tensor_view<float, pp::cpu_device<>> const view(weights.data(), whole);
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<pp::row_sparse<float>> on_host;
    std::vector<pp::row_sparse<float, pp::cuda_device>> on_devices;
    for (std::size_t n = 0; n < sources; ++n) {
      on_host.push_back(rows_of(step, own + n));
      auto const& rows = on_host.back();
      pp::cuda_device const& device = store.devices()[n];
      auto& there = on_devices.emplace_back(device, whole, rows.rows());
      device.copy(there.row_ids(), rows.row_ids(), static_cast<std::size_t>(rows.rows()) * sizeof(std::int64_t));
      device.copy(there.values(), rows.values(), static_cast<std::size_t>(rows.rows()) * 61 * sizeof(float));
    }
    auto const updates = step == 2 ? pp::row_updates::standard : pp::row_updates::lazy;
    if (step % 2 == 0)
      store.pushpull("rows", on_host, view, updates);
    else
      store.push("rows", on_devices, updates);
    store.wait();
  }
  lists result{weights};
  store.pull("rows", view);
  store.wait();
  result.push_back(weights);
  return result;
}
constexpr auto push_rows = [](auto&... x) { return train_rows(x...); };
constexpr auto push_and_pull = [](auto&... x) { return train(x...); };
constexpr auto with_states = [](auto& store, auto&... x) {
  lists result = train(store, x...);
  for (auto const& key : keys()) result.push_back(pp::to_vector(store.state(key, "exp_avg")));
  return result;
};
/// Same as train, but of gradients and outputs in memory of devices, those of a rank in another order than its devices.
constexpr auto push_from_devices = [](auto& store, std::size_t own, std::size_t sources, std::size_t steps,
                                      pp::key_options options) {
  lists values, result;
  for (std::size_t i = 0; i < sizes.size(); ++i) values.push_back(gradient(i, 99, 0));
  store.init(keys(), values, options);
  using tensor = pp::tensor<float, pp::cuda_device>;
  auto const of = [&](std::size_t n, std::vector<float> const& elements) {
    tensor t(store.devices()[n], pp::shape{static_cast<std::int64_t>(elements.size())});
    pp::copy(elements, t);
    return t;
  };
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<std::vector<tensor>> gradients(sizes.size()), outputs(sizes.size());
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      for (std::size_t k = own; k < own + sources; ++k)
        gradients[i].push_back(of(own + sources - 1 - k, gradient(i, step, k)));
      for (std::size_t n = 0; n < store.devices().size(); ++n) outputs[i].push_back(of(n, values[i]));
    }
    store.pushpull(keys(), gradients, outputs);
    store.wait();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      result.push_back(pp::to_vector(outputs[i].front()));
      pp::test::expect(pp::to_vector(outputs[i].back()) == result.back());
    }
  }
  return result;
};
/// The GPUs of a rank are added up before the ranks are: the bits of one process whose sources are these sums.
constexpr struct update_all_type {
  using adds_devices = void;
  template <class Store>
  lists operator()(Store& store, std::size_t own, std::size_t sources, std::size_t steps, pp::key_options,
                   std::size_t each = 1) const {
    return train_parameters(store, own, sources, steps, each);
  }
} update_all;

enum class met { as_threads, at_a_file };

/// Of two ranks of two GPUs rank 0 has sent one gradient, not two, of each element that rank 1 owns.
void require_one_copy_sent(std::size_t steps) {
  auto const calls = stand_in::calls_of(0);
  if (calls.empty()) return;  // over NCCL itself
  std::vector<std::int64_t> loads(4);
  auto const placed = pp::detail::lay_out_slices(sizes, std::vector<bool>(sizes.size(), true), loads);
  auto const owned = static_cast<std::size_t>(placed.size - placed.parts[1].end);
  std::size_t sent = 0;
  for (auto const& call : calls) sent += call.name == "ncclSend" ? call.bytes : 0;
  REQUIRE(owned > 0);
  REQUIRE(sent == steps * owned * sizeof(float));
}

/// Ranks, and GPUs of each.
struct job {
  int ranks;
  std::size_t each;
};

/// @tparam Alone  The communicator of the store of one process.
/// @param make  make(devices, communicator) -> a store. @param options  On several ranks.
template <class Alone = communicator, class Make, class Train>
void require_same_bits(std::size_t steps, Make const& make, Train const& run, pp::key_options options = {},
                       met how = met::as_threads) {
  for (auto const& [ranks, each] : {job{1, 1}, job{2, 1}, job{2, 2}, job{4, 1}}) {
    CAPTURE(ranks, each);
    int const count = ranks * static_cast<int>(each);
    if (count > stand_in::most_ranks() || (ranks == 1 && how == met::as_threads)) continue;
    auto const devices = pp::test::logical_devices(count);
    if (devices.empty()) return;
    pp::key_options const mirrored{};
    lists expected;
    if constexpr (requires { typename Train::adds_devices; }) {
      auto const sources = static_cast<std::size_t>(ranks);
      std::vector const of_alone(devices.begin(), devices.begin() + ranks);
      auto alone = make(of_alone, pp::test::alone<Alone>(of_alone));
      expected = run(alone, 0, sources, steps, mirrored, each);
    } else {
      auto alone = make(devices, pp::test::alone<Alone>(devices));
      std::size_t const none = 0, all = devices.size();
      expected = run(alone, none, all, steps, mirrored);
    }
    stand_in::reset();
    std::vector<lists> found(static_cast<std::size_t>(ranks));
    auto const of_rank = [&, own_sources = each](communicator const& c) {
      auto const rank = static_cast<std::size_t>(c.rank());
      auto store = make(c.devices(), c);
      std::size_t const first = rank * own_sources;
      found[rank] = run(store, first, own_sources, steps, options);
    };
    if (how == met::at_a_file)
      stand_in::on_ranks_of_a_file(ranks, {.deadline = std::chrono::minutes(1)}, of_rank, each);
    else
      comm::run_ranks(ranks, [&, own = static_cast<std::ptrdiff_t>(each)](comm::threads const& host) {
        auto const first = devices.begin() + host.rank() * own;
        of_rank(communicator(std::vector(first, first + own), host));
      });
    for (std::size_t rank = 0; rank < found.size(); ++rank)
      for (std::size_t i = 0; i < expected.size(); ++i)
        if (found[rank][i] != expected[i]) FAIL_CHECK("rank " << rank << ", list " << i << " of " << expected.size());
    if constexpr (requires { typename Train::adds_devices; })
      if (each > 1 && how == met::as_threads) require_one_copy_sent(steps);
    REQUIRE(stand_in::refusals().empty());
    REQUIRE(stand_in::live_communicators() == 0);
  }
}

}  // namespace

TEST_CASE("nccl: pushes over ranks give the bits of one process") {
  auto const adam = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  require_same_bits<comm::single>(3, adam, with_states);
  require_same_bits<comm::single>(2, adam, push_and_pull, {.mirrored = false});
  require_same_bits<comm::single>(2, adam, push_from_devices);
  require_same_bits<comm::single>(3, adam, update_all);
  require_same_bits<comm::single>(5, adam, push_rows);
  require_same_bits<comm::single>(5, adam, push_rows, {.mirrored = false});
}

TEST_CASE("nccl: stores of ranks that meet at a file give the bits of one process") {
  auto const clipped = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(3) | update::momentum{.learning_rate = 0.1}, c);
  };
  require_same_bits(2, clipped, push_and_pull, {.mirrored = false}, met::at_a_file);
  require_same_bits(2, clipped, update_all, {}, met::at_a_file);
  auto const adam = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
  };
  require_same_bits<comm::single>(3, adam, with_states, {}, met::at_a_file);
  require_same_bits<comm::single>(5, adam, push_rows, {}, met::at_a_file);
}

TEST_CASE("nccl: norms over ranks give the bits of one process") {
  auto const clipped = [](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(3) | update::momentum{.learning_rate = 0.1}, c);
  };
  require_same_bits(2, clipped, push_and_pull);
  require_same_bits(2, clipped, update_all);
}

TEST_CASE("nccl: compressed means over ranks give the bits of one process") {
  require_same_bits(
      3,
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::sgd{.learning_rate = 0.5}, pp::reduce::mean{},
                                        pp::compress::two_bit{.threshold = 0.5F}, c);
      },
      push_and_pull);
}

TEST_CASE("nccl: a function over ranks of GPUs gives the bits of one process") {
  require_same_bits(
      2,
      [](auto const& devices, auto const& c) {
        auto store = pp::make_kv_store<float>(devices, c);
        store.set_updater([](auto const&, auto const& received, auto const& stored) {
          auto weights = pp::to_vector(stored);
          auto const gradients = pp::to_vector(received);
          for (std::size_t i = 0; i < weights.size(); ++i) weights[i] -= gradients[i] / 4;
          pp::copy(weights, stored);
        });
        return store;
      },
      push_and_pull);
}

TEST_CASE("nccl: after a failure a store says so, and refuses other devices and rows", "[faults]") {
  auto const devices = pp::test::logical_devices(2);
  if (devices.empty()) return;
  stand_in::reset();
  std::atomic<int> armed = 0;
  comm::run_ranks(2, [&](comm::threads const& host) {
    auto const& device = devices[static_cast<std::size_t>(host.rank())];
    communicator const c(device, host, {.deadline = std::chrono::seconds(20)});
    pp::test::expect_throws<pp::invalid_argument>(
        [&] { auto const store = pp::make_kv_store<float>(devices, update::adam{}, c); });  // the communicator has one
    auto store = pp::make_kv_store<float>(std::vector{device}, update::adam{.learning_rate = 0.5}, c);
    std::vector<float> weights(5000, 1);
    std::vector<float> const gradient(5000, 0.25F);
    store.init("a", weights);
    store.pushpull("a", gradient, weights);
    store.wait();
    for (float const w : weights) pp::test::expect(std::abs(w - 0.5F) < 1e-6F);
    if (host.rank() == 1) stand_in::fail_call("ncclSend", 1, ncclSystemError);
    pp::test::meet(armed, 2);
    for (char const* const text : {"ncc", "an earlier call to other ranks failed"}) {
      std::string message;
      try {
        store.push("a", gradient);
      } catch (pp::comm_error const& e) {
        message = e.what();
      }
      pp::test::expect_text(message, text);
    }
    pp::test::expect_throws<pp::comm_error>([&] { host.barrier(); });
  });
}
