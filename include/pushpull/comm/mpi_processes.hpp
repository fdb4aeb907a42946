/// @file
/// The processes of a comm::mpi: their communicators, their deadline, and their failure.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/comm/mpi_library.hpp>
#include <pushpull/comm/mpi_operation.hpp>
#include <pushpull/comm/mpi_options.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The state that copies of a comm::mpi share.
class mpi_processes {
 public:
  /// Collective over `given`. The last owner aborts the job if the communicator has failed or an exception unwinds the
  /// stack. If the program takes over, a failed one stays for ever, since MPI may still use its memory.
  static std::shared_ptr<mpi_processes> make(MPI_Comm given, comm::mpi_options const& options) {
    return {new mpi_processes(given, options), [](mpi_processes* gone) noexcept { gone->retire(); }};
  }
  mpi_processes(mpi_processes const&) = delete;
  mpi_processes& operator=(mpi_processes const&) = delete;

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  comm::mpi_options const& options() const noexcept { return options_; }
  mpi_library& library() const noexcept { return library_; }
  MPI_Comm grouped() const noexcept { return grouped_.get(); }       ///< of calls that take a group
  MPI_Comm host() const noexcept { return host_.get(); }             ///< of barrier, broadcast and gather_all
  MPI_Comm node() const noexcept { return node_.get(); }             ///< of the ranks on this node
  std::vector<int> const& nodes() const noexcept { return nodes_; }  ///< the node of each rank
  bool failed() const noexcept { return failed_; }
  /// Whether an exception has been thrown since the communicator was made, and is not caught yet.
  bool unwinds() const noexcept { return std::uncaught_exceptions() > exceptions_; }

  /// Returns when all ranks of `given` have come. @throws comm_error, comm_timeout
  void meet(MPI_Comm given) {
    MPI_Request request = MPI_REQUEST_NULL;
    library_.check("MPI_Ibarrier", [&] { return MPI_Ibarrier(given, &request); });
    auto const end = std::chrono::steady_clock::now() + options_.deadline;
    for (mpi_pause pause;; pause()) {
      int flag = 0;
      library_.check("MPI_Test", [&] { return MPI_Test(&request, &flag, MPI_STATUS_IGNORE); });
      if (flag != 0) return;
      if (std::chrono::steady_clock::now() < end) continue;
      if (options_.aborts) library_.abort_at_exit();
      throw comm_timeout(-1, "comm::mpi: rank " + std::to_string(rank_) + " waited " + milliseconds() +
                                 " for the other ranks to make or destroy their communicator");
    }
  }

  /// Every later call throws, here and on the other ranks.
  void fail(std::string_view reason) noexcept {
    if (!record_failure(rank_, reason)) return;
    std::fprintf(stderr, "pushpull: rank %d of %d failed: %s\n", rank_, size_, reason_.data());
    if (options_.aborts) library_.abort_at_exit();
    if (!library_.usable()) return;
    for (int peer = 0; peer < size_; ++peer)  // a rank that does not get it comes to its deadline
      if (peer != rank_)
        library_([&] {
          return MPI_Isend(reason_.data(), static_cast<int>(reason_.size()), MPI_BYTE, peer, failure_tag, host(),
                           &notices_[static_cast<std::size_t>(peer)]);
        });
  }

  /// @throws comm_error if this rank or another has failed.
  void throw_if_failed() {
    if (!failed_) {
      int flag = 0;
      MPI_Message message = MPI_MESSAGE_NULL;
      MPI_Status status{};
      check("MPI_Improbe", [&] { return MPI_Improbe(MPI_ANY_SOURCE, failure_tag, host(), &flag, &message, &status); });
      if (flag == 0) return;
      std::array<char, text_size> text{};
      check("MPI_Mrecv", [&] { return MPI_Mrecv(text.data(), text_size, MPI_BYTE, &message, &status); });
      text.back() = '\0';
      record_failure(status.MPI_SOURCE, text.data());
      if (options_.aborts) library_.abort_at_exit();
    }
    std::lock_guard const lock(mutex_);
    throw comm_error(failed_rank_, "comm::mpi: rank " + std::to_string(failed_rank_) + " of " + std::to_string(size_) +
                                       " failed: " + reason_.data());
  }

  /// @throws comm_error naming `function` if `call` fails; the communicator has then failed.
  template <class Call>
  void check(char const* function, Call const& call, int peer = -1) {
    if (int const code = library_(call); code != MPI_SUCCESS) fail_and_throw(peer, mpi_error_text(function, code));
  }

  /// Starts one part of `op`: `call` gets the place of its request.
  template <class Call>
  void start(mpi_operation& op, char const* function, Call const& call, int peer = -1, int expected = -1) {
    mpi_operation::part& part = op.parts.emplace_back();
    part.peer = peer;
    part.expected = expected;
    part.complete = true;  // until it has begun
    check(function, [&] { return call(&part.request); }, peer);
    part.complete = false;
  }

  /// Whether the operation is complete. The deadline counts from the first time that it is not.
  bool ready(mpi_operation& op) {
    if (op.complete()) return true;
    if (failed_) throw_if_failed();
    while (!op.complete()) {
      if (!test(op, op.parts[op.first_incomplete])) break;
      ++op.first_incomplete;
    }
    if (op.complete()) {
      if (op.sums != nullptr) std::ranges::copy(op.numbers, op.sums);
      std::atomic_thread_fence(std::memory_order_seq_cst);  // memory of a node: see what others wrote before they came
      return true;
    }
    throw_if_failed();
    auto const now = std::chrono::steady_clock::now();
    if (!op.waits_since) op.waits_since = now;
    if (now - *op.waits_since >= options_.deadline) time_out(op);
    return false;
  }

  /// Takes an operation that nobody waits for any longer. MPI does not use the caller's memory after this.
  void abandon(std::unique_ptr<mpi_operation> op) noexcept {
    if (op->complete() || !library_.usable()) return;
    if (op->uses_memory_of_the_caller()) {
      if (cancelled(*op)) return;
      std::fprintf(stderr, "pushpull: rank %d of %d aborts the job: %s is dropped, but MPI still uses its memory\n",
                   rank_, size_, op->call);
      library_.abort();
    }
    op.release();  // MPI may write to it until the process ends
  }

 private:
  static constexpr int failure_tag = 3, text_size = 1000;

  mpi_processes(MPI_Comm given, comm::mpi_options const& options)
      : options_(checked_options(options)), library_(mpi_library::instance()), exceptions_(std::uncaught_exceptions()) {
    library_.check("MPI_Comm_rank", [&] { return MPI_Comm_rank(given, &rank_); });
    library_.check("MPI_Comm_size", [&] { return MPI_Comm_size(given, &size_); });
    meet(given);  // so that no blocking call waits for a rank
    host_ = duplicate(given);
    grouped_ = duplicate(given);
    notices_.assign(static_cast<std::size_t>(size_), MPI_REQUEST_NULL);
    find_nodes();
  }
  ~mpi_processes() = default;

  mpi_communicator duplicate(MPI_Comm given) {
    MPI_Comm made = MPI_COMM_NULL;
    library_.check("MPI_Comm_dup", [&] { return MPI_Comm_dup(given, &made); });
    return own(made);
  }
  mpi_communicator own(MPI_Comm made) {
    mpi_communicator owned(library_, made);
    library_.check("MPI_Comm_set_errhandler", [&] { return MPI_Comm_set_errhandler(made, MPI_ERRORS_RETURN); });
    return owned;
  }

  /// Numbers the nodes in the order of their first ranks.
  void find_nodes() {
    MPI_Comm made = MPI_COMM_NULL;
    library_.check("MPI_Comm_split_type",
                   [&] { return MPI_Comm_split_type(host(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &made); });
    node_ = own(made);
    if (options_.ranks_per_node > 0) {
      int const part = rank_ / options_.ranks_per_node;
      library_.check("MPI_Comm_split", [&] { return MPI_Comm_split(node(), part, rank_, &made); });
      node_ = own(made);
    }
    int first = rank_;
    library_.check("MPI_Allreduce", [&] { return MPI_Allreduce(&rank_, &first, 1, MPI_INT, MPI_MIN, node()); });
    std::vector<int> first_of(static_cast<std::size_t>(size_));
    library_.check("MPI_Allgather",
                   [&] { return MPI_Allgather(&first, 1, MPI_INT, first_of.data(), 1, MPI_INT, host()); });
    int count = 0;
    for (std::size_t r = 0; r < first_of.size(); ++r) {
      auto const leader = static_cast<std::size_t>(first_of[r]);
      nodes_.push_back(leader == r ? count++ : nodes_[leader]);
    }
  }

  bool record_failure(int failed_rank, std::string_view reason) noexcept {
    std::lock_guard const lock(mutex_);
    if (failed_) return false;
    failed_rank_ = failed_rank;
    std::size_t const length = std::min(reason.size(), reason_.size() - 1);
    std::copy_n(reason.data(), length, reason_.data());
    failed_ = true;
    return true;
  }

  [[noreturn]] void fail_and_throw(int peer, std::string const& text) {
    fail(text);
    throw comm_error(peer, "comm::mpi: rank " + std::to_string(rank_) + ": " + text);
  }

  bool test(mpi_operation const& op, mpi_operation::part& part) {
    if (part.complete) return true;
    int flag = 0;
    MPI_Status status{};
    int const code = library_([&] { return MPI_Test(&part.request, &flag, &status); });
    std::string const call = op.call;
    if (code != MPI_SUCCESS) {
      part.complete = part.request == MPI_REQUEST_NULL;
      std::string const with = part.peer < 0 ? "" : " with rank " + std::to_string(part.peer);
      fail_and_throw(part.peer, call + with + ": " + mpi_error_text("MPI_Test", code));
    }
    if (flag == 0) return false;
    part.complete = true;
    if (part.expected < 0) return true;
    int came = 0;
    check("MPI_Get_count", [&] { return MPI_Get_count(&status, MPI_BYTE, &came); }, part.peer);
    if (came != part.expected)
      fail_and_throw(part.peer, call + ": " + std::to_string(part.expected) + " bytes from rank " +
                                    std::to_string(part.peer) + " expected, got " + std::to_string(came));
    return true;
  }

  std::string milliseconds() const { return std::to_string(options_.deadline.count()) + " ms"; }

  [[noreturn]] void time_out(mpi_operation& op) {
    int missing = -1;
    for (auto& part : op.parts)
      if (!test(op, part) && missing < 0) missing = part.peer;
    std::string ranks = op.missing_ranks();
    if (ranks.empty()) ranks = "all of " + std::to_string(size_) + " ranks";
    std::string const text = op.call + (": waited " + milliseconds() + " for ") + ranks;
    fail(text);
    throw comm_timeout(missing, "comm::mpi: rank " + std::to_string(rank_) + ": " + text);
  }

  /// Whether MPI gives up all parts of the operation within a second.
  bool cancelled(mpi_operation& op) noexcept {
    for (auto& part : op.parts)
      if (!part.complete && part.expected >= 0) library_([&] { return MPI_Cancel(&part.request); });
    auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    for (auto& part : op.parts) {
      for (mpi_pause pause; !part.complete; pause()) {
        int flag = 0;
        int const code = library_([&] { return MPI_Test(&part.request, &flag, MPI_STATUS_IGNORE); });
        part.complete = flag != 0 || (code != MPI_SUCCESS && part.request == MPI_REQUEST_NULL);
        if (!part.complete && std::chrono::steady_clock::now() > end) return false;
      }
    }
    return true;
  }

  void retire() noexcept {
    if (library_.usable()) {
      if (unwinds()) fail("an exception leaves the scope of its communicator");
      if (failed_ && options_.aborts) library_.abort();
    }
    if (!failed_) delete this;
  }

  comm::mpi_options options_;
  mpi_library& library_;
  int exceptions_;
  int rank_ = 0, size_ = 1;
  mpi_communicator host_, grouped_, node_;
  std::vector<int> nodes_;

  std::mutex mutex_;  // of what follows
  std::atomic<bool> failed_ = false;
  int failed_rank_ = -1;
  std::array<char, text_size> reason_{};
  std::vector<MPI_Request> notices_;
};

}  // namespace pushpull::detail
