/// @file
/// Messages as frames of ZeroMQ.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// A new pair of keys for encrypted connections. @throws invalid_argument if libzmq was built without CURVE
inline curve_keys new_curve_keys() {
  std::string public_key(41, '\0'), secret_key(41, '\0');
  pushpull::detail::expects<invalid_argument>(zmq_curve_keypair(public_key.data(), secret_key.data()) == 0,
                                              [] { return std::string("new_curve_keys: this libzmq has no CURVE"); });
  public_key.resize(40);
  secret_key.resize(40);
  return {std::move(public_key), std::move(secret_key)};
}

namespace detail {

/// Of a process, which no other has.
inline std::uint64_t random_number() {
  std::random_device source;
  return std::uint64_t{source()} << 32 | source();
}

inline std::span<std::byte const> bytes_of(zmq::message_t const& frame) {
  return {static_cast<std::byte const*>(frame.data()), frame.size()};
}
inline std::string_view text_of(zmq::message_t const& frame) {
  return {static_cast<char const*>(frame.data()), frame.size()};
}
inline zmq::message_t frame_of(std::string_view text) {
  return text.empty() ? zmq::message_t() : zmq::message_t(text.data(), text.size());
}

/// The payload of a message: a frame whose memory is aligned to 8 bytes. Frames of small messages may begin anywhere in the
/// buffer that they came in; these are copied.
inline zmq::message_t aligned(zmq::message_t frame) {
  if (frame.size() == 0 || reinterpret_cast<std::uintptr_t>(frame.data()) % 8 == 0) return frame;
  zmq::message_t copy(frame.size());
  std::memcpy(copy.data(), frame.data(), frame.size());
  return copy;
}

/// Whether a receiver took a frame of several. @throws nothing where the peer is gone
inline bool try_send(zmq::socket_t& socket, zmq::message_t& frame, bool more) {
  try {
    return socket.send(frame, zmq::send_flags::dontwait | (more ? zmq::send_flags::sndmore : zmq::send_flags::none))
        .has_value();
  } catch (zmq::error_t const&) {  // EHOSTUNREACH: the peer is gone, and asks again if it comes back
    return false;
  }
}

/// Sends a header and its payload; the payload's size is written to the header. @returns whether it was taken
inline bool send_message(zmq::socket_t& socket, message_header header, zmq::message_t payload) {
  header.payload_bytes = payload.size();
  header_frame const frame = to_frame(header);
  zmq::message_t head(frame.data(), frame.size());
  return try_send(socket, head, true) && try_send(socket, payload, false);
}

/// The frames that a message has: that of the connection, a header, a payload.
inline constexpr std::size_t message_frames = 3;

/// One message of a socket, if there is one.
struct received_message {
  zmq::message_t connection;  ///< Of a ROUTER: where it came from.
  zmq::message_t head, payload;
  std::size_t frames = 0;
};

/// @param routed  Whether the socket is a ROUTER. @returns whether there was one
inline bool receive_message(zmq::socket_t& socket, bool routed, received_message& to) {
  to.frames = routed ? 0 : 1;
  zmq::message_t rest;
  for (bool first = true;;) {
    zmq::message_t& frame = to.frames == 0   ? to.connection
                            : to.frames == 1 ? to.head
                            : to.frames == 2 ? to.payload
                                             : rest;
    try {
      // The frames of a message come together: none of them waits.
      if (!socket.recv(frame, zmq::recv_flags::dontwait)) return false;
    } catch (zmq::error_t const& failure) {
      if (failure.num() != EINTR) throw;
      if (first) return false;
      continue;
    }
    first = false;
    if (to.frames <= message_frames) ++to.frames;
    if (!frame.more()) return true;
  }
}

}  // namespace detail
}  // namespace pushpull::remote
