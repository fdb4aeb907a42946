/// @file
/// Reads a whole gzip file and trusts nothing in it: truncation, damage and stray bytes are errors.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <ios>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "input_error.hpp"

namespace train_classifier {

using bytes = std::vector<std::uint8_t>;

namespace detail {

inline bytes read_bytes(std::filesystem::path const& path) {
  std::error_code error;
  auto const size = std::filesystem::file_size(path, error);
  bytes content(error ? 0 : size);
  std::ifstream file{path, std::ios::binary};
  if (error || !file.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(size)))
    throw input_error{path.string() + " cannot be read"};
  return content;
}

}  // namespace detail

/// The decompressed content of `path`. A file that claims more than `limit` bytes is refused before it fills memory.
/// (gzread would do the loop, but it accepts plain files and ignores what follows the compressed data.)
/// @throws input_error if the file cannot be read or is not one whole gzip stream.
inline bytes read_gzip(std::filesystem::path const& path, std::size_t limit = std::size_t{1} << 28) {
  bytes compressed = detail::read_bytes(path);
  z_stream stream{};
  constexpr int gzip_only = 16 + MAX_WBITS;  // with any smaller sum zlib takes its own format, too
  if (inflateInit2(&stream, gzip_only) != Z_OK) throw std::runtime_error{"zlib cannot be started"};
  std::unique_ptr<z_stream, decltype(&inflateEnd)> const cleanup{&stream, inflateEnd};

  bytes content;
  bytes chunk(std::min(limit, std::size_t{1} << 18) + 1);  // one more than the limit, to notice who passes it
  stream.next_in = compressed.data();
  stream.avail_in = static_cast<uInt>(compressed.size());
  if (stream.avail_in != compressed.size()) throw input_error{path.string() + " is larger than 4 GiB"};
  for (int status = Z_OK; status != Z_STREAM_END;) {
    stream.next_out = chunk.data();
    stream.avail_out = static_cast<uInt>(chunk.size());
    status = inflate(&stream, Z_NO_FLUSH);
    if (status == Z_BUF_ERROR) throw input_error{path.string() + " is truncated: its compressed data end too early"};
    if (status != Z_OK && status != Z_STREAM_END)
      throw input_error{path.string() +
                        " is not a valid gzip file: " + (stream.msg != nullptr ? stream.msg : "zlib gives up")};
    content.insert(content.end(), chunk.begin(), chunk.end() - stream.avail_out);
    if (content.size() > limit)
      throw input_error{path.string() + " holds more than " + std::to_string(limit) + " bytes of data"};
  }
  if (stream.avail_in != 0)
    throw input_error{path.string() + " has " + std::to_string(stream.avail_in) +
                      " stray bytes after its compressed data"};
  return content;
}

}  // namespace train_classifier
