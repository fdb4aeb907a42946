/// @file
/// The exchange of a gradient for weights with a peer on this machine: as messages of ZeroMQ, and over a plain TCP connection.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <semaphore>
#include <system_error>
#include <thread>
#include <vector>

#include <zmq.hpp>

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

/// Owns a socket.
class tcp_socket {
 public:
  explicit tcp_socket(int handle) : handle_(handle) {
    if (handle < 0) throw std::system_error(errno, std::generic_category(), "socket");
  }
  tcp_socket(tcp_socket const&) = delete;
  tcp_socket& operator=(tcp_socket const&) = delete;
  ~tcp_socket() { close(handle_); }
  int handle() const { return handle_; }

  void send_all(void const* data, std::size_t bytes) const {
    for (auto const* p = static_cast<std::byte const*>(data); bytes > 0;) {
      auto const n = ::send(handle_, p, bytes, MSG_NOSIGNAL);
      if (n <= 0) throw std::system_error(errno, std::generic_category(), "send");
      p += n;
      bytes -= static_cast<std::size_t>(n);
    }
  }
  /// @returns false at the end of the connection
  bool receive_all(void* data, std::size_t bytes) const {
    for (auto* p = static_cast<std::byte*>(data); bytes > 0;) {
      auto const n = ::recv(handle_, p, bytes, MSG_WAITALL);
      if (n < 0) throw std::system_error(errno, std::generic_category(), "recv");
      if (n == 0) return false;
      p += n;
      bytes -= static_cast<std::size_t>(n);
    }
    return true;
  }

 private:
  int handle_;
};

/// The same pieces over one TCP connection, whose other side answers each piece with one.
class tcp_exchange {
 public:
  tcp_exchange() : peer_([this] { answer(); }) {
    if (connect(client_.handle(), reinterpret_cast<sockaddr const*>(&address_), sizeof address_) != 0)
      throw std::system_error(errno, std::generic_category(), "connect");
    at_once(client_.handle());
  }
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
  static void at_once(int handle) {
    int const on = 1;
    setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  static sockaddr_in bound(int handle) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(handle, reinterpret_cast<sockaddr const*>(&address), size) != 0 || listen(handle, 1) != 0 ||
        getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::system_error(errno, std::generic_category(), "bind");
    return address;
  }
  void answer() {
    tcp_socket const peer(accept(listener_.handle(), nullptr, nullptr));
    at_once(peer.handle());
    std::vector<std::byte> gradient(piece), weights(piece);
    while (peer.receive_all(gradient.data(), piece)) peer.send_all(weights.data(), piece);
  }

  tcp_socket listener_{socket(AF_INET, SOCK_STREAM, 0)}, client_{socket(AF_INET, SOCK_STREAM, 0)};
  sockaddr_in address_ = bound(listener_.handle());
  std::thread peer_;
};

}  // namespace pushpull::bench
