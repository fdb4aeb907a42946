/// @file
/// The messages between workers and servers: one header frame of fixed size, then one payload frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include <pushpull/checkpoint/crc32.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Meanings of a message. Answers are `welcome`, `acknowledge` and `error`.
enum class message_kind : std::uint16_t {
  hello = 1,        ///< A worker comes, or comes back.
  welcome,          ///< The server knows the worker. Payload: see welcome_text.
  goodbye,          ///< The worker leaves. No answer.
  heartbeat,        ///< The sender is alive.
  register_key,     ///< To server 0: a key's name, shape and element type.
  key_ready,        ///< To server 0, from worker 0: the key's initial value is on its servers.
  init,             ///< The initial value of a piece.
  assign,           ///< Another value of a piece.
  push,             ///< Gradients of a piece.
  pull,             ///< The value of a piece.
  pushpull,         ///< Both.
  push_rows,        ///< Row-sparse gradients of a piece: ids, then values.
  pull_rows,        ///< Rows of a piece: ids; the answer has values.
  find_piece,       ///< Whether the server has a piece.
  barrier,          ///< To server 0: answered when all workers have asked.
  hyperparameters,  ///< Of the rule, or of a parameter group.
  multipliers,      ///< Of a key's learning rate and weight decay.
  optimizer,        ///< Another rule for all keys.
  command,          ///< A number and a text for the server's handler.
  snapshot,         ///< The server writes all that it holds to a folder.
  status,           ///< Counts of the server's, as text.
  new_server,       ///< To the scheduler: a server asks for its number.
  server_address,   ///< To the scheduler: a server listens at the address in the payload.
  list_servers,     ///< To the scheduler: the addresses of all servers, one a line, once they are known.
  acknowledge,      ///< The request is done.
  error             ///< The request is not done. Payload: a text.
};
/// The greatest number of a message_kind.
inline constexpr std::uint16_t last_message_kind = static_cast<std::uint16_t>(message_kind::error);

/// Whether a kind is that of requests about a piece, whose server answers without other servers.
constexpr bool is_about_pieces(message_kind kind) {
  return kind >= message_kind::init && kind <= message_kind::find_piece;
}

/// The reason of an error message.
enum class message_error : std::uint16_t {
  none,
  invalid_argument,
  unknown_key,
  shape_mismatch,
  duplicate_key,
  unknown_worker,  ///< Say hello first.
  wrong_job,
  worker_lost,  ///< A round cannot be completed.
  failed        ///< The server's store threw.
};

/// A worker that no server has numbered yet.
inline constexpr std::uint32_t no_worker = 0xFFFFFFFF;

/// The fields of a header. Zero where a kind has no use for one.
struct message_header {
  message_kind kind = message_kind::heartbeat;
  std::uint8_t element = 0;       ///< The element type, see element_code; 0 where there are no elements.
  std::uint8_t flags = 0;         ///< Of `kind`.
  message_error error = {};       ///< Of `error`.
  std::uint32_t worker = 0;       ///< The worker's rank.
  std::uint64_t job = 0;          ///< The same in all messages of a job.
  std::uint64_t incarnation = 0;  ///< Of the worker's process: a random number.
  std::uint64_t sequence =
      0;                    ///< Of the worker's requests to all servers, from 1 on. Answers repeat that of the request.
  std::int64_t key = 0;     ///< The key's number, or the number of a command or group.
  std::uint32_t piece = 0;  ///< Of the key.
  std::uint64_t elements = 0;       ///< Of the piece.
  std::uint64_t rows = 0;           ///< That the payload lists.
  std::uint64_t row_length = 0;     ///< Elements that stay together.
  std::uint64_t version = 0;        ///< Updates of the piece.
  std::uint64_t payload_bytes = 0;  ///< Of the second frame.

  friend bool operator==(message_header const&, message_header const&) = default;
};

/// The bytes of a header.
inline constexpr std::size_t header_bytes = 96;
/// A header as it travels.
using header_frame = std::array<std::byte, header_bytes>;

namespace detail {

inline constexpr std::uint32_t magic = 0x53505050;  // "PPPS"
inline constexpr std::uint16_t format_version = 3;

/// Writes numbers one after the other, the least significant byte first.
class byte_writer {
 public:
  explicit byte_writer(std::span<std::byte> to) : to_(to) {}
  template <class Number>
  void put(Number number) {
    auto rest = static_cast<std::uint64_t>(number);
    for (std::size_t i = 0; i < sizeof(Number); ++i, rest >>= 8) to_[i] = static_cast<std::byte>(rest & 0xFF);
    to_ = to_.subspan(sizeof(Number));
  }

 private:
  std::span<std::byte> to_;
};

/// Reads them.
class byte_reader {
 public:
  explicit byte_reader(std::span<std::byte const> from) : from_(from) {}
  template <class Number>
  Number get() {
    std::uint64_t number = 0;
    for (std::size_t i = sizeof(Number); i-- > 0;) number = number << 8 | std::to_integer<std::uint64_t>(from_[i]);
    from_ = from_.subspan(sizeof(Number));
    return static_cast<Number>(number);
  }

 private:
  std::span<std::byte const> from_;
};

inline std::uint32_t checksum_of(std::span<std::byte const> bytes) {
  checkpoint::detail::crc32 sum;
  sum.add(bytes);
  return sum.value();
}

}  // namespace detail

/// The header as it travels: little-endian, with magic, version and a CRC-32 of what is before it.
inline header_frame to_frame(message_header const& h) {
  header_frame frame{};
  detail::byte_writer out(frame);
  out.put(detail::magic);
  out.put(detail::format_version);
  out.put(static_cast<std::uint16_t>(h.kind));
  out.put(h.element);
  out.put(h.flags);
  out.put(static_cast<std::uint16_t>(h.error));
  out.put(h.worker);
  out.put(h.job);
  out.put(h.incarnation);
  out.put(h.sequence);
  out.put(h.key);
  out.put(h.piece);
  out.put(h.elements);
  out.put(h.rows);
  out.put(h.row_length);
  out.put(h.version);
  out.put(h.payload_bytes);
  constexpr std::size_t covered = header_bytes - sizeof(std::uint32_t);
  detail::byte_writer(std::span(frame).subspan(covered)).put(detail::checksum_of(std::span(frame).first(covered)));
  return frame;
}

/// The header that a frame holds; none if size, magic, version, checksum or kind are not those of a header. Nothing else is
/// checked: fields are to be compared with what the reader expects before the payload is read.
inline std::optional<message_header> header_in(std::span<std::byte const> frame) {
  if (frame.size() != header_bytes) return std::nullopt;
  detail::byte_reader in(frame);
  if (in.get<std::uint32_t>() != detail::magic || in.get<std::uint16_t>() != detail::format_version)
    return std::nullopt;
  auto const kind = in.get<std::uint16_t>();
  message_header h;
  h.element = in.get<std::uint8_t>();
  h.flags = in.get<std::uint8_t>();
  auto const error = in.get<std::uint16_t>();
  h.worker = in.get<std::uint32_t>();
  h.job = in.get<std::uint64_t>();
  h.incarnation = in.get<std::uint64_t>();
  h.sequence = in.get<std::uint64_t>();
  h.key = in.get<std::int64_t>();
  h.piece = in.get<std::uint32_t>();
  h.elements = in.get<std::uint64_t>();
  h.rows = in.get<std::uint64_t>();
  h.row_length = in.get<std::uint64_t>();
  h.version = in.get<std::uint64_t>();
  h.payload_bytes = in.get<std::uint64_t>();
  if (kind == 0 || kind > last_message_kind || error > static_cast<std::uint16_t>(message_error::failed))
    return std::nullopt;
  if (in.get<std::uint32_t>() != detail::checksum_of(frame.first(header_bytes - sizeof(std::uint32_t))))
    return std::nullopt;
  h.kind = static_cast<message_kind>(kind);
  h.error = static_cast<message_error>(error);
  return h;
}

namespace detail {

/// In the order of their numbers on the wire, from 1 on.
inline constexpr std::array<std::string_view, 9> element_names{
    dtype_traits<float>::name,        dtype_traits<double>::name,       dtype_traits<half>::name,
    dtype_traits<bfloat16>::name,     dtype_traits<float8_e4m3>::name,  dtype_traits<float8_e5m2>::name,
    dtype_traits<std::int32_t>::name, dtype_traits<std::int64_t>::name, dtype_traits<std::uint8_t>::name};

}  // namespace detail

/// The number of an element type in a header.
template <ElementType T>
inline constexpr std::uint8_t element_code = [] {
  std::uint8_t code = 1;
  for (std::string_view const name : detail::element_names) {
    if (name == dtype_traits<T>::name) break;
    ++code;
  }
  return code;
}();

/// The name of an element type by its number; "none" for 0, "unknown" for others.
inline std::string_view element_name(std::uint8_t code) {
  if (code == 0) return "none";
  return code <= detail::element_names.size() ? detail::element_names[code - 1U] : "unknown";
}

}  // namespace pushpull::remote
