/// @file
/// A write that fails says so, leaves the old file as it was, and nothing beside it.
#include <pushpull/checkpoint/safetensors.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/container.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

int flushes = 0;          ///< calls of fsync since a test began to count
int failing_flush = 0;    ///< the number of the one that fails
int refused_changes = 0;  ///< calls of fchown that are about to fail

}  // namespace

/// Stands before the C library's.
extern "C" int fsync(int fd) {
  if (++flushes == failing_flush) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

/// Likewise. Refuses the next `refused_changes` calls.
extern "C" int fchown(int fd, uid_t owner, gid_t group) {
  if (refused_changes > 0) {
    --refused_changes;
    errno = EPERM;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fchown, fd, owner, group));
}

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace fs = std::filesystem;
using pp::test::read_file;
using pp::test::temporary_folder;
using pp::test::write_file;

std::vector<float> const elements(1000, 1.0F);
std::array const entries{cp::entry_of("x", elements)};

std::string complaint(fs::path const& path) {
  try {
    cp::write_safetensors(path, entries);
    return "";
  } catch (pp::file_error const& error) {
    REQUIRE(std::string(error.what()).starts_with(path.string() + ": "));
    return std::string(error.what()).substr(path.string().size() + 2);
  }
}

std::size_t files_in(fs::path const& folder) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

/// For its lifetime no file can grow beyond `bytes`.
class file_size_limit {
 public:
  explicit file_size_limit(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before_) == 0);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~file_size_limit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

}  // namespace

TEST_CASE("a place where no file can be made is refused", "[checkpoint]") {
  temporary_folder const folder;
  write_file(folder.file("file"), "old");
  CHECK(complaint(folder.file("file") / "x").starts_with("cannot open its folder: "));
  CHECK(complaint(folder.file("missing") / "x").starts_with("cannot open its folder: "));
  CHECK(complaint(folder.file("")) == "the name of a file expected, got that of a folder");
  CHECK(complaint("").starts_with("the name of a file expected"));
  CHECK(complaint("/proc/x").starts_with("cannot create a file in its folder: "));
  CHECK(complaint(folder.file(std::string(300, 'x'))).starts_with("cannot look at what is there: "));
  fs::create_directory(folder.file("folder"));
  CHECK(read_file(folder.file("file")) == "old");
  CHECK(files_in(folder.file("")) == 2);
}

TEST_CASE("a write that does not fit leaves the old file and no other", "[checkpoint]") {
  temporary_folder const folder;
  write_file(folder.file("x"), "old");
  for (rlim_t const limit : {0U, 3U, 64U, 128U, 2000U}) {
    std::string message;
    {
      file_size_limit const no_more(limit);
      message = complaint(folder.file("x"));
    }
    INFO(limit);
    CHECK(message.starts_with("cannot write: "));
    CHECK(read_file(folder.file("x")) == "old");
    CHECK(files_in(folder.file("")) == 1);
  }
  REQUIRE(complaint(folder.file("x")).empty());
  REQUIRE(cp::safetensors_file(folder.file("x")).find("x").bytes.size() == 4000);
}

TEST_CASE("the file and its folder are flushed, and a flush that fails is reported", "[checkpoint]") {
  temporary_folder const folder;
  write_file(folder.file("x"), "old");
  flushes = 0;
  failing_flush = 1;
  CHECK(complaint(folder.file("x")).starts_with("cannot flush: "));
  CHECK(read_file(folder.file("x")) == "old");
  CHECK(files_in(folder.file("")) == 1);

  flushes = 0;
  failing_flush = 2;
  CHECK(complaint(folder.file("x")).starts_with("cannot flush its folder: "));
  CHECK(cp::safetensors_file(folder.file("x")).contains("x"));  // it is in place, but not for certain on the medium
  CHECK(files_in(folder.file("")) == 1);

  flushes = 0;
  failing_flush = 0;
  CHECK(complaint(folder.file("x")).empty());
  CHECK(flushes == 2);
}

TEST_CASE("a temporary file of somebody else is left alone", "[checkpoint]") {
  temporary_folder const folder;
  // The names that the next calls would take.
  for (int i = 0; i < 200; ++i)
    write_file(folder.file(".pushpull-" + std::to_string(::getpid()) + "-" + std::to_string(i) + ".tmp"), "theirs");
  REQUIRE(complaint(folder.file("x")).empty());
  REQUIRE(files_in(folder.file("")) == 201);
  for (auto const& file : fs::directory_iterator(folder.file("")))
    if (file.path().extension() == ".tmp") CHECK(read_file(file.path()) == "theirs");
}

TEST_CASE("what is neither a regular file nor a free name is refused, and stays", "[checkpoint]") {
  temporary_folder const folder;
  auto const refused = [&](fs::path const& path, std::string const& kind) {
    INFO(path);
    auto const type = fs::symlink_status(path).type();
    CHECK(complaint(path) == "a regular file or a free name expected, got " + kind);
    CHECK(fs::symlink_status(path).type() == type);
  };
  fs::create_directory(folder.file("folder"));
  REQUIRE(::mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  int const socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  folder.file("socket").string().copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(::bind(socket, reinterpret_cast<sockaddr const*>(&address), sizeof(address)) == 0);
  refused(folder.file("folder"), "a folder");
  refused(folder.file("folder") / "..", "a folder");
  refused(folder.file("pipe"), "a pipe");
  refused(folder.file("socket"), "a socket");
  std::size_t files = 3;
  if (::mknod(folder.file("device").c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0) {
    refused(folder.file("device"), "a device");
    ++files;
  } else if (::access("/dev", W_OK) != 0) {  // then nothing there can be harmed
    refused("/dev/null", "a device");
  }
  ::close(socket);
  CHECK(files_in(folder.file("")) == files);
  CHECK(files_in(folder.file("folder")) == 0);

  fs::create_symlink("pipe", folder.file("link"));  // behind a link too
  CHECK(complaint(folder.file("link")) == "a regular file or a free name expected, got a pipe");
}

TEST_CASE("a symbolic link stays, and the file behind it is replaced", "[checkpoint]") {
  temporary_folder const folder;
  fs::create_directory(folder.file("run"));
  write_file(folder.file("run") / "old", "old");
  fs::create_symlink(fs::path("run") / "old", folder.file("link"));
  fs::create_symlink(folder.file("link"), folder.file("run") / "link of a link");
  fs::create_symlink("free", folder.file("run") / "to a free name");
  for (auto const& [link, target] :
       {std::pair{folder.file("link"), "old"}, std::pair{folder.file("run") / "link of a link", "old"},
        std::pair{folder.file("run") / "to a free name", "free"}}) {
    INFO(link);
    write_file(folder.file("run") / "old", "old");
    CHECK(complaint(link).empty());
    CHECK(fs::is_symlink(fs::symlink_status(link)));
    CHECK(fs::is_regular_file(fs::symlink_status(folder.file("run") / target)));
    CHECK(cp::safetensors_file(folder.file("run") / target).contains("x"));
  }
  CHECK(files_in(folder.file("run")) == 4);
  CHECK(files_in(folder.file("")) == 2);

  fs::create_symlink("circle", folder.file("circle"));
  CHECK(complaint(folder.file("circle")).starts_with("cannot follow the symbolic link: "));
}

TEST_CASE("permissions, owner and group of a file that is replaced stay", "[checkpoint]") {
  temporary_folder const folder;
  auto const path = folder.file("x");
  auto const mode = [&] {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777;
  };
  auto const set_mode = [&](mode_t bits) { REQUIRE(::chmod(path.c_str(), bits) == 0); };
  mode_t const mask = ::umask(027);
  REQUIRE(complaint(path).empty());
  CHECK(mode() == 0640);  // a new file's
  ::umask(mask);
  for (mode_t const bits : {0600U, 0644U, 0666U, 0400U, 0755U, 02660U}) {
    set_mode(bits);
    REQUIRE(complaint(path).empty());
    CHECK(mode() == bits);
  }
  refused_changes = 1;  // the owner cannot be set, the group can
  set_mode(04750);
  REQUIRE(complaint(path).empty());
  CHECK(mode() == 0750);
  refused_changes = 2;  // nor the group: another one gets what everybody has
  set_mode(0664);
  REQUIRE(complaint(path).empty());
  CHECK(mode() == 0644);
  refused_changes = 0;
  if (::geteuid() == 0) {
    REQUIRE(::chown(path.c_str(), 12345, 23456) == 0);
    REQUIRE(complaint(path).empty());
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    CHECK(status.st_uid == 12345);
    CHECK(status.st_gid == 23456);
  }
}

TEST_CASE("a name without a folder is one in the working folder", "[checkpoint]") {
  temporary_folder const folder;
  fs::path const before = fs::current_path();
  fs::current_path(folder.file(""));
  cp::write_safetensors("x", entries);
  fs::current_path(before);
  REQUIRE(cp::safetensors_file(folder.file("x")).contains("x"));
}

TEST_CASE("entries that no file can hold are refused before anything is written", "[checkpoint]") {
  temporary_folder const folder;
  write_file(folder.file("x"), "old");
  auto const bytes = std::as_bytes(std::span(elements));
  auto const message = [&](std::vector<cp::entry> const& wrong, cp::metadata_map const& metadata = {}) {
    try {
      cp::write_safetensors(folder.file("x"), wrong, metadata);
    } catch (pp::invalid_argument const& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(message({{"a", "F31", {1000}, bytes}}),
             Contains("tensor \"a\": a dtype of the format expected, got \"F31\""));
  CHECK_THAT(message({{"a", "F32", {999}, bytes}}),
             Contains("3996 bytes expected for (999) elements of F32, got 4000"));
  CHECK_THAT(message({{"a", "F32", {1000}, {}}}), Contains("4000 bytes expected for (1000) elements of F32, got 0"));
  CHECK_THAT(message({{"a", "F4", {3}, bytes.first(1)}}), Contains("whole bytes expected"));
  CHECK_THAT(message({{"__metadata__", "F32", {1000}, bytes}}), Contains("another name expected"));
  CHECK_THAT(message({{"a", "F32", {1000}, bytes}, {"b", "U8", {0}, {}}, {"a", "F64", {500}, bytes}}),
             Contains("different names expected, got two tensors \"a\""));
  CHECK_THAT(message({{"\xFF", "F32", {1000}, bytes}}), Contains("UTF-8 expected"));
  CHECK_THAT(message({}, {{"a", "\xFF"}}), Contains("UTF-8 expected"));
  CHECK_THAT(message({}, {{"\xFF", "a"}}), Contains("UTF-8 expected"));
  CHECK_THAT(message({}, {{"a", std::string(100'000'000, 'x')}}), Contains("at most 100000000 bytes expected"));
  CHECK(read_file(folder.file("x")) == "old");
  CHECK(files_in(folder.file("")) == 1);
}
