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

#include <pushpull/comm/mpi_communicators.hpp>
#include <pushpull/comm/mpi_control.hpp>
#include <pushpull/comm/mpi_library.hpp>
#include <pushpull/comm/mpi_operation.hpp>
#include <pushpull/comm/mpi_options.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The state that copies of a comm::mpi share.
class mpi_processes {
  template <class Call>
  auto control(Call const& call) {
    try {
      return call();
    } catch (comm_error const& e) {
      fail(e.what(), -1);
      throw;
    }
  }

 public:
  /// Collective over `given`. The last owner aborts the job if the communicator has failed or an exception unwinds the
  /// stack. If the program takes over, a failed one stays for ever, since MPI may still use its memory.
  static std::shared_ptr<mpi_processes> make(MPI_Comm given, comm::mpi_options const& options) {
    return {new mpi_processes(given, options), [](mpi_processes* gone) noexcept { gone->retire(); }};
  }
  mpi_processes(mpi_processes const&) = delete;
  mpi_processes& operator=(mpi_processes const&) = delete;

  int rank() const noexcept { return of_mpi_.rank(); }
  int size() const noexcept { return of_mpi_.size(); }
  mpi_communicators const& of_mpi() const noexcept { return of_mpi_; }
  comm::mpi_options const& options() const noexcept { return options_; }
  mpi_library& library() const noexcept { return library_; }
  bool failed() const noexcept { return failed_; }
  /// Whether an exception has been thrown since the communicator was made, and is not caught yet.
  bool unwinds() const noexcept { return std::uncaught_exceptions() > exceptions_; }

  /// Every later call throws, here and on the other ranks. `culprit` is the rank that it failed for, -1 if not known.
  void fail(std::string_view reason, int culprit, bool timed_out = false) noexcept {
    mpi_failure failure{.reporter = rank(), .culprit = culprit, .timed_out = timed_out};
    failure.set_reason(reason);
    if (!record(failure)) return;
    std::fprintf(stderr, "pushpull: rank %d of %d failed: %s\n", rank(), size(), failure_.reason.data());
    if (library_.usable()) control_.tell_all(failure_);
  }

  /// @throws comm_error or comm_timeout if this rank or another has failed.
  void throw_if_failed() {
    if (!failed_) {
      auto const failure = control([&] { return control_.listen(); });
      if (!failure) return;
      record(*failure);
    }
    std::lock_guard const lock(mutex_);
    std::string const text = "comm::mpi: rank " + std::to_string(failure_.reporter) + " of " + std::to_string(size()) +
                             " failed: " + failure_.reason.data();
    if (failure_.timed_out) throw comm_timeout(failure_.culprit, text);
    throw comm_error(failure_.culprit, text);
  }

  /// @throws comm_error naming `function` if `call` fails; the communicator has then failed.
  template <class Call>
  void check(char const* function, Call const& call, int peer = -1) {
    if (int const code = library_(call); code != MPI_SUCCESS) fail_and_throw(peer, mpi_error_text(function, code));
  }

  /// Fails for `peer`. @throws comm_error
  [[noreturn]] void fail_and_throw(int peer, std::string const& text) {
    fail(text, peer);
    throw comm_error(peer, "comm::mpi: rank " + std::to_string(rank()) + ": " + text);
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
    control_.enter(op.family, op.call);
    while (!op.complete()) {
      if (!test(op, op.parts[op.first_incomplete])) break;
      ++op.first_incomplete;
    }
    if (op.complete()) {
      if (op.sums != nullptr) std::ranges::copy(op.numbers, op.sums);
      control_.enter(op.family, nullptr);
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
                   rank(), size(), op->call);
      library_.abort();
    }
    op.release();  // MPI may write to it until the process ends
  }

 private:
  mpi_processes(MPI_Comm given, comm::mpi_options const& options)
      : options_(checked_options(options)),
        library_(mpi_library::instance()),
        exceptions_(std::uncaught_exceptions()),
        of_mpi_(library_, given, options_),
        control_(library_, of_mpi_.host(), rank(), size()) {}
  ~mpi_processes() = default;

  /// False if the communicator has failed before.
  bool record(mpi_failure const& failure) noexcept {
    std::lock_guard const lock(mutex_);
    if (failed_) return false;
    failure_ = failure;
    failed_ = true;
    if (options_.aborts) library_.abort_at_exit();
    return true;
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
    for (auto& part : op.parts) test(op, part);
    std::vector<int> missing = op.missing_ranks();
    std::string text;
    if (missing.empty()) {  // a collective operation of MPI's, which does not tell
      auto const answers =
          control([&] { return control_.ask(op.family, std::min(options_.deadline, std::chrono::milliseconds(500))); });
      if (answers.failure) record(*answers.failure);
      if (failed_) throw_if_failed();
      for (int r = 0; r < size(); ++r) {
        auto const& call = answers.call_of[static_cast<std::size_t>(r)];
        if (call == op.call) continue;
        missing.push_back(r);
        if (call) text += "; rank " + std::to_string(r) + " is in " + (call->empty() ? "no call" : *call);
      }
    }
    text = std::string(op.call) + ": waited " + milliseconds() + " for " + list(missing) + text;
    int const culprit = missing.empty() ? -1 : missing.front();
    fail(text, culprit, true);
    throw comm_timeout(culprit, "comm::mpi: rank " + std::to_string(rank()) + ": " + text);
  }

  std::string list(std::vector<int> const& ranks) const {
    if (ranks.empty()) return "the other ranks, which are in this call too";
    std::string text = ranks.size() == 1 ? "rank " : "ranks ";
    for (std::size_t i = 0; i < ranks.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
    return text;
  }

  /// Whether MPI gives up all parts of the operation within a second.
  bool cancelled(mpi_operation& op) noexcept {
    auto const end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    auto const late = [&] { return std::chrono::steady_clock::now() > end; };
    for (auto& part : op.parts) {
      if (part.complete || part.expected < 0) continue;  // MPI does not cancel what it sends
      library_([&] { return MPI_Cancel(&part.request); });
      if (late()) return false;
    }
    for (auto& part : op.parts) {
      for (mpi_pause pause; !part.complete; pause()) {
        int flag = 0;
        int const code = library_([&] { return MPI_Test(&part.request, &flag, MPI_STATUS_IGNORE); });
        part.complete = flag != 0 || (code != MPI_SUCCESS && part.request == MPI_REQUEST_NULL);
        if (!part.complete && late()) return false;
      }
    }
    return true;
  }

  void retire() noexcept {
    if (library_.usable()) {
      if (unwinds()) fail("an exception leaves the scope of its communicator", rank());
      if (failed_ && options_.aborts) library_.abort();
    }
    if (!failed_) delete this;
  }

  comm::mpi_options options_;
  mpi_library& library_;
  int exceptions_;
  mpi_communicators of_mpi_;
  mpi_control control_;

  std::mutex mutex_;  // of what follows
  std::atomic<bool> failed_ = false;
  mpi_failure failure_;
};

}  // namespace pushpull::detail
