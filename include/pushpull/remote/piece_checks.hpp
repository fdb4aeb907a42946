/// @file
/// A server's comparison of requests with the piece that they are about. Nothing of a payload is read before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/remote/served_pieces.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// @throws invalid_argument with the text, which the worker is told
template <class Text>
void expect(bool condition, Text const& text) {
  pushpull::detail::expects<invalid_argument>(condition, text);
}

/// Of the piece that a request is about.
inline std::string piece_text(message_header const& h) {
  return "piece " + std::to_string(h.piece) + " of key number " + std::to_string(h.key);
}

inline void expect_element(message_header const& h, std::uint8_t element) {
  expect(h.element == element, [&] {
    return "elements of type " + std::string(element_name(element)) + " expected, " +
           std::string(element_name(h.element)) + " came";
  });
}
/// Of init.
inline void expect_init(message_header const& h, std::size_t bytes, std::size_t element_bytes, bool whole_keys) {
  expect(h.key >= 0 && h.key < (std::int64_t{1} << 46) && h.piece < most_pieces && h.row_length >= 1 &&
             h.row_length <= std::max<std::uint64_t>(h.elements, 1) && h.elements % h.row_length == 0 &&
             h.elements <= bytes / element_bytes && h.elements * element_bytes == bytes,
         [&] {
           return "init: " + std::to_string(h.elements) + " elements in rows of " + std::to_string(h.row_length) +
                  " do not make a payload of " + std::to_string(bytes) + " bytes";
         });
  expect(h.piece == 0 || !whole_keys,
         [&] { return "init: " + piece_text(h) + " came, the servers' rule needs whole keys"; });
}
/// @throws also shape_mismatch
inline void expect_piece(message_header const& h, served_piece const& piece) {
  pushpull::detail::expects<shape_mismatch>(h.elements == piece.elements && h.row_length == piece.row_length, [&] {
    return piece_text(h) + " has " + std::to_string(piece.elements) + " elements in rows of " +
           std::to_string(piece.row_length) + ", " + std::to_string(h.elements) + " in rows of " +
           std::to_string(h.row_length) + " came";
  });
  bool const names_directory = h.kind == message_kind::init || h.kind == message_kind::find_piece;
  expect(!names_directory || h.version == piece.directory, [&] {
    return "init: this server has " + piece_text(h) +
           " of an earlier server 0, which has lost its keys: start this server again, too";
  });
}
/// The size of a payload that is no code.
inline void expect_payload(message_header const& h, served_piece const& piece, std::size_t bytes,
                           std::size_t element_bytes) {
  std::uint64_t expected = piece.bytes;
  if (h.kind == message_kind::pull) expected = 0;
  if (h.kind == message_kind::push_rows || h.kind == message_kind::pull_rows) {
    std::uint64_t const per_row = h.kind == message_kind::pull_rows ? 8 : 8 + piece.row_length * element_bytes;
    expect(h.rows <= bytes / 8, [&] { return std::to_string(h.rows) + " rows do not fit into the payload"; });
    expected = h.rows * per_row;  // at most 2^64 elements were sent: no overflow, as a piece's row is in memory
  }
  expect(bytes == expected, [&] {
    return "a payload of " + std::to_string(expected) + " bytes expected, one of " + std::to_string(bytes) + " came";
  });
}
/// Before anything waits or changes: a wrong id fails the message that brings it, and no other worker's.
inline void expect_ids(message_header const& h, served_piece const& piece, zmq::message_t const& payload) {
  bool const ascend = h.kind == message_kind::pull_rows;
  std::span<std::int64_t const> const ids(static_cast<std::int64_t const*>(payload.data()),
                                          static_cast<std::size_t>(h.rows));
  auto const rows = static_cast<std::int64_t>(piece.elements / piece.row_length);
  std::int64_t before = -1;
  for (std::int64_t const id : ids) {
    expect(id > (ascend ? before : -1) && id < rows, [&] {
      return std::string(ascend ? "row_sparse_pull: ascending ids" : "push: ids of rows") + " below " +
             std::to_string(rows) + " expected, " + std::to_string(id) + " came";
    });
    before = id;
  }
}

}  // namespace pushpull::remote::detail
