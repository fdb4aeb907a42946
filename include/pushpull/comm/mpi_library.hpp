/// @file
/// MPI in this process: its start and end, its thread level, and its error texts.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The text of a return code of the MPI function `function`: a line, of which MPICH adds more.
inline std::string mpi_error_text(char const* function, int code) {
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) length = 0;
  std::string const line(text.data(), std::find(text.data(), text.data() + length, '\n'));
  return std::string(function) + ": " + (line.empty() ? "error " + std::to_string(code) : line);
}

/// MPI in this process. Initialises it if the program has not, and then finalises it at exit. Never destroyed, since
/// static objects of the program may outlive every other static object.
class mpi_library {
 public:
  /// @throws comm_error
  static mpi_library& instance() {
    static mpi_library* const library = new mpi_library;
    library->require_threads();
    return *library;
  }

  /// Whether MPI can still be called.
  bool usable() const noexcept {
    int finalized = 1;
    return !aborted_ && MPI_Finalized(&finalized) == MPI_SUCCESS && finalized == 0;
  }

  /// Returns what `call` returns. MPI_THREAD_SERIALIZED allows one call at a time.
  template <class Call>
  int operator()(Call const& call) {
    std::unique_lock lock(mutex_, std::defer_lock);
    if (serialized_) lock.lock();
    return call();
  }

  /// @throws comm_error naming `function` if `call` fails.
  template <class Call>
  void check(char const* function, Call const& call) {
    if (int const code = (*this)(call); code != MPI_SUCCESS)
      throw comm_error(-1, "comm::mpi: " + mpi_error_text(function, code));
  }

  /// The job is aborted when this process finalises MPI or exits.
  void abort_at_exit() noexcept { aborts_at_exit_ = true; }

  /// Ends all processes of the job. Takes no lock: another thread may hold it in a call that never returns.
  [[noreturn]] void abort() noexcept {
    std::fflush(stdout);
    if (!aborted_.exchange(true)) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    std::_Exit(EXIT_FAILURE);
  }

 private:
  mpi_library() {
    int initialized = 0, finalized = 0;
    check("MPI_Initialized", [&] { return MPI_Initialized(&initialized); });
    check("MPI_Finalized", [&] { return MPI_Finalized(&finalized); });
    expects_usable(finalized == 0);
    if (initialized == 0) {
      int provided = 0;
      check("MPI_Init_thread", [&] { return MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided); });
      finalizes_ = true;
      // Errors of a request are raised there by MPICH, and not on the communicator of the request.
      for (MPI_Comm const comm : {MPI_COMM_WORLD, MPI_COMM_SELF})
        check("MPI_Comm_set_errhandler", [&] { return MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN); });
    }
    check("MPI_Query_thread", [&] { return MPI_Query_thread(&level_); });
    serialized_ = level_ == MPI_THREAD_SERIALIZED;
    // The program may finalise MPI itself, which first deletes the attributes of MPI_COMM_SELF.
    int key = MPI_KEYVAL_INVALID;
    check("MPI_Comm_create_keyval",
          [&] { return MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, &before_finalize, &key, nullptr); });
    check("MPI_Comm_set_attr", [&] { return MPI_Comm_set_attr(MPI_COMM_SELF, key, this); });
    library_at_exit() = this;
    std::atexit([] { library_at_exit()->leave(); });
  }

  static void expects_usable(bool usable) {
    if (!usable) throw comm_error(-1, "comm::mpi: MPI is finalised; a communicator has to be made before MPI_Finalize");
  }

  void require_threads() const {
    expects_usable(usable());
    if (level_ >= MPI_THREAD_SERIALIZED) return;
    throw comm_error(-1,
                     std::string("comm::mpi: MPI_THREAD_MULTIPLE or MPI_THREAD_SERIALIZED expected, MPI provides ") +
                         (level_ == MPI_THREAD_FUNNELED ? "MPI_THREAD_FUNNELED" : "MPI_THREAD_SINGLE") +
                         ": call MPI_Init_thread with MPI_THREAD_MULTIPLE in place of MPI_Init");
  }

  static mpi_library*& library_at_exit() noexcept {
    static mpi_library* library = nullptr;
    return library;
  }
  static int before_finalize(MPI_Comm, int, void* library, void*) {
    if (!static_cast<mpi_library*>(library)->aborts_at_exit_) return MPI_SUCCESS;
    // After MPI_Abort inside of MPI_Finalize Open MPI's mpirun hangs at times. This status ends the job as well.
    std::fflush(stdout);
    std::_Exit(EXIT_FAILURE);
  }
  void leave() noexcept {
    if (!usable()) return;
    if (aborts_at_exit_) abort();
    if (finalizes_) MPI_Finalize();  // nobody is left to tell about a failure
  }

  std::mutex mutex_;
  std::atomic<bool> aborted_ = false, aborts_at_exit_ = false;
  int level_ = MPI_THREAD_SINGLE;
  bool serialized_ = false, finalizes_ = false;
};

}  // namespace pushpull::detail
