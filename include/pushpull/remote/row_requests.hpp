/// @file
/// Requests about rows of keys that are cut into pieces.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Rows of one source, in host memory.
struct row_list {
  std::int64_t const* ids;
  std::byte const* values;
  std::int64_t rows;
};

/// Fills requests whose payloads it owns.
class row_requests {
 public:
  std::deque<std::vector<std::byte>> payloads;

  /// A push of the rows of all sources, in their order: one request for each piece, also for those without rows, whose step
  /// counts too. @param row_bytes  Of a row's values. @throws invalid_argument if a row does not exist, or the key cuts rows
  void push(request_group& group, remote_key const& key, std::span<row_list const> sources, std::size_t row_bytes,
            std::uint8_t element, std::uint8_t flags) {
    expect_rows("push", key);
    struct place {
      std::int64_t id;
      std::byte const* values;
    };
    std::vector<std::vector<place>> of_piece(key.pieces.size());
    std::int64_t const rows = rows_of(key);
    for (row_list const& source : sources) {
      pushpull::detail::check_row_ids("push", pushpull::detail::key_text(key.key),
                                      std::span(source.ids, static_cast<std::size_t>(source.rows)), rows);
      for (std::int64_t i = 0; i < source.rows; ++i) {
        std::int64_t const id = source.ids[i];
        of_piece[piece_of(key, id)].push_back({id, source.values + static_cast<std::size_t>(i) * row_bytes});
      }
    }
    for (std::size_t p = 0; p < key.pieces.size(); ++p) {
      auto const& places = of_piece[p];
      auto& payload = payloads.emplace_back(places.size() * (8 + row_bytes));
      std::byte* id = payload.data();
      std::byte* value = id + 8 * places.size();
      for (place const& at : places) {
        write_id(id, at.id - first_row(key, p));
        if (row_bytes != 0) std::memcpy(value, at.values, row_bytes);
        id += 8;
        value += row_bytes;
      }
      request r = key.about(message_kind::push_rows, p, element);
      r.header.flags = flags;
      r.header.rows = places.size();
      r.payload = payload;
      group.requests.push_back(r);
    }
  }

  /// A pull of rows, by ascending ids, each once, to consecutive memory. @throws as push
  void pull(request_group& group, remote_key const& key, std::span<std::int64_t const> ids, std::byte* values,
            std::size_t row_bytes, std::uint8_t element) {
    expect_rows("row_sparse_pull", key);
    pushpull::detail::check_row_ids("row_sparse_pull", pushpull::detail::key_text(key.key), ids, rows_of(key));
    for (auto begin = ids.begin(); begin != ids.end();) {
      std::size_t const p = piece_of(key, *begin);
      auto const end = std::lower_bound(begin, ids.end(), first_row(key, p) + key.pieces[p].size() / key.row_length);
      auto const count = static_cast<std::size_t>(end - begin);
      auto& payload = payloads.emplace_back(8 * count);
      for (std::size_t i = 0; i < count; ++i)
        write_id(payload.data() + 8 * i, begin[static_cast<std::ptrdiff_t>(i)] - first_row(key, p));
      request r = key.about(message_kind::pull_rows, p, element);
      r.header.rows = count;
      r.payload = payload;
      r.values = std::span(values + static_cast<std::size_t>(begin - ids.begin()) * row_bytes, count * row_bytes);
      group.requests.push_back(r);
      begin = end;
    }
  }

 private:
  /// Servers read ids as numbers of their own order, which is little-endian as that of headers.
  static void write_id(std::byte* to, std::int64_t id) { std::memcpy(to, &id, sizeof id); }
  static std::int64_t rows_of(remote_key const& key) { return key.shape.rank() == 0 ? 0 : key.shape[0]; }
  static std::int64_t first_row(remote_key const& key, std::size_t piece) {
    return key.pieces[piece].begin / key.row_length;
  }
  static std::size_t piece_of(remote_key const& key, std::int64_t row) {
    auto const after = std::upper_bound(key.pieces.begin(), key.pieces.end(), row * key.row_length,
                                        [](std::int64_t element, key_piece const& p) { return element < p.begin; });
    return static_cast<std::size_t>(after - key.pieces.begin()) - 1;
  }
  static void expect_rows(char const* call, remote_key const& key) {
    std::int64_t const length = pushpull::detail::row_length_of(key.shape);
    pushpull::detail::expects<invalid_argument>(length == key.row_length || key.shape.size() == 0, [&] {
      return std::string(call) + ": " + pushpull::detail::key_text(key.key) + " is cut within rows of " +
             std::to_string(length) + " elements: give rows to its init";
    });
  }
};

}  // namespace pushpull::remote::detail
