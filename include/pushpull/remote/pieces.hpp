/// @file
/// The pieces of keys, and which server holds which.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/store/keys/placement.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Elements [begin, end) of a key, which one server holds.
struct key_piece {
  std::size_t server = 0;
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

/// A key may have as many pieces.
inline constexpr std::int64_t most_pieces = std::int64_t{1} << 16;

/// A key as it is cut: its number, its elements, and how many of them stay together.
struct cut_key {
  std::int64_t number = 0;
  std::int64_t size = 0;
  std::int64_t row_length = 1;  ///< 1 or more
  std::size_t element_bytes = 4;
};

namespace detail {

/// How a worker cuts keys, in words, which server 0 compares. @param whole  Whether the servers' rule needs whole keys.
inline std::string cut_text(std::size_t servers, worker_options const& options, bool whole) {
  bool const in_turn = options.placement == server_placement::in_turn;
  std::string text = whole ? "whole keys" : "pieces of " + std::to_string(options.piece_bytes) + " bytes";
  text += " on " + std::to_string(servers) + (servers == 1 ? " server" : " servers");
  if (in_turn) return text + " in turn";
  return text + " as MXNet's" + (whole ? "" : " with bound " + std::to_string(options.bound));
}

/// Appends [begin, end) in parts of at most `most` elements, whole rows each.
inline void append_pieces(std::vector<key_piece>& pieces, std::int64_t begin, std::int64_t end, std::int64_t most,
                          std::int64_t row_length) {
  std::int64_t const step = std::max(most / row_length, std::int64_t{1}) * row_length;
  for (; begin < end; begin += step) pieces.push_back({0, begin, std::min(end, begin + step)});
}

/// The first element of a key at or above the bound that server number i holds: round(rows / servers * i), halves away from
/// zero, in elements. Unlike stores of owners, servers need no cut at a leaf: each piece is a key of its own.
inline std::int64_t mxnet_cut(cut_key const& key, std::size_t i, std::size_t servers) {
  auto const rows = static_cast<double>(key.size / key.row_length);
  return static_cast<std::int64_t>(std::round(rows / static_cast<double>(servers) * static_cast<double>(i))) *
         key.row_length;
}

}  // namespace detail

/// The pieces of a key on `servers` servers, in the order of their elements; one, empty, if the key has no elements. A function
/// of its arguments, so that all workers cut alike.
/// @throws invalid_argument if there would be more than most_pieces
inline std::vector<key_piece> pieces_of(cut_key const& key, std::size_t servers, worker_options const& options) {
  auto const count = static_cast<std::int64_t>(servers);
  std::int64_t const most =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(options.piece_bytes / key.element_bytes));
  std::vector<key_piece> pieces;
  if (options.placement == server_placement::mxnet) {
    if (key.size < options.bound) {
      detail::append_pieces(pieces, 0, key.size, most, key.row_length);
      for (key_piece& piece : pieces) piece.server = pushpull::detail::mxnet_owner(key.number, servers);
    } else {
      for (std::size_t server = 0; server < servers; ++server) {
        std::size_t const first = pieces.size();
        detail::append_pieces(pieces, detail::mxnet_cut(key, server, servers),
                              detail::mxnet_cut(key, server + 1, servers), most, key.row_length);
        for (std::size_t i = first; i < pieces.size(); ++i) pieces[i].server = server;
      }
    }
    if (pieces.empty()) pieces.push_back({pushpull::detail::mxnet_owner(key.number, servers), 0, 0});
  } else {
    detail::append_pieces(pieces, 0, key.size, most, key.row_length);
    if (pieces.empty()) pieces.push_back({});
    std::int64_t turn = (key.number % count + count) % count;
    for (key_piece& piece : pieces) {
      piece.server = static_cast<std::size_t>(turn);
      turn = (turn + 1) % count;
    }
  }
  pushpull::detail::expects<invalid_argument>(static_cast<std::int64_t>(pieces.size()) <= most_pieces, [&] {
    return "remote_store: a key of " + std::to_string(key.size) + " elements has " + std::to_string(pieces.size()) +
           " pieces, at most " + std::to_string(most_pieces) + " expected: raise worker_options::piece_bytes";
  });
  return pieces;
}

}  // namespace pushpull::remote
