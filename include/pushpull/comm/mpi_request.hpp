/// @file
/// A call of comm::mpi, once it is started.
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include <pushpull/comm/mpi_operation.hpp>
#include <pushpull/comm/mpi_processes.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Move-only. Dropped before it is ready it waits; if an exception unwinds the stack it fails the communicator, and a
/// transfer that MPI then neither completes nor cancels within a second ends the job, because its memory may go.
class mpi_request {
 public:
  mpi_request(std::shared_ptr<pushpull::detail::mpi_processes> processes, pushpull::detail::mpi_family family,
              char const* call)
      : processes_(std::move(processes)), exceptions_(std::uncaught_exceptions()) {
    processes_->throw_if_failed();
    operation_.reset(new pushpull::detail::mpi_operation{.call = call, .family = family});
  }
  mpi_request(mpi_request&&) noexcept = default;
  mpi_request& operator=(mpi_request&& other) noexcept {
    mpi_request gone(std::move(*this));
    processes_ = std::move(other.processes_);
    operation_ = std::move(other.operation_);
    exceptions_ = other.exceptions_;
    return *this;
  }
  ~mpi_request() {
    if (!operation_ || operation_->complete()) return;
    try {
      if (std::uncaught_exceptions() > exceptions_)
        processes_->fail("an exception drops a call on its way", processes_->rank());
      wait();
    } catch (error const&) {  // the communicator has failed, and says so to whoever calls it
      processes_->abandon(std::move(operation_));
    }
  }

  /// Asks MPI, which makes progress by that alone. @throws comm_error, comm_timeout
  bool ready() { return processes_->ready(*operation_); }
  /// @throws comm_error, comm_timeout
  void wait() {
    for (pushpull::detail::mpi_pause pause; !ready();) pause();
  }

  pushpull::detail::mpi_operation& operation() noexcept { return *operation_; }
  /// Starts a part: `call` gets the place of its request.
  template <class Call>
  void start(char const* function, Call const& call, int peer = -1, int expected = -1) {
    processes_->start(*operation_, function, call, peer, expected);
  }

 private:
  std::shared_ptr<pushpull::detail::mpi_processes> processes_;
  std::unique_ptr<pushpull::detail::mpi_operation> operation_;
  int exceptions_;
};

static_assert(CommunicationRequest<mpi_request>);

}  // namespace pushpull::comm
