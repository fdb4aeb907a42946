/// @file
/// The exchange of a gradient for weights with a peer on this machine: as messages of ZeroMQ, and over a plain TCP connection.
#pragma once

#include <algorithm>
#include <cstddef>
#include <semaphore>
#include <thread>
#include <vector>

#include <zmq.hpp>

#include "tcp.hpp"

namespace pushpull::bench {

constexpr std::size_t piece = std::size_t{1} << 20;  ///< Bytes, as a remote_store cuts keys.
constexpr std::size_t window = 4;                    ///< Pieces under way at most.

/// Messages of one piece each way, at most `window` under way; what comes is copied to its place, as in a remote_store.
class message_exchange {
 public:
  message_exchange() : thread_([this] { echo(); }) {
    client_.set(zmq::sockopt::linger, 0);
    client_.connect(server_.get(zmq::sockopt::last_endpoint));
  }
  ~message_exchange() {
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

/// The same pieces over one TCP connection, whose other side answers each piece with one.
class tcp_exchange {
 public:
  /// @param relayed  relayed(port) is the port through which the other side's is reached.
  template <class Relayed>
  explicit tcp_exchange(Relayed const& relayed)
      : peer_([this] { answer(); }), client_(connected(relayed(ntohs(address_.sin_port)))) {}
  ~tcp_exchange() {
    shutdown(client_.handle(), SHUT_RDWR);
    peer_.join();
  }
  void run(std::vector<float> const& gradient, std::vector<float>& weights) {
    std::size_t const pieces = gradient.size() * sizeof(float) / piece;
    auto const* const from = reinterpret_cast<std::byte const*>(gradient.data());
    auto* const to = reinterpret_cast<std::byte*>(weights.data());
    std::counting_semaphore<window> free(window);
    std::thread sender([&] {
      for (std::size_t i = 0; i < pieces; ++i) {
        free.acquire();
        client_.send_all(from + i * piece, piece);
      }
    });
    for (std::size_t i = 0; i < pieces; ++i) {
      client_.receive_all(to + i * piece, piece);
      free.release();
    }
    sender.join();
  }

 private:
  void answer() {
    tcp_socket const peer(accept(listener_.handle(), nullptr, nullptr));
    at_once(peer.handle());
    std::vector<std::byte> gradient(piece), weights(piece);
    while (peer.receive_all(gradient.data(), piece)) peer.send_all(weights.data(), piece);
  }

  tcp_socket listener_{socket(AF_INET, SOCK_STREAM, 0)};
  sockaddr_in address_ = bound(listener_.handle());
  std::thread peer_;
  tcp_socket client_;
};

}  // namespace pushpull::bench
