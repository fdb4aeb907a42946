/// @file
/// Messages between the ranks of a comm::mpi about itself: which has failed, and which is in which call.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/comm/mpi_library.hpp>
#include <pushpull/comm/mpi_operation.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The failure of a communicator: also the message that tells the other ranks.
struct mpi_failure {
  int reporter = -1;
  int culprit = -1;  ///< the rank that it failed for; -1 if not known
  bool timed_out = false;
  std::array<char, 1000> reason{};

  void set_reason(std::string_view text) noexcept {
    std::copy_n(text.data(), std::min(text.size(), reason.size() - 1), reason.data());
  }
};

/// Speaks point to point on a communicator on which everything else is collective. A rank hears others while it is in a
/// call that waits; so the ranks that do not answer a question are those that have not come.
class mpi_control {
 public:
  mpi_control(mpi_library& library, MPI_Comm comm, int rank, int size)
      : library_(library), comm_(comm), rank_(rank), size_(size) {}

  /// The call of this family that this rank is in, or null. Names are literals.
  void enter(mpi_family family, char const* call) noexcept { calls_[static_cast<std::size_t>(family)] = call; }

  /// Best effort: a rank that does not hear of it comes to its deadline. `failure` must stay.
  void tell_all(mpi_failure const& failure) noexcept {
    for (int peer = 0; peer < size_; ++peer)
      if (peer != rank_) send(&failure, sizeof(failure), peer, failure_tag);
  }

  /// Answers other ranks. The failure of another rank, if one has come. @throws comm_error
  std::optional<mpi_failure> listen() { return listen_for(nullptr); }

  /// The answers of all ranks to a question: the call that they are in, empty if none; nothing from those that do not
  /// answer in time. Ends early if all have answered or one has failed.
  struct answers {
    std::vector<std::optional<std::string>> call_of;
    std::optional<mpi_failure> failure = {};
  };
  /// @throws comm_error
  answers ask(mpi_family family, std::chrono::milliseconds limit) {
    static constexpr std::array<mpi_family, 2> questions{mpi_family::grouped, mpi_family::host};
    answers seen{.call_of = std::vector<std::optional<std::string>>(static_cast<std::size_t>(size_))};
    seen.call_of[static_cast<std::size_t>(rank_)] = call_in(family);
    for (int peer = 0; peer < size_; ++peer)
      if (peer != rank_) send(&questions[static_cast<std::size_t>(family)], sizeof(mpi_family), peer, question_tag);
    auto const end = std::chrono::steady_clock::now() + limit;
    for (mpi_pause pause; std::chrono::steady_clock::now() < end; pause()) {
      seen.failure = listen_for(&seen);
      if (seen.failure || std::ranges::all_of(seen.call_of, [](auto const& a) { return a.has_value(); })) break;
    }
    return seen;
  }

 private:
  static constexpr int failure_tag = 1, question_tag = 2, answer_tag = 3;

  /// The call of this family that this rank is in, or else that of the other family, or else an empty text.
  char const* call_in(mpi_family family) const noexcept {
    auto const first = static_cast<std::size_t>(family);
    for (std::size_t const i : {first, 1 - first})
      if (char const* const call = calls_[i]; call != nullptr) return call;
    return "";
  }

  /// Memory that stays, so nobody has to wait for the request.
  void send(void const* memory, std::size_t bytes, int peer, int tag) noexcept {
    MPI_Request request = MPI_REQUEST_NULL;
    if (library_([&] { return MPI_Isend(memory, static_cast<int>(bytes), MPI_BYTE, peer, tag, comm_, &request); }) ==
        MPI_SUCCESS)
      library_([&] { return MPI_Request_free(&request); });
  }

  std::optional<mpi_failure> listen_for(answers* seen) {
    for (;;) {
      int flag = 0, bytes = 0;
      MPI_Message message = MPI_MESSAGE_NULL;
      MPI_Status status{};
      library_.check("MPI_Improbe",
                     [&] { return MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &flag, &message, &status); });
      if (flag == 0) return std::nullopt;
      mpi_failure text;  // the largest message
      library_.check("MPI_Mrecv", [&] { return MPI_Mrecv(&text, sizeof(text), MPI_BYTE, &message, &status); });
      library_.check("MPI_Get_count", [&] { return MPI_Get_count(&status, MPI_BYTE, &bytes); });
      if (status.MPI_TAG == failure_tag) return text;
      if (status.MPI_TAG == question_tag) {
        mpi_family family{};
        std::memcpy(&family, &text, sizeof(family));
        char const* const call = call_in(family);
        send(call, std::strlen(call), status.MPI_SOURCE, answer_tag);
      } else if (seen != nullptr) {
        seen->call_of[static_cast<std::size_t>(status.MPI_SOURCE)] =
            std::string(reinterpret_cast<char const*>(&text), static_cast<std::size_t>(bytes));
      }
    }
  }

  mpi_library& library_;
  MPI_Comm comm_;
  int rank_, size_;
  std::array<std::atomic<char const*>, 2> calls_{};
};

}  // namespace pushpull::detail
