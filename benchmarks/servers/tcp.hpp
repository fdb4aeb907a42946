/// @file
/// TCP connections of this machine.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <system_error>

namespace pushpull::bench {

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
    if (!try_send_all(data, bytes)) throw std::system_error(errno, std::generic_category(), "send");
  }
  /// @returns false if the peer is gone
  bool try_send_all(void const* data, std::size_t bytes) const {
    for (auto const* p = static_cast<std::byte const*>(data); bytes > 0;) {
      auto const n = ::send(handle_, p, bytes, MSG_NOSIGNAL);
      if (n <= 0) return false;
      p += n;
      bytes -= static_cast<std::size_t>(n);
    }
    return true;
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

/// What is sent is not held back for more.
inline void at_once(int handle) {
  int const on = 1;
  setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
/// Listens at a port of this machine that the system chooses.
inline sockaddr_in bound(int handle) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(handle, reinterpret_cast<sockaddr const*>(&address), size) != 0 || listen(handle, 1) != 0 ||
      getsockname(handle, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw std::system_error(errno, std::generic_category(), "bind");
  return address;
}
/// A connection to a port of this machine.
inline int connected(std::uint16_t port) {
  int const handle = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (handle < 0 || connect(handle, reinterpret_cast<sockaddr const*>(&address), sizeof address) != 0)
    throw std::system_error(errno, std::generic_category(), "connect");
  at_once(handle);
  return handle;
}

}  // namespace pushpull::bench
