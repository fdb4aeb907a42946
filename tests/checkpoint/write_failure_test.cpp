/// @file
/// A write that fails says so, leaves the old file as it was, and nothing beside it.
#include <pushpull/checkpoint/safetensors.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/container.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

int flushes = 0;        ///< calls of fsync since a test began to count
int failing_flush = 0;  ///< the number of the one that fails

}  // namespace

/// Stands before the C library's.
extern "C" int fsync(int fd) {
  if (++flushes == failing_flush) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, fd));
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
  CHECK(complaint(folder.file(std::string(300, 'x'))).starts_with("cannot put the new file into place: "));
  fs::create_directory(folder.file("folder"));
  CHECK(complaint(folder.file("folder")).starts_with("cannot put the new file into place: "));
  CHECK(fs::is_directory(folder.file("folder")));
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

TEST_CASE("a link is replaced by the file", "[checkpoint]") {
  temporary_folder const folder;
  write_file(folder.file("old"), "old");
  fs::create_symlink("old", folder.file("x"));
  REQUIRE(complaint(folder.file("x")).empty());
  REQUIRE(fs::is_regular_file(fs::symlink_status(folder.file("x"))));
  REQUIRE(read_file(folder.file("old")) == "old");
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
