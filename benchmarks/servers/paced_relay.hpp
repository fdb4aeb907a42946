/// @file
/// A slower link on this machine: connections to a port are passed on, each direction at a given speed.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "tcp.hpp"

namespace pushpull::bench {

/// Passes connections on to a port of this machine until it ends.
class paced_relay {
 public:
  /// @param bytes_per_second  Of each direction of each connection.
  paced_relay(std::uint16_t port, double bytes_per_second)
      : port_(port), rate_(bytes_per_second), acceptor_([this] { accept_all(); }) {}
  ~paced_relay() {
    shutdown(listener_.handle(), SHUT_RDWR);
    acceptor_.join();
    for (auto const& open : connections_) {
      shutdown(open->near.handle(), SHUT_RDWR);
      shutdown(open->far.handle(), SHUT_RDWR);
      open->there.join();
      open->back.join();
    }
  }

  std::uint16_t port() const { return ntohs(address_.sin_port); }

 private:
  struct connection {
    connection(paced_relay const& relay, int accepted)
        : near(accepted),
          far(connected(relay.port_)),
          there([this, &relay] { relay.pass(near, far); }),
          back([this, &relay] { relay.pass(far, near); }) {}
    tcp_socket near, far;
    std::thread there, back;
  };

  void accept_all() {
    for (;;) {
      int const accepted = accept(listener_.handle(), nullptr, nullptr);
      if (accepted < 0) return;
      at_once(accepted);
      connections_.push_back(std::make_unique<connection>(*this, accepted));
    }
  }
  /// A time slot per part. Sleeps end late: the next part makes up for that, up to a millisecond.
  void pass(tcp_socket const& from, tcp_socket const& to) const {
    std::vector<std::byte> part(std::size_t{1} << 15);
    auto free_at = std::chrono::steady_clock::now();
    for (;;) {
      auto const n = ::recv(from.handle(), part.data(), part.size(), 0);
      if (n <= 0) break;
      free_at = std::max(free_at, std::chrono::steady_clock::now() - std::chrono::milliseconds(1)) +
                std::chrono::nanoseconds(static_cast<std::int64_t>(static_cast<double>(n) / rate_ * 1e9));
      std::this_thread::sleep_until(free_at);
      if (!to.try_send_all(part.data(), static_cast<std::size_t>(n))) break;
    }
    shutdown(to.handle(), SHUT_WR);
  }

  std::uint16_t port_;
  double rate_;
  tcp_socket listener_{socket(AF_INET, SOCK_STREAM, 0)};
  sockaddr_in address_ = bound(listener_.handle());
  std::vector<std::unique_ptr<connection>> connections_;  // of the acceptor, until it ends
  std::thread acceptor_;
};

}  // namespace pushpull::bench
