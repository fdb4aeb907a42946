/// @file
/// A pushpull of a worker with one server on this machine, beside the bare exchange of its messages, plain TCP and the pass alone.
///
/// pushpull.bench.servers [MiB [turns [Gbit/s]]]. With a speed, messages and TCP go through a relay that paces them. The ratio is that of the best turns; all kinds of a turn follow one another.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/remote/server.hpp>

#include "exchanges.hpp"
#include "paced_relay.hpp"

namespace {

namespace pp = pushpull;
using pp::bench::piece;
using device = pp::cpu_device<>;
using rule = pp::update::momentum;

template <class F>
double seconds(F const& f) {
  auto const begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::uint16_t port_of(std::string const& address) {
  return static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
}

/// The store over a link of a given speed in each direction, beside plain TCP over such a link.
void over_a_link(std::string const& address, std::vector<float> const& gradient, int turns, double gbit) {
  using pp::bench::paced_relay;
  double const rate = gbit * 1e9 / 8;
  std::unique_ptr<paced_relay> plain;
  pp::bench::tcp_exchange tcp([&](std::uint16_t port) {
    plain = std::make_unique<paced_relay>(port, rate);
    return plain->port();
  });
  paced_relay const relay(port_of(address), rate);
  pp::remote_store<float, device> store(pp::cpu_devices(1), {"tcp://127.0.0.1:" + std::to_string(relay.port())});
  std::vector<float> weights(gradient.size(), 1.0F);
  store.init("over a link", weights);
  double raw = 1e9, both = 1e9, push = 1e9, coded = 1e9;
  for (int turn = 0; turn < turns; ++turn) {
    raw = std::min(raw, seconds([&] { tcp.run(gradient, weights); }));
    both = std::min(both, seconds([&] { store.pushpull("over a link", gradient, weights).wait(); }));
    push = std::min(push, seconds([&] { store.push("over a link", gradient).wait(); }));
  }
  store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.5"}});
  for (int turn = 0; turn < turns; ++turn)
    coded = std::min(coded, seconds([&] { store.push("over a link", gradient).wait(); }));
  double const mib = static_cast<double>(gradient.size() * sizeof(float)) / static_cast<double>(pp::bench::piece);
  std::printf("pushpull of %.0f MiB over %g Gbit/s: %.1f ms, plain TCP %.1f ms; %.2f of its speed\n", mib, gbit,
              both * 1e3, raw * 1e3, raw / both);
  std::printf("push alone: %.1f ms; of two bits per element %.1f ms\n", push * 1e3, coded * 1e3);
}

/// Seconds of the best turn in which `workers` remote stores push and pull at once.
double together(std::string const& address, std::size_t workers, std::vector<float> const& gradient, int turns) {
  std::vector<std::unique_ptr<pp::remote_store<float, device>>> stores;
  std::vector<std::vector<float>> weights(workers, std::vector<float>(gradient.size(), 1.0F));
  for (std::size_t i = 0; i < workers; ++i)
    stores.push_back(std::make_unique<pp::remote_store<float, device>>(pp::cpu_devices(1), std::vector{address}));
  for (auto const& store : stores) store->init("w", weights[0]);
  double best = 1e9;
  for (int turn = 0; turn < turns; ++turn)
    best = std::min(best, seconds([&] {
                      std::vector<pp::completion> calls;
                      for (std::size_t i = 0; i < workers; ++i)
                        calls.push_back(stores[i]->pushpull("w", gradient, weights[i]));
                      for (auto const& call : calls) call.wait();
                    }));
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t const mib = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 16;
  int const turns = argc > 2 ? std::atoi(argv[2]) : 30;
  double const gbit = argc > 3 ? std::atof(argv[3]) : 0;
  if (mib == 0 || turns < 1 || gbit < 0) {
    std::fprintf(stderr, "usage: pushpull.bench.servers [MiB [turns [Gbit/s]]]\n");
    return 1;
  }
  std::size_t const n = mib * piece / sizeof(float);
  std::vector<float> gradient(n, 0.001F), weights(n, 1.0F), local_weights(n, 1.0F);
  pp::kv_store<float, device, rule, pp::integer_keys> served(pp::cpu_devices(1), rule{});
  pp::remote::server server(served);
  if (gbit > 0) {
    over_a_link(server.address(), gradient, turns, gbit);
    return 0;
  }
  pp::remote_store<float, device> store(pp::cpu_devices(1), {server.address()});
  pp::kv_store<float, device, rule, pp::integer_keys> local(pp::cpu_devices(1), rule{});
  store.init("w", weights);
  for (std::size_t i = 0; i < mib; ++i)
    local.init(static_cast<std::int64_t>(i), std::span(weights).subspan(i * (n / mib), n / mib));
  pp::bench::message_exchange messages;
  pp::bench::tcp_exchange connection([](std::uint16_t port) { return port; });
  double exchange = 1e9, raw = 1e9, pass = 1e9, both = 1e9;
  for (int turn = 0; turn < turns; ++turn) {
    exchange = std::min(exchange, seconds([&] { messages.run(gradient, local_weights); }));
    raw = std::min(raw, seconds([&] { connection.run(gradient, local_weights); }));
    pass = std::min(pass, seconds([&] {
                      for (std::size_t i = 0; i < mib; ++i) {
                        auto const output = std::span(local_weights).subspan(i * (n / mib), n / mib);
                        local
                            .pushpull(static_cast<std::int64_t>(i),
                                      std::span<float const>(gradient).subspan(i * (n / mib), n / mib), output)
                            .wait();
                      }
                    }));
    both = std::min(both, seconds([&] { store.pushpull("w", gradient, weights).wait(); }));
  }
  std::printf("pushpull of %zu MiB with one server: %.1f ms; bare exchange %.1f ms + pass %.1f ms; ratio %.2f\n", mib,
              both * 1e3, exchange * 1e3, pass * 1e3, both / (exchange + pass));
  std::printf("the same bytes over plain TCP: %.1f ms; the link's speed is %.2f of it, with the pass %.2f\n", raw * 1e3,
              raw / exchange, (raw + pass) / both);
  constexpr std::size_t workers = 3;
  double const all = together(server.address(), workers, gradient, turns);
  std::printf("%zu workers at once: %.1f ms, %.0f MiB/s of gradients and as many of weights\n", workers, all * 1e3,
              static_cast<double>(workers * mib) / all);
}
