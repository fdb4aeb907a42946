/// @file
/// A meeting of ranks by files, where rank 0 hands out bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/launch/environment.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace comm {

/// Where the ranks of comm::nccl meet if no other communicator connects them. Files of former runs do no harm.
struct nccl_file {
  std::string
      path;  ///< A file that all ranks see, in a folder that exists; rank r also writes `path.r`. All are removed.
  std::string job = {};  ///< The name of this run, the same on all ranks; ranks with other names are not heard.
  int rank = -1;         ///< -1: as launch::environment() says
  int ranks = 0;         ///< 0: as launch::environment() says
};

}  // namespace comm

namespace detail {

/// The rank and the number of ranks are those of the launcher where they are not given. @throws invalid_argument
inline comm::nccl_file resolved(comm::nccl_file file) {
  if (file.rank < 0 || file.ranks <= 0) {
    launch::process const here = launch::environment();
    if (file.rank < 0) file.rank = here.rank;
    if (file.ranks <= 0) file.ranks = here.ranks;
  }
  expects<invalid_argument>(!file.path.empty(),
                            [] { return std::string("comm::nccl_file: a path expected, got none"); });
  expects<invalid_argument>(file.rank >= 0 && file.rank < file.ranks, [&] {
    return "comm::nccl_file: a rank below " + std::to_string(file.ranks) + " expected, got " +
           std::to_string(file.rank);
  });
  return file;
}

/// Each rank but 0 writes a number that it has drawn. Rank 0 writes the bytes together with the numbers that it has read, again
/// and again as ranks come. A rank takes bytes that name its number, so never those of a former run. Files are written under
/// another name and renamed.
class nccl_meeting {
 public:
  using clock = std::chrono::steady_clock;

  /// @throws invalid_argument
  nccl_meeting(comm::nccl_file file, std::chrono::milliseconds deadline)
      : file_(resolved(std::move(file))),
        deadline_(deadline),
        number_(drawn_number()),
        of_rank_(static_cast<std::size_t>(file_.rank == 0 ? file_.ranks : 1)) {}
  nccl_meeting(nccl_meeting const&) = delete;
  nccl_meeting& operator=(nccl_meeting const&) = delete;
  /// Removes this rank's file, not one of another run.
  ~nccl_meeting() {
    std::error_code ignored;
    if (wrote_ && holds_own()) std::filesystem::remove(own_path(), ignored);
  }

  int rank() const noexcept { return file_.rank; }
  int ranks() const noexcept { return file_.ranks; }

  /// Rank 0: `bytes` for all. To be called until all ranks need no more. @throws comm_error if a file cannot be written;
  /// comm_timeout, naming the ranks that did not come before the deadline
  void answer(std::span<std::byte const> bytes) {
    std::string missing;
    bool has_changed = !wrote_ || !holds_own();  // a former run that ends may have removed it
    for (int r = 1; r < ranks(); ++r) {
      std::string& known = of_rank_[static_cast<std::size_t>(r)];
      if (auto read = number_of(r); !read.empty() && read != known) {
        known = std::move(read);
        has_changed = true;
      }
      if (known.empty()) missing += (missing.empty() ? "" : ", ") + std::to_string(r);
    }
    if (!missing.empty() && clock::now() - begin_ > deadline_)
      throw comm_timeout(-1, "comm::nccl: no rank " + missing + " came to the file \"" + file_.path + "\"" +
                                 job_text() + " in " + std::to_string(deadline_.count()) + " ms");
    if (!has_changed) return;
    std::ostringstream text;
    head(text);
    for (std::size_t r = 1; r < of_rank_.size(); ++r) text << (of_rank_[r].empty() ? "-" : of_rank_[r]) << '\n';
    text << std::hex << std::setfill('0');
    for (std::byte const b : bytes) text << std::setw(2) << std::to_integer<int>(b);
    write(text.str() + "\n" + number_ + "\n");
  }

  /// Another rank: what rank 0 has. @throws comm_error if a file cannot be written; comm_timeout
  void receive(std::span<std::byte> bytes) {
    std::ostringstream own;
    head(own);
    write(own.str() + number_ + "\n");
    while (!has_answer(bytes)) {
      if (clock::now() - begin_ > deadline_)
        throw comm_timeout(0, "comm::nccl: rank " + std::to_string(rank()) + ": rank 0 did not answer in the file \"" +
                                  file_.path + "\"" + job_text() + " in " + std::to_string(deadline_.count()) + " ms");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

 private:
  static std::string drawn_number() {
    std::random_device draw;
    std::ostringstream text;
    text << std::hex << draw() << '.' << draw() << '.' << clock::now().time_since_epoch().count();
    return text.str();
  }
  std::string path_of(int r) const { return r == 0 ? file_.path : file_.path + "." + std::to_string(r); }
  std::string own_path() const { return path_of(rank()); }
  std::string job_text() const { return file_.job.empty() ? std::string() : " of the job \"" + file_.job + "\""; }

  void head(std::ostream& text) const { text << "pushpull 1 " << ranks() << ' ' << std::quoted(file_.job) << '\n'; }
  /// Whether the text begins as those of this job do.
  bool is_ours(std::istream& text) const {
    std::string word, job;
    int version = 0, of = 0;
    return text >> word >> version >> of >> std::quoted(job) && word == "pushpull" && version == 1 && of == ranks() &&
           job == file_.job;
  }
  std::string number_of(int r) const {
    std::ifstream text(path_of(r));
    std::string number;
    return text && is_ours(text) && text >> number ? number : std::string();
  }
  /// Whether this rank's file is the one that it has written.
  bool holds_own() const {
    std::ifstream text(own_path());
    std::string word;
    while (text >> word)
      if (word == number_) return true;
    return false;
  }
  bool has_answer(std::span<std::byte> bytes) const {
    std::ifstream text(path_of(0));
    if (!text || !is_ours(text)) return false;
    std::string number, digits;
    for (int r = 1; r < ranks(); ++r) {
      std::string read;
      if (!(text >> read)) return false;
      if (r == rank()) number = std::move(read);
    }
    if (number != number_ || !(text >> digits) || digits.size() != 2 * bytes.size()) return false;
    for (std::size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(std::stoi(digits.substr(2 * i, 2), nullptr, 16));
    return true;
  }
  void write(std::string const& text) {
    std::string const temporary = own_path() + "." + number_;
    {
      std::ofstream out(temporary);
      out << text;
      out.close();
      std::error_code ignored;
      if (!out) std::filesystem::remove(temporary, ignored);
      if (!out)
        throw comm_error(rank(), "comm::nccl: rank " + std::to_string(rank()) + " cannot write \"" + temporary + "\"");
    }
    std::error_code failed;
    std::filesystem::rename(temporary, own_path(), failed);
    if (failed) {
      std::error_code ignored;
      std::filesystem::remove(temporary, ignored);
      throw comm_error(rank(), "comm::nccl: rank " + std::to_string(rank()) + " cannot write \"" + own_path() +
                                   "\": " + failed.message());
    }
    wrote_ = true;
  }

  comm::nccl_file file_;
  std::chrono::milliseconds deadline_;
  clock::time_point begin_ = clock::now();
  std::string number_;
  std::vector<std::string> of_rank_;  // the numbers that rank 0 has read; empty: none yet
  bool wrote_ = false;
};

}  // namespace detail
}  // namespace pushpull
