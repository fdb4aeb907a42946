/// @file
/// Files of POSIX systems: reading whole parts, and replacing a file by another in one step.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// @throws file_error with the system's reason.
[[noreturn]] inline void system_failure(std::filesystem::path const& path, std::string const& action, int code) {
  throw file_error(path.string() + ": " + action + ": " + std::generic_category().message(code));
}

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call const& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

/// Owns an open file or folder. Move-only.
class descriptor {
 public:
  explicit descriptor(int fd = -1) noexcept : fd_(fd) {}
  descriptor(descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  descriptor& operator=(descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~descriptor() { close(); }

  int get() const noexcept { return fd_; }
  /// 0, or -1 and errno; closed in both cases.
  int close() noexcept { return fd_ < 0 ? 0 : ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

/// A regular file, open for reading.
class input_file {
 public:
  /// @throws file_error if there is none, or it is a folder, a pipe or a device.
  explicit input_file(std::filesystem::path path) : path_(std::move(path)) {
    // A pipe without a writer would make a blocking open wait for ever.
    file_ = descriptor(uninterrupted([&] { return ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
    if (file_.get() < 0) system_failure(path_, "cannot open for reading", errno);
    struct stat status{};
    if (::fstat(file_.get(), &status) != 0) system_failure(path_, "cannot ask for the size", errno);
    if (!S_ISREG(status.st_mode)) throw file_error(path_.string() + ": a regular file expected, got another kind");
    size_ = static_cast<std::uint64_t>(status.st_size);
  }

  std::filesystem::path const& path() const noexcept { return path_; }
  /// Bytes in the file when it was opened.
  std::uint64_t size() const noexcept { return size_; }

  /// Fills `to` with the bytes that follow those read before. @throws file_error if there are fewer.
  void read(std::span<std::byte> to) {
    while (!to.empty()) {
      auto const n = uninterrupted([&] { return ::read(file_.get(), to.data(), std::min(to.size(), max_transfer)); });
      if (n < 0) system_failure(path_, "cannot read", errno);
      if (n == 0)
        throw file_error(path_.string() + ": " + std::to_string(to.size()) + " more bytes expected, got the end");
      to = to.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Same, with the bytes from number `offset` on.
  void read_at(std::uint64_t offset, std::span<std::byte> to) {
    if (uninterrupted([&] { return ::lseek(file_.get(), static_cast<off_t>(offset), SEEK_SET); }) < 0)
      system_failure(path_, "cannot go to a place in the file", errno);
    read(to);
  }

  static constexpr std::size_t max_transfer = std::size_t{1} << 30;

 private:
  std::filesystem::path path_;
  descriptor file_;
  std::uint64_t size_ = 0;
};

/// The end of the chain of symbolic links that begins at `path`, or `path` itself: a file, or a name that is free.
/// @throws file_error
inline std::filesystem::path behind_links(std::filesystem::path const& path) {
  std::filesystem::path end = path;
  for (int links = 0; links < 40; ++links) {  // as many as Linux follows
    std::error_code error;
    if (!std::filesystem::is_symlink(std::filesystem::symlink_status(end, error))) return end;
    std::filesystem::path const target = std::filesystem::read_symlink(end, error);
    if (error) system_failure(path, "cannot read the symbolic link", error.value());
    end = end.parent_path() / target;  // an absolute target stands for itself
  }
  system_failure(path, "cannot follow the symbolic link", ELOOP);
}

/// The kind of file that `status` describes, for a message.
inline std::string kind_of(struct stat const& status) {
  if (S_ISDIR(status.st_mode)) return "a folder";
  if (S_ISFIFO(status.st_mode)) return "a pipe";
  if (S_ISSOCK(status.st_mode)) return "a socket";
  if (S_ISCHR(status.st_mode) || S_ISBLK(status.st_mode)) return "a device";
  return "another kind";
}

/// Writes a new file beside `path`, which `commit` puts in its place: whoever opens `path` finds the old content or the
/// new one, never a part. Without a `commit` the new file is removed and `path` is left as it was. A symbolic link
/// stays, and the file that it points to is replaced. The new file has the old one's permissions, and its owner and
/// group where the system lets the process set them; a group that cannot be set is not given more than all others have.
class replacement_file {
 public:
  /// @throws file_error, also if `path` is neither a regular file nor a free name
  explicit replacement_file(std::filesystem::path const& path) : path_(path), target_(behind_links(path)) {
    if (!target_.has_filename())
      throw file_error(path_.string() + ": the name of a file expected, got that of a folder");
    std::filesystem::path const parent = target_.has_parent_path() ? target_.parent_path() : ".";
    folder_ = descriptor(uninterrupted([&] { return ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
    if (folder_.get() < 0) system_failure(path_, "cannot open its folder", errno);
    struct stat old{};
    bool const replaces = ::fstatat(folder_.get(), target_.filename().c_str(), &old, AT_SYMLINK_NOFOLLOW) == 0;
    if (!replaces && errno != ENOENT) system_failure(path_, "cannot look at what is there", errno);
    if (replaces && !S_ISREG(old.st_mode))
      throw file_error(path_.string() + ": a regular file or a free name expected, got " + kind_of(old));
    // Other processes' numbers may be ours on another machine that shares the folder: then the next name is tried.
    static std::atomic<std::uint64_t> calls = 0;
    mode_t const mode = replaces ? 0600 : 0666;  // nobody else reads before the old permissions are set
    int fd = -1;
    do {
      temporary_ = ".pushpull-" + std::to_string(::getpid()) + "-" + std::to_string(calls++) + ".tmp";
      fd = uninterrupted(
          [&] { return ::openat(folder_.get(), temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode); });
    } while (fd < 0 && errno == EEXIST);
    if (fd < 0) system_failure(path_, "cannot create a file in its folder", errno);
    file_ = descriptor(fd);
    exists_ = true;
    if (replaces) take_permissions(old);
  }
  replacement_file(replacement_file const&) = delete;
  replacement_file& operator=(replacement_file const&) = delete;
  ~replacement_file() { remove(); }

  /// @throws file_error
  void write(std::span<std::byte const> bytes) {
    while (!bytes.empty()) {
      auto const n = uninterrupted(
          [&] { return ::write(file_.get(), bytes.data(), std::min(bytes.size(), input_file::max_transfer)); });
      if (n <= 0) system_failure(path_, "cannot write", n < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Puts the new file into place, on the medium itself. @throws file_error; `path` is then as it was, unless only the
  /// last step failed: the new content is there, but may be lost with the machine's power.
  void commit() {
    if (uninterrupted([&] { return ::fsync(file_.get()); }) != 0) system_failure(path_, "cannot flush", errno);
    if (file_.close() != 0) system_failure(path_, "cannot close", errno);
    std::string const name = target_.filename().string();
    if (::renameat(folder_.get(), temporary_.c_str(), folder_.get(), name.c_str()) != 0)
      system_failure(path_, "cannot put the new file into place", errno);
    exists_ = false;
    // EINVAL: a file system that has nothing to flush for a folder
    if (uninterrupted([&] { return ::fsync(folder_.get()); }) != 0 && errno != EINVAL)
      system_failure(path_, "cannot flush its folder", errno);
  }

 private:
  void remove() noexcept {  // nobody is left to tell about a failure
    if (std::exchange(exists_, false)) ::unlinkat(folder_.get(), temporary_.c_str(), 0);
  }

  void take_permissions(struct stat const& old) {
    mode_t mode = old.st_mode & 07777;
    if (::fchown(file_.get(), old.st_uid, old.st_gid) != 0) {
      mode &= 0777;  // who runs it as its owner is another than before
      if (::fchown(file_.get(), static_cast<uid_t>(-1), old.st_gid) != 0) mode &= ~070U | (mode & 07U) << 3;
    }
    if (::fchmod(file_.get(), mode) == 0) return;
    int const code = errno;
    remove();  // the destructor does not run
    system_failure(path_, "cannot set the permissions of the old file", code);
  }

  std::filesystem::path path_, target_;
  std::string temporary_;
  bool exists_ = false;
  descriptor folder_, file_;
};

}  // namespace pushpull::checkpoint::detail
