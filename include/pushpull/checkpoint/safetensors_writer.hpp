/// @file
/// Writing safetensors files. Needs nlohmann-json and a POSIX system.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {
namespace detail {

/// `text` as JSON. @throws invalid_argument unless it is UTF-8.
inline std::string json_text(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (nlohmann::json::type_error const& error) {
    throw invalid_argument("write_safetensors: text in UTF-8 expected: " + std::string(error.what()));
  }
}

/// The entries in the order of the file: by falling element size, so that each is aligned to its elements, then by
/// name. @throws invalid_argument on entries that no file can hold.
inline std::vector<entry const*> file_order(std::span<entry const> entries) {
  using pushpull::detail::expects;
  std::vector<entry const*> order;
  for (auto const& e : entries) {
    auto const where = [&] { return "write_safetensors: tensor " + in_quotes(e.name) + ": "; };
    std::uint64_t const bytes = bytes_of<invalid_argument>(e.dtype, e.shape, where);
    expects<invalid_argument>(e.bytes.size() == bytes, [&] {
      return where() + std::to_string(bytes) + " bytes expected for " + to_string(e.shape) + " elements of " + e.dtype +
             ", got " + std::to_string(e.bytes.size());
    });
    expects<invalid_argument>(e.name != metadata_name,
                              [&] { return where() + "another name expected, this is taken"; });
    order.push_back(&e);
  }
  std::sort(order.begin(), order.end(), [](entry const* a, entry const* b) { return a->name < b->name; });
  auto const twice =
      std::adjacent_find(order.begin(), order.end(), [](auto* a, auto* b) { return a->name == b->name; });
  expects<invalid_argument>(twice == order.end(), [&] {
    return "write_safetensors: different names expected, got two tensors " + in_quotes((*twice)->name);
  });
  std::stable_sort(order.begin(), order.end(),
                   [](entry const* a, entry const* b) { return dtype_bits(a->dtype) > dtype_bits(b->dtype); });
  return order;
}

/// The bytes before those of the tensors: the length of the JSON and the JSON, in a multiple of 64 bytes.
inline std::string format_header(std::span<entry const* const> order, metadata_map const& metadata) {
  std::string json = "{";
  std::string_view separator = "";
  if (!metadata.empty()) {
    json += json_text(metadata_name) + ":{";
    for (auto const& [name, value] : metadata) {
      json.append(separator).append(json_text(name)).append(":").append(json_text(value));
      separator = ",";
    }
    json += "}";
  }
  std::uint64_t begin = 0;
  for (entry const* e : order) {
    json.append(separator).append(json_text(e->name)).append(":{\"dtype\":").append(json_text(e->dtype));
    json += ",\"shape\":[";
    for (std::size_t axis = 0; axis < e->shape.rank(); ++axis)
      json.append(axis == 0 ? "" : ",").append(std::to_string(e->shape[axis]));
    std::uint64_t const end = begin + e->bytes.size();
    json.append("],\"data_offsets\":[").append(std::to_string(begin)).append(",").append(std::to_string(end)) += "]}";
    separator = ",";
    begin = end;
  }
  json += "}";
  std::uint64_t length = json.size();
  length += (64 - (sizeof(length) + length) % 64) % 64;
  pushpull::detail::expects<invalid_argument>(length <= max_header_bytes, [&] {
    return "write_safetensors: a header of at most " + std::to_string(max_header_bytes) + " bytes expected, got " +
           std::to_string(length);
  });
  json.resize(length, ' ');
  return std::string(reinterpret_cast<char const*>(&length), sizeof(length)) + json;
}

/// write_safetensors that shows its bytes. @param observe  observe(bytes) for each block of the file, in their order.
template <class Observe>
void write_observed(std::filesystem::path const& path, std::span<entry const> entries, metadata_map const& metadata,
                    Observe const& observe) {
  auto const order = file_order(entries);
  std::string const header = format_header(order, metadata);
  replacement_file file(path);
  auto const write = [&](std::span<std::byte const> bytes) {
    observe(bytes);
    file.write(bytes);
  };
  write(std::as_bytes(std::span(header)));
  for (entry const* e : order) write(e->bytes);
  file.commit();
}

}  // namespace detail

/// Writes a safetensors file, in place of the one at `path` if there is one: under another name in the same folder,
/// which is renamed when all bytes have reached the medium. Readers see the old file or the new one, never a part; of
/// several writers the last one wins. A symbolic link at `path` stays, and the file that it points to is replaced; of
/// a hard link the other names keep the old file. Permissions are those of the old file, owner and group too where the
/// process may set them; access lists and extended attributes are not kept.
///
/// The tensors may come in any order; equal tensors and metadata give equal files.
/// @throws file_error, before anything is written, if `path` is a folder, a pipe, a socket or a device; and if a step
/// fails: the file at `path` is then as it was (but see `replacement_file::commit` for the last step), and no other
/// file is left behind. invalid_argument, before anything is written, on two tensors of one name, an unknown dtype,
/// bytes that are not as many as the shape says, text that is not UTF-8, and a header of more than 100,000,000 bytes.
inline void write_safetensors(std::filesystem::path const& path, std::span<entry const> entries,
                              metadata_map const& metadata = {}) {
  detail::write_observed(path, entries, metadata, [](std::span<std::byte const>) {});
}

}  // namespace pushpull::checkpoint
