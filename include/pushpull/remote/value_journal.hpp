/// @file
/// The initial values that a server was given since its last snapshots, in files that grow.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Initial values as their messages brought them: header, payload, CRC-32 of the payload. File number n has those that snapshot n
/// has and earlier ones lack. So a new key costs its own bytes, and no whole snapshot.
class value_journal {
 public:
  explicit value_journal(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Writes a value; `commit` brings it to the medium. @param snapshot  Never less than before, nor that of a file which replay
  /// has read. @throws file_error; then the value is not there
  void add(std::int64_t snapshot, message_header h, std::span<std::byte const> value) {
    if (file_.get() < 0 || snapshot != snapshot_) open(snapshot);
    h.payload_bytes = value.size();
    header_frame const frame = to_frame(h);
    std::array<std::byte, 4> sum{};
    byte_writer(sum).put(checksum_of(value));
    std::uint64_t at = end_;
    for (auto const part : {std::span<std::byte const>(frame), value, std::span<std::byte const>(sum)}) write(at, part);
    end_ = at;
    is_committed_ = false;
  }
  /// @throws file_error; then nobody knows which values are on the medium
  void commit() {
    if (is_committed_) return;
    if (checkpoint::detail::uninterrupted([&] { return ::fdatasync(file_.get()); }) != 0) fail("cannot flush");
    is_committed_ = true;
  }
  /// All values are on the medium, in a snapshot. Files up to number `oldest` are removed.
  void drop(std::int64_t oldest) {
    file_ = checkpoint::detail::descriptor();
    is_committed_ = true;
    std::error_code ignored;
    for (std::int64_t n = first_; n <= oldest; ++n) std::filesystem::remove(path(n), ignored);
    first_ = std::max(first_, oldest + 1);
  }
  /// Gives all values that snapshot `snapshot` lacks, in the order in which they came; those of each file up to the first that is
  /// damaged. @param first  The number of the first file that there may be. @param take  take(header, value)
  template <class Take>
  void replay(std::int64_t snapshot, std::int64_t first, std::int64_t last, Take const& take) {
    first_ = first;
    for (std::int64_t n = std::max(snapshot + 1, first); n <= last; ++n) {
      if (!std::filesystem::exists(path(n))) continue;
      checkpoint::detail::input_file file(path(n));
      for (std::uint64_t at = 0; at + header_bytes <= file.size();) {
        header_frame frame;
        file.read(frame);
        auto const h = header_in(frame);
        if (!h || h->payload_bytes > file.size() - at - header_bytes) break;
        std::vector<std::byte> value(static_cast<std::size_t>(h->payload_bytes));
        std::array<std::byte, 4> sum{};
        at += header_bytes + value.size() + sum.size();
        if (at > file.size()) break;
        file.read(value);
        file.read(sum);
        if (byte_reader(sum).get<std::uint32_t>() != checksum_of(value)) break;
        take(*h, std::move(value));
      }
    }
  }

 private:
  std::filesystem::path path(std::int64_t n) const { return folder_ / ("values-" + std::to_string(n) + ".bin"); }
  [[noreturn]] void fail(std::string const& action) const {
    checkpoint::detail::system_failure(path(snapshot_), action, errno);
  }
  /// A new file. One of that number has no value yet that was acknowledged: a server never takes a number that was used before it
  /// was started.
  void open(std::int64_t snapshot) {
    commit();
    file_ = checkpoint::detail::descriptor();
    snapshot_ = snapshot;
    checkpoint::detail::descriptor file(checkpoint::detail::uninterrupted(
        [&] { return ::open(path(snapshot).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); }));
    if (file.get() < 0) fail("cannot open for writing");
    checkpoint::detail::descriptor const folder(
        checkpoint::detail::uninterrupted([&] { return ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (folder.get() < 0 ||
        (checkpoint::detail::uninterrupted([&] { return ::fsync(folder.get()); }) != 0 && errno != EINVAL))
      fail("cannot flush its folder");
    end_ = 0;
    file_ = std::move(file);
  }
  void write(std::uint64_t& at, std::span<std::byte const> bytes) const {
    while (!bytes.empty()) {
      auto const n = checkpoint::detail::uninterrupted([&] {
        return ::pwrite(file_.get(), bytes.data(), std::min(bytes.size(), checkpoint::detail::input_file::max_transfer),
                        static_cast<off_t>(at));
      });
      if (n <= 0) fail("cannot write");
      at += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  std::filesystem::path folder_;
  checkpoint::detail::descriptor file_;
  std::int64_t snapshot_ = 0, first_ = 1;
  std::uint64_t end_ = 0;
  bool is_committed_ = true;
};

}  // namespace pushpull::remote::detail
