/// @file
/// A pushpull of a worker with one server on this machine, beside the bare exchange of its messages and the pass alone.
///
/// pushpull.bench.servers [MiB [turns]]. The ratio is that of the best turns; all kinds of a turn follow one another.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <pushpull/pushpull.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/remote/server.hpp>

namespace {

namespace pp = pushpull;
using device = pp::cpu_device<>;
using rule = pp::update::momentum;

template <class F>
double seconds(F const& f) {
  auto const begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

constexpr std::size_t piece = std::size_t{1} << 20;  // bytes, as a remote_store cuts keys
constexpr std::size_t window = 4;

/// Messages of one piece each way, at most `window` under way; what comes is copied to its place, as in a remote_store.
class bare_exchange {
 public:
  bare_exchange() : thread_([this] { echo(); }) {
    client_.set(zmq::sockopt::linger, 0);
    client_.connect(server_.get(zmq::sockopt::last_endpoint));
  }
  ~bare_exchange() {
    client_.send(zmq::message_t(), zmq::send_flags::none);
    thread_.join();
  }
  void run(std::vector<float> const& gradient, std::vector<float>& weights) {
    std::size_t const pieces = gradient.size() * sizeof(float) / piece;
    auto const* const from = reinterpret_cast<std::byte const*>(gradient.data());
    auto* const to = reinterpret_cast<std::byte*>(weights.data());
    std::size_t sent = 0;
    auto const send = [&] {
      zmq::message_t m(const_cast<std::byte*>(from) + sent++ * piece, piece, [](void*, void*) {});
      client_.send(m, zmq::send_flags::none);
    };
    while (sent < std::min(window, pieces)) send();
    for (std::size_t got = 0; got < pieces; ++got) {
      zmq::message_t m;
      (void)client_.recv(m);
      if (sent < pieces) send();
      std::copy_n(static_cast<std::byte const*>(m.data()), piece, to + got * piece);
    }
  }

 private:
  void echo() {
    for (;;) {
      zmq::message_t from, m;
      (void)server_.recv(from);
      (void)server_.recv(m);
      if (m.size() == 0) return;
      server_.send(from, zmq::send_flags::sndmore);
      server_.send(zmq::message_t(piece), zmq::send_flags::none);
    }
  }

  zmq::context_t context_{2};
  zmq::socket_t server_ = bound();
  zmq::socket_t client_{context_, zmq::socket_type::dealer};
  std::thread thread_;

  zmq::socket_t bound() {
    zmq::socket_t socket(context_, zmq::socket_type::router);
    socket.bind("tcp://127.0.0.1:*");
    return socket;
  }
};

}  // namespace

int main(int argc, char** argv) {
  std::size_t const mib = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 16;
  int const turns = argc > 2 ? std::atoi(argv[2]) : 30;
  if (mib == 0 || turns < 1) {
    std::fprintf(stderr, "usage: pushpull.bench.servers [MiB [turns]]\n");
    return 1;
  }
  std::size_t const n = mib * piece / sizeof(float);
  std::vector<float> gradient(n, 0.001F), weights(n, 1.0F), local_weights(n, 1.0F);
  pp::kv_store<float, device, rule, pp::integer_keys> served(pp::cpu_devices(1), rule{});
  pp::remote::server server(served);
  pp::remote_store<float, device> store(pp::cpu_devices(1), {server.address()});
  pp::kv_store<float, device, rule, pp::integer_keys> local(pp::cpu_devices(1), rule{});
  store.init("w", weights);
  for (std::size_t i = 0; i < mib; ++i)
    local.init(static_cast<std::int64_t>(i), std::span(weights).subspan(i * (n / mib), n / mib));
  bare_exchange bare;
  double exchange = 1e9, pass = 1e9, both = 1e9;
  for (int turn = 0; turn < turns; ++turn) {
    exchange = std::min(exchange, seconds([&] { bare.run(gradient, local_weights); }));
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
}
