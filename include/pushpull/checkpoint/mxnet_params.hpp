/// @file
/// Files of arrays that MXNet wrote (.params). Needs nlohmann-json and a POSIX system.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/checkpoint/safetensors_reader.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

namespace detail {
class mxnet_params_reader;
}

/// The arrays of such a file, in memory. Each is an entry of the same kind as those of a safetensors_file: `copy` writes one into a
/// tensor. Names are the file's, such as "arg:fc1_weight"; "0", "1", ... where it has none. Move-only.
class mxnet_params : public detail::named_tensors {
  friend class detail::mxnet_params_reader;
  explicit mxnet_params(std::filesystem::path path) : named_tensors(std::move(path)) {}
  std::vector<std::unique_ptr<std::byte[]>> memory_;
};

namespace detail {

/// The parser of `read_mxnet_params`. Nothing that the file claims is believed before it was compared with its size.
class mxnet_params_reader {
 public:
  /// @throws as read_mxnet_params
  static mxnet_params read(std::filesystem::path const& path, std::uint64_t max_dense_bytes) {
    mxnet_params_reader reader(path, max_dense_bytes);
    reader.read_list();
    return std::move(reader.result_);
  }

 private:
  static constexpr std::uint32_t version_1 = 0xF993FAC8, version_2 = 0xF993FAC9, version_3 = 0xF993FACA;
  static constexpr std::int32_t dense = 0, row_sparse = 1, int64_type = 6;
  // By MXNet's number of the element type.
  static constexpr std::array<std::string_view, 13> types{"F32",  "F64", "F16", "U8",  "I32", "I8",  "I64",
                                                          "BOOL", "I16", "U16", "U32", "U64", "BF16"};

  mxnet_params_reader(std::filesystem::path const& path, std::uint64_t max_dense_bytes)
      : result_(path), max_dense_bytes_(max_dense_bytes) {
    input_file file(path);
    std::size_t const size = file.size();
    auto* const data = allocate(size);
    file.read({data, size});
    data_ = {data, size};
    constexpr std::string_view of_djl = "DJL@";
    pushpull::detail::expects<file_error>(
        size < of_djl.size() || std::memcmp(data, of_djl.data(), of_djl.size()) != 0,
        [&] { return path.string() + ": arrays of MXNet expected, got a model of DJL"; });
  }

  template <class Text>
  void expect(bool holds, Text const& text) const {
    pushpull::detail::expects<file_error>(holds, [&] {
      return result_.path().string() + ": invalid file of MXNet's arrays: " + std::string(text) + " expected at byte " +
             std::to_string(at_);
    });
  }
  /// Memory of the result's.
  std::byte* allocate(std::uint64_t size) {
    std::unique_ptr<std::byte[]> memory(
        size > std::numeric_limits<std::size_t>::max() / 2 ? nullptr : new (std::nothrow) std::byte[size]);
    pushpull::detail::expects<out_of_memory>(memory != nullptr, [&] {
      return result_.path().string() + ": cannot allocate " + std::to_string(size) + " bytes";
    });
    return result_.memory_.emplace_back(std::move(memory)).get();
  }

  std::span<std::byte const> bytes(std::uint64_t count) {
    if (count > data_.size() - at_) expect(false, std::to_string(count) + " more bytes");
    auto const found = data_.subspan(at_, count);
    at_ += count;
    return found;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof(T)).data(), sizeof(T));
    return value;
  }

  /// Extents of this type. @throws file_error on more than 8, on negative ones, and on too many elements
  template <class Extent>
  pushpull::shape extents(std::int64_t rank) {
    expect(rank >= 0 && rank <= static_cast<std::int64_t>(shape::max_rank), "a rank of 0 to 8");
    std::vector<std::int64_t> sizes;
    for (std::int64_t axis = 0; axis < rank; ++axis) {
      sizes.push_back(std::int64_t{number<Extent>()});
      expect(sizes.back() >= 0, "an extent of at least 0");
    }
    try {
      return pushpull::shape(std::span<std::int64_t const>(sizes));
    } catch (invalid_argument const&) {
      expect(false, "a shape of less than 2^63 elements");
      throw;
    }
  }
  pushpull::shape read_shape() { return extents<std::int64_t>(number<std::int32_t>()); }
  std::uint64_t bytes_of(entry const& e, pushpull::shape const& shape) const {
    return detail::bytes_of<file_error>(e.dtype, shape, [&] { return result_.path().string() + ": "; });
  }

  /// The next array, without its name.
  entry read_array() {
    entry const nothing{{}, "F32", pushpull::shape{0}, {}};
    entry e;
    auto const magic = number<std::uint32_t>();
    std::int32_t storage = dense;
    pushpull::shape stored;
    bool const has_storage = magic == version_2 || magic == version_3;
    if (has_storage) {
      storage = number<std::int32_t>();
      expect(storage == dense || storage == row_sparse, "a dense or row-sparse array, none in compressed rows (CSR),");
      if (storage == row_sparse) stored = read_shape();
    }
    if (magic == version_3) {
      auto const rank = number<std::int32_t>();
      if (rank == -1) return nothing;  // of unknown shape
      e.shape = extents<std::int64_t>(rank);
    } else {
      // Before there were magic numbers, the rank was in their place, and extents had 32 bits.
      bool const has_magic = magic == version_1 || magic == version_2;
      e.shape = has_magic ? read_shape() : extents<std::uint32_t>(magic);
      if (e.shape.rank() == 0) return nothing;
    }
    bytes(8);  // the device, on which the array was
    auto const type = number<std::int32_t>();
    expect(type >= 0 && static_cast<std::size_t>(type) < types.size(), "the number of an element type");
    e.dtype = types[static_cast<std::size_t>(type)];
    storage == dense ? void(e.bytes = bytes(bytes_of(e, e.shape))) : read_rows(e, stored);
    return e;
  }

  /// The values of a row-sparse array, in a dense one.
  void read_rows(entry& e, pushpull::shape const& stored) {
    expect(number<std::int32_t>() == int64_type, "row numbers of 64 bits");
    auto const ids_shape = read_shape();
    bool fits =
        ids_shape.rank() == 1 && stored.rank() == e.shape.rank() && stored.rank() > 0 && stored[0] == ids_shape[0];
    for (std::size_t axis = 1; fits && axis < stored.rank(); ++axis) fits = stored[axis] == e.shape[axis];
    expect(fits, "as many rows as row numbers");
    auto const values = bytes(bytes_of(e, stored));
    auto const ids = bytes(bytes_of({{}, "I64", {}, {}}, ids_shape));
    std::uint64_t const size = bytes_of(e, e.shape);
    pushpull::detail::expects<file_error>(size <= max_dense_bytes_ - dense_bytes_, [&] {
      return result_.path().string() + ": row-sparse arrays of at most " + std::to_string(max_dense_bytes_) +
             " bytes as dense ones expected, got " + std::to_string(size) + " after " + std::to_string(dense_bytes_) +
             ": raise max_dense_bytes";
    });
    dense_bytes_ += size;
    auto* const to = allocate(size);
    if (size > 0) std::memset(to, 0, size);
    auto const rows = static_cast<std::size_t>(ids_shape[0]);
    std::size_t const length = rows == 0 ? 0 : values.size() / rows;
    for (std::size_t i = 0; i < rows; ++i) {
      std::int64_t row = 0;
      std::memcpy(&row, ids.data() + i * sizeof(row), sizeof(row));
      if (row < 0 || row >= e.shape[0]) expect(false, "row numbers below " + std::to_string(e.shape[0]));
      if (length > 0) std::memcpy(to + static_cast<std::size_t>(row) * length, values.data() + i * length, length);
    }
    e.bytes = {to, size};
  }

  void read_list() {
    constexpr std::uint64_t list = 0x112, least_bytes_of_array = 4;
    expect(number<std::uint64_t>() == list && number<std::uint64_t>() == 0, "a list of arrays");
    auto const count = number<std::uint64_t>();
    if (count > (data_.size() - at_) / least_bytes_of_array) expect(false, std::to_string(count) + " arrays");
    auto& entries = result_.entries_;
    for (std::uint64_t i = 0; i < count; ++i) entries.push_back(read_array());
    auto const names = number<std::uint64_t>();
    expect(names == 0 || names == count, "no name, or one for each array,");
    for (std::size_t i = 0; i < entries.size(); ++i) entries[i].name = names == 0 ? std::to_string(i) : read_name();
    expect(at_ == data_.size(), "the end");
    std::ranges::sort(entries, {}, &entry::name);
    expect(std::ranges::adjacent_find(entries, {}, &entry::name) == entries.end(), "different names");
  }
  std::string read_name() {
    auto const text = bytes(number<std::uint64_t>());
    std::string name(reinterpret_cast<char const*>(text.data()), text.size());
    try {
      static_cast<void>(nlohmann::json(name).dump());
    } catch (nlohmann::json::exception const&) {
      expect(false, "a name in UTF-8");
    }
    return name;
  }

  mxnet_params result_;
  std::uint64_t max_dense_bytes_;
  std::uint64_t dense_bytes_ = 0;  // of the row-sparse arrays so far
  std::span<std::byte const> data_;
  std::size_t at_ = 0;
};

}  // namespace detail

/// Reads a file of arrays of MXNet 0.x to 2.0: every version of the format, of dense and row-sparse arrays. Values keep
/// their bits. Row-sparse arrays become dense: rows that are not stored are zero. The file may be hostile.
/// @param max_dense_bytes  Row-sparse arrays that are larger together as dense ones are refused: the file's size does not bound theirs.
/// @throws file_error if it cannot be read, breaks a rule of the format, or has an array in compressed rows (CSR) or of more
///         than 8 extents; out_of_memory
/// Memory: the file's size and that of row-sparse arrays as dense ones.
inline mxnet_params read_mxnet_params(std::filesystem::path const& path,
                                      std::uint64_t max_dense_bytes = std::uint64_t{1} << 32U) {
  return detail::mxnet_params_reader::read(path, max_dense_bytes);
}

}  // namespace pushpull::checkpoint
