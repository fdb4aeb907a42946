/// @file
/// The tensors of a checkpoint of several files: ranges of their elements, wherever they lie. Needs nlohmann-json.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/manifest.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/safetensors_reader.hpp>
#include <pushpull/checkpoint/step_folders.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// A checkpoint of several files. Its entries are whole tensors without bytes; `read` gives them. Move-only.
class sharded_tensors : public named_tensors {
 public:
  /// Reads the headers of all files. @throws file_error unless they have every element of every tensor once
  sharded_tensors(std::filesystem::path const& folder, manifest m) : named_tensors(folder) {
    metadata_ = std::move(m.metadata);
    entries_ = std::move(m.tensors);
    for (std::size_t rank = 0; rank < m.files.size(); ++rank) add_file(rank);
    for (entry const& e : entries_) check_parts(e);
  }

  /// The bytes of elements [begin, end) of one of the entries. @throws file_error
  std::vector<std::byte> read(entry const& e, std::int64_t begin, std::int64_t end) {
    std::size_t const size = *dtype_bits(e.dtype) / 8;
    std::vector<std::byte> bytes(end > begin ? static_cast<std::size_t>(end - begin) * size : 0);
    for (part const& p : parts_[e.name]) {
      std::int64_t const first = std::max(p.begin, begin), last = std::min(p.end, end);
      if (first >= last) continue;
      if (!file_ || file_rank_ != p.rank) file_.emplace(path_ / rank_file_name(file_rank_ = p.rank));
      file_->read_at(p.offset + static_cast<std::uint64_t>(first - p.begin) * size,
                     std::span(bytes).subspan(static_cast<std::size_t>(first - begin) * size,
                                              static_cast<std::size_t>(last - first) * size));
    }
    return bytes;
  }

 private:
  /// Elements [begin, end) of a tensor, and where their bytes begin in a rank's file.
  struct part {
    std::int64_t begin, end;
    std::size_t rank;
    std::uint64_t offset;
  };

  void add_file(std::size_t rank) {
    input_file file(path_ / rank_file_name(rank));
    header const content = read_header(file);
    for (located_entry const& located : content.tensors) {
      std::string_view const name = located.tensor.name;
      auto const refuse = [&] {
        return file.path().string() + ": tensor " + in_quotes(name) + ": a part of a tensor of the manifest expected";
      };
      std::size_t const at = std::min(name.rfind('@'), name.size());
      entry const* const whole = lookup(name.substr(0, at));
      std::string_view const digits = name.substr(std::min(at + 1, name.size()));
      std::int64_t first = -1;
      std::from_chars(digits.data(), digits.data() + digits.size(), first);
      auto const count = static_cast<std::int64_t>(located.tensor.shape.size());
      pushpull::detail::expects<file_error>(whole != nullptr && whole->dtype == located.tensor.dtype && first >= 0 &&
                                                first <= static_cast<std::int64_t>(whole->shape.size()) - count &&
                                                std::to_string(first) == digits,
                                            refuse);
      if (count > 0) parts_[whole->name].push_back({first, first + count, rank, content.bytes + located.begin});
    }
  }

  void check_parts(entry const& e) {
    auto& parts = parts_[e.name];
    std::sort(parts.begin(), parts.end(), [](part const& a, part const& b) { return a.begin < b.begin; });
    std::int64_t next = 0;
    for (part const& p : parts) {
      expect_element(e, next, p.begin);
      next = p.end;
    }
    expect_element(e, static_cast<std::int64_t>(e.shape.size()), next);
  }
  void expect_element(entry const& e, std::int64_t expected, std::int64_t got) const {
    pushpull::detail::expects<file_error>(got == expected, [&] {
      return path_.string() + ": tensor " + in_quotes(e.name) +
             ": every element once expected, a part begins or ends at " + std::to_string(got) + " and not at " +
             std::to_string(expected);
    });
  }

  std::map<std::string, std::vector<part>, std::less<>> parts_;  // by the tensor's name, in the order of elements
  std::optional<input_file> file_;                               // the last one
  std::size_t file_rank_ = 0;
};

}  // namespace pushpull::checkpoint::detail
