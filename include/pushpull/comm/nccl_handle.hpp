/// @file
/// A communicator of NCCL: its calls, its failure, its end.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/comm/nccl_options.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

class nccl_handle;

/// The first failure of a rank, whose communicators share it: it ends all of them.
struct nccl_failure {
  struct note {
    int rank;
    std::string text;
    bool is_timeout;
  };
  std::mutex mutex;
  std::optional<note> first;
  std::mutex handles_mutex;
  std::vector<nccl_handle*> handles;
};

/// One ncclComm_t of a rank, not blocking. Every return code is checked; the first failure of the rank fails all later calls and
/// aborts its communicators, each on a thread of its own, because ncclCommAbort may hang. The destructor waits for that thread,
/// until the deadline or 5 seconds after the abort began; one that hangs is left alone: it owns what it uses, and after the abort
/// touches nothing of ours.
class nccl_handle {
 public:
  using clock = std::chrono::steady_clock;
  using lock_type = std::unique_lock<std::timed_mutex>;

  /// @param failure  That of the rank's communicators.
  nccl_handle(int own_rank, int ranks, comm::nccl_options const& options, std::shared_ptr<nccl_failure> failure)
      : rank_(own_rank), size_(ranks), options_(checked_options(options)), failure_(std::move(failure)) {
    std::lock_guard const held(failure_->handles_mutex);
    failure_->handles.push_back(this);
  }
  nccl_handle(nccl_handle const&) = delete;
  nccl_handle& operator=(nccl_handle const&) = delete;
  ~nccl_handle() {
    if (!finalized()) abort_all();
    {
      std::lock_guard const held(failure_->handles_mutex);
      std::erase(failure_->handles, this);
    }
    if (!aborting_.joinable()) return;
    bool has_ended = false;
    {
      std::unique_lock held(core_->end_mutex);
      auto const patience = std::min<std::chrono::milliseconds>(options_.deadline, most_patience);
      has_ended = core_->ended.wait_until(held, abort_began_ + patience, [&] { return core_->has_ended; });
    }
    if (has_ended)
      aborting_.join();
    else
      aborting_.detach();
  }

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  comm::nccl_options const& options() const noexcept { return options_; }

  /// Starts the initialisation, on the current device. `settled` says when it is done.
  /// @param blocks_of_threads  Its kernels have at most so many; 0: as NCCL likes. @throws comm_error
  void start(ncclUniqueId const& id, int blocks_of_threads = 0) {
    lock_type const held = lock("initialisation");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (blocks_of_threads > 0) config.minCTAs = config.maxCTAs = blocks_of_threads;
    check("ncclCommInitRankConfig", ncclCommInitRankConfig(&core_->communicator, size_, id, rank_, &config));
    waits_for("initialisation");
  }

  /// Keeps the watchdog from aborting under a call. @throws comm_error if the communicator has failed
  lock_type lock(char const* call) {
    throw_if_failed();
    lock_type held(core_->mutex, options_.deadline);
    if (!held) fail_and_throw(rank_, std::string(call) + ": a group of another thread is open");
    throw_if_failed();
    return held;
  }
  /// Same as lock, until `release`.
  void acquire(char const* call) { static_cast<void>(lock(call).release()); }
  void release() noexcept { core_->mutex.unlock(); }
  /// To be called with the lock.
  ncclComm_t communicator() const noexcept { return core_->communicator; }
  /// With the lock: notes the result of a call of NCCL. @throws comm_error
  void check(char const* function, ncclResult_t result) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    fail_and_throw(result == ncclRemoteError ? -1 : rank_, text_of(function, result));
  }
  /// With the lock: the deadline of `call` begins.
  void waits_for(char const* call) noexcept {
    call_ = call;
    since_ = clock::now();
  }

  /// Whether NCCL has finished the last call: what it does on the stream comes before later work there.
  /// @throws comm_error; comm_timeout after the deadline
  bool settled() {
    lock_type const held = lock("a call");
    return settled_with_lock();
  }
  bool settled_with_lock() {
    ncclResult_t state = ncclSuccess;
    check("ncclCommGetAsyncError", ncclCommGetAsyncError(communicator(), &state));
    check(call_, state);
    if (state == ncclSuccess) return true;
    if (clock::now() - since_ > options_.deadline) {
      fail(-1, std::string(call_) + ": not every rank came in " + std::to_string(options_.deadline.count()) + " ms",
           true);
      throw_if_failed();
    }
    return false;
  }
  void wait_until_settled() {
    while (!settled()) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

  /// Notes the first failure, and aborts.
  void fail(int of_rank, std::string_view reason, bool is_timeout = false) noexcept {
    try {
      std::lock_guard const held(failure_->mutex);
      if (!failure_->first) failure_->first.emplace(nccl_failure::note{of_rank, std::string(reason), is_timeout});
    } catch (...) {  // no memory for the text
    }
    abort_all();
  }
  /// @throws comm_error, comm_timeout: the first failure
  void throw_if_failed() {
    std::lock_guard const held(failure_->mutex);
    if (!failure_->first) return;
    auto const& [of_rank, reason, is_timeout] = *failure_->first;
    std::string const text = "comm::nccl: rank " + std::to_string(rank_) + ": " + reason;
    if (is_timeout) throw comm_timeout(of_rank, text);
    throw comm_error(of_rank, text);
  }
  bool failed() const {
    std::lock_guard const held(failure_->mutex);
    return failure_->first.has_value();
  }

  static std::string text_of(char const* function, ncclResult_t result, ncclComm_t communicator = nullptr) {
    std::string text = std::string(function) + ": " + ncclGetErrorString(result);
    if (char const* const more = ncclGetLastError(communicator); more != nullptr && *more != '\0')
      text += std::string(" (") + more + ")";
    return text;
  }

 private:
  /// What the thread that aborts needs: it may outlive the handle.
  struct core {
    std::timed_mutex mutex;
    ncclComm_t communicator = nullptr;
    std::mutex end_mutex;
    std::condition_variable ended;
    bool has_ended = false;  // the abort
  };
  static constexpr std::chrono::seconds most_patience{5};

  [[noreturn]] void fail_and_throw(int of_rank, std::string const& text) {
    fail(of_rank, text);
    throw_if_failed();
    throw comm_error(of_rank, text);  // there was no memory to note it
  }

  void abort_all() noexcept {
    std::lock_guard const held(failure_->handles_mutex);
    for (nccl_handle* const each : failure_->handles) each->abort();
  }
  void abort() noexcept {
    if (is_aborted_.exchange(true)) return;
    abort_began_ = clock::now();
    try {
      aborting_ = std::thread([of = core_] {
        lock_type held(of->mutex, std::chrono::seconds(1));  // a call that hangs in NCCL is what abort is for
        ncclComm_t const communicator = std::exchange(of->communicator, nullptr);
        if (held) held.unlock();
        if (communicator != nullptr) static_cast<void>(ncclCommAbort(communicator));
        std::lock_guard const end_held(of->end_mutex);
        of->has_ended = true;
        of->ended.notify_all();
      });
    } catch (...) {  // no thread: the communicator is left as it is
    }
  }

  /// Whether the communicator has ended as it should, or never was.
  bool finalized() noexcept {
    try {
      if (failed() || std::uncaught_exceptions() > 0) return false;  // peers may wait for the rank that threw
      {
        lock_type const held = lock("finalisation");
        if (communicator() == nullptr) return true;
        waits_for("finalisation");
        check("ncclCommFinalize", ncclCommFinalize(communicator()));
      }
      wait_until_settled();
      lock_type const held = lock("finalisation");
      check("ncclCommDestroy", ncclCommDestroy(std::exchange(core_->communicator, nullptr)));
      return true;
    } catch (...) {  // noted; the communicator is aborted
      return false;
    }
  }

  int rank_, size_;
  comm::nccl_options options_;
  std::shared_ptr<core> core_ = std::make_shared<core>();
  char const* call_ = "initialisation";  // that is on its way
  clock::time_point since_{};
  std::shared_ptr<nccl_failure> failure_;
  std::atomic<bool> is_aborted_ = false;
  clock::time_point abort_began_{};
  std::thread aborting_;
};

}  // namespace pushpull::detail
