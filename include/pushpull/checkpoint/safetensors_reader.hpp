/// @file
/// Reading safetensors files, from whomever they come. Needs nlohmann-json and a POSIX system.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/checkpoint/safetensors_header.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

namespace detail {

/// The header of a file that is at its beginning; the data follow. @throws file_error
inline header read_header(input_file& file) {
  using pushpull::detail::expects;
  std::string const path = file.path().string();
  std::uint64_t length = 0;
  expects<file_error>(file.size() >= sizeof(length),
                      [&] { return path + ": at least 8 bytes expected, got " + std::to_string(file.size()); });
  file.read(std::as_writable_bytes(std::span(&length, 1)));
  std::uint64_t const rest = file.size() - sizeof(length);
  expects<file_error>(length <= rest && length <= max_header_bytes, [&] {
    return path + ": a header of at most " + std::to_string(std::min(rest, max_header_bytes)) +
           " bytes expected, got " + std::to_string(length);
  });
  std::string text(length, ' ');
  file.read(std::as_writable_bytes(std::span(text)));
  header result = parse_header(text, rest - length, path);
  result.bytes = sizeof(length) + length;
  return result;
}

/// Tensors by name, and metadata.
class named_tensors {
 public:
  /// Where they were read from.
  std::filesystem::path const& path() const noexcept { return path_; }
  /// Text that goes with them: the `__metadata__` of a file; empty if it has none.
  metadata_map const& metadata() const noexcept { return metadata_; }
  /// Every tensor, sorted by name.
  std::span<entry const> entries() const noexcept { return entries_; }

  /// The names of all tensors, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (auto const& e : entries_) result.push_back(e.name);
    return result;
  }

  bool contains(std::string_view name) const noexcept { return lookup(name) != nullptr; }

  /// The tensor of that name. @throws file_error if there is none.
  entry const& find(std::string_view name) const {
    entry const* const found = lookup(name);
    pushpull::detail::expects<file_error>(found != nullptr, [&] {
      return path_.string() + ": a tensor " + in_quotes(name) + " expected, got " + std::to_string(entries_.size()) +
             " tensors of other names";
    });
    return *found;
  }

 protected:
  explicit named_tensors(std::filesystem::path path) : path_(std::move(path)) {}
  named_tensors(named_tensors&&) noexcept = default;
  named_tensors& operator=(named_tensors&&) noexcept = default;
  ~named_tensors() = default;

  entry const* lookup(std::string_view name) const noexcept {
    auto const found = std::lower_bound(entries_.begin(), entries_.end(), name,
                                        [](entry const& e, std::string_view wanted) { return e.name < wanted; });
    return found != entries_.end() && found->name == name ? &*found : nullptr;
  }

  std::filesystem::path path_;
  metadata_map metadata_;
  std::vector<entry> entries_;  // sorted by name
};

}  // namespace detail

/// The tensors of a safetensors file, read into memory as a whole: a mapped file could shrink while it is used.
///
/// The file may be hostile. Nothing that it claims is believed before it was compared with the file's size; values are
/// not looked at, and may be NaN. Names are text: do not use them as paths. Move-only. The bytes of all tensors begin at a
/// multiple of 64; those of one are aligned to its elements in files of most writers, ours included, but not in every valid
/// file.
class safetensors_file : public detail::named_tensors {
 public:
  /// Reads the file. Memory: its size, and a few times the size of its header (100,000,000 bytes at most).
  /// @throws file_error if it cannot be read or breaks any rule of the format, and on more than 8 extents;
  /// out_of_memory
  explicit safetensors_file(std::filesystem::path const& path) : named_tensors(path) {
    detail::input_file file(path);
    detail::header header = detail::read_header(file);
    std::size_t const size = file.size() - header.bytes;
    data_.reset(static_cast<std::byte*>(::operator new(size, alignment, std::nothrow)));
    pushpull::detail::expects<out_of_memory>(
        data_ != nullptr, [&] { return path.string() + ": cannot allocate " + std::to_string(size) + " bytes"; });
    file.read({data_.get(), size});
    metadata_ = std::move(header.metadata);
    entries_.reserve(header.tensors.size());
    for (auto& located : header.tensors) {
      entries_.push_back(std::move(located.tensor));
      entries_.back().bytes = {data_.get() + located.begin, located.end - located.begin};
    }
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct free_bytes {
    void operator()(std::byte* p) const noexcept { ::operator delete(p, alignment); }
  };

  std::unique_ptr<std::byte, free_bytes> data_;
};

}  // namespace pushpull::checkpoint
