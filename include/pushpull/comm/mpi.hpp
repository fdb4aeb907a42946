/// @file
/// The communicator over MPI: processes in step on CPUs.
#pragma once

#include <mpi.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/comm/mpi_processes.hpp>
#include <pushpull/comm/mpi_request.hpp>
#include <pushpull/comm/mpi_shared_memory.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Calls of comm::mpi that are submitted together. MPI needs no such thing, so each is submitted at once.
struct mpi_group {
  void end() noexcept {}
};

/// The processes of an MPI communicator, on whose duplicates the calls run: other messages of the program do not disturb
/// them. Copies refer to the same processes. MPI moves bytes and adds doubles, nothing else. Calls that fail or come to
/// the deadline fail the communicator; its last handle then ends the job. So does a last handle that goes while an exception
/// unwinds the stack: no rank waits for one that threw.
class mpi {
  using family = pushpull::detail::mpi_family;

 public:
  using policy_kind = communicator_tag;
  using group_type = mpi_group;
  using shared_memory = mpi_shared_memory;
  template <class D>
  static constexpr bool moves_memory_of = HostDevice<D>;

  /// Collective over `given`, which stays the caller's. Initialises MPI if the program has not, and then finalises it at
  /// exit. @throws comm_error, comm_timeout; invalid_argument
  explicit mpi(MPI_Comm given, mpi_options const& options = {})
      : processes_(pushpull::detail::mpi_processes::make(given, options)),
        windows_(std::make_shared<pushpull::detail::mpi_windows>(processes_)) {}
  /// All processes of the job.
  explicit mpi(mpi_options const& options = {}) : mpi(world(), options) {}

  int rank() const noexcept { return processes_->rank(); }
  int size() const noexcept { return processes_->size(); }

  void barrier() const {
    mpi_request request(processes_, family::host, "barrier");
    request.start("MPI_Ibarrier", [&](MPI_Request* r) { return MPI_Ibarrier(processes_->of_mpi().host(), r); });
    request.wait();
  }

  group_type group() const noexcept { return {}; }
  /// Prints the reason. Every later call throws comm_error, on every rank.
  void fail(std::string_view reason) const noexcept { processes_->fail(reason, rank()); }

  /// A message is cut into parts of at most mpi_options::largest_message bytes.
  mpi_request exchange(group_type&, std::span<transfer const> out, std::span<transfer const> in) const {
    for (std::span<transfer const> const transfers : {out, in})
      for (transfer const& t : transfers) expect_peer(t.peer);
    mpi_request request(processes_, family::grouped, "exchange");
    for (transfer const& t : in) receive(request, t, exchange_tag);
    for (transfer const& t : out) send(request, t, exchange_tag);
    return request;
  }

  mpi_request gather(group_type&, void* whole, std::span<byte_range const> of_rank) const {
    pushpull::detail::expects<invalid_argument>(of_rank.size() == static_cast<std::size_t>(size()), [&] {
      return "comm::mpi: gather: " + std::to_string(size()) + " ranges expected, got " + std::to_string(of_rank.size());
    });
    mpi_request request(processes_, family::grouped, "gather");
    auto const range_of = [&](int peer) {
      byte_range const range = of_rank[static_cast<std::size_t>(peer)];
      return transfer{static_cast<std::byte*>(whole) + range.begin, range.size(), peer};
    };
    transfer own = range_of(rank());
    for (int i = 1; i < size(); ++i)
      if (transfer const t = range_of((rank() + size() - i) % size()); t.bytes > 0) receive(request, t, gather_tag);
    for (int i = 1; i < size() && own.bytes > 0; ++i) {  // each rank begins with another, so that no link gets all
      own.peer = (rank() + i) % size();
      send(request, own, gather_tag);
    }
    return request;
  }

  mpi_request sum(group_type&, double* numbers, std::size_t count) const {
    mpi_request request(processes_, family::grouped, "sum");
    auto& op = request.operation();
    op.numbers.assign(numbers, numbers + count);
    op.sums = numbers;
    std::size_t const most = std::max(largest_message() / sizeof(double), std::size_t{1});
    for (std::size_t begin = 0; begin < count; begin += most) {
      int const n = static_cast<int>(std::min(most, count - begin));
      request.start("MPI_Iallreduce", [&](MPI_Request* r) {
        return MPI_Iallreduce(MPI_IN_PLACE, &op.numbers[begin], n, MPI_DOUBLE, MPI_SUM, processes_->of_mpi().grouped(),
                              r);
      });
    }
    return request;
  }

  void broadcast(std::span<std::byte> bytes, int root) const {
    pushpull::detail::expects<invalid_argument>(root >= 0 && root < size(), [&] {
      return "comm::mpi: broadcast: a root in [0, " + std::to_string(size()) + ") expected, got " +
             std::to_string(root);
    });
    std::size_t expected = bytes.size();
    broadcast_part(std::as_writable_bytes(std::span(&expected, 1)), root);
    if (expected != bytes.size())
      processes_->fail_and_throw(root, "broadcast: " + std::to_string(bytes.size()) + " bytes expected, rank " +
                                           std::to_string(root) + " sends " + std::to_string(expected));
    while (!bytes.empty()) {
      auto const part = bytes.first(std::min({bytes.size(), largest_message(), largest_copy}));
      broadcast_part(part, root);
      bytes = bytes.subspan(part.size());
    }
  }

  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    auto const ranks = static_cast<std::size_t>(size());
    std::size_t const own = bytes.size();
    std::vector<std::byte> const packed =
        gather_part(std::as_bytes(std::span(&own, 1)), std::vector<std::size_t>(ranks, sizeof(own)));
    std::vector<std::size_t> left(ranks);
    std::memcpy(left.data(), packed.data(), packed.size());

    std::vector<std::vector<std::byte>> all(ranks);
    std::size_t const most = std::max(std::min(largest_message(), largest_copy) / ranks, std::size_t{1});
    std::vector<std::size_t> part(ranks);
    while (std::ranges::any_of(left, [](std::size_t n) { return n > 0; })) {
      std::ranges::transform(left, part.begin(), [&](std::size_t n) { return std::min(n, most); });
      std::size_t const own_part = part[static_cast<std::size_t>(rank())];
      std::vector<std::byte> const received = gather_part(bytes.first(own_part), part);
      bytes = bytes.subspan(own_part);
      auto begin = received.begin();
      for (std::size_t r = 0; r < ranks; ++r) {
        auto const end = begin + static_cast<std::ptrdiff_t>(part[r]);
        all[r].insert(all[r].end(), begin, end);
        begin = end;
        left[r] -= part[r];
      }
    }
    return all;
  }

  /// Nodes are numbered in the order of their first ranks.
  int node_of(int rank) const {
    pushpull::detail::expects<invalid_argument>(rank >= 0 && rank < size(), [&] {
      return "comm::mpi: node_of: a rank in [0, " + std::to_string(size()) + ") expected, got " + std::to_string(rank);
    });
    return processes_->of_mpi().nodes()[static_cast<std::size_t>(rank)];
  }

  shared_memory allocate_shared(std::size_t bytes) const {
    auto const mine = windows_->dropped();
    auto const all = gather_all(std::as_bytes(std::span(mine)));
    std::vector<std::uint64_t> dropped = mine;
    for (auto const& other : all) {
      std::vector<std::uint64_t> theirs(other.size() / sizeof(std::uint64_t));
      if (!theirs.empty()) std::memcpy(theirs.data(), other.data(), other.size());
      std::erase_if(dropped, [&](std::uint64_t n) { return !std::ranges::binary_search(theirs, n); });
    }
    windows_->free(dropped);
    shared_memory memory(windows_, windows_->allocate(bytes));
    barrier();  // all of it is zero
    return memory;
  }

  mpi_request arrive(group_type&) const {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // what this rank wrote comes before its arrival
    mpi_request request(processes_, family::grouped, "arrive");
    request.start("MPI_Ibarrier", [&](MPI_Request* r) { return MPI_Ibarrier(processes_->of_mpi().node(), r); });
    return request;
  }

 private:
  static constexpr int exchange_tag = 1, gather_tag = 2;
  static constexpr std::size_t largest_copy = std::size_t{16} << 20;  ///< of memory that MPI must not use itself

  static MPI_Comm world() {
    pushpull::detail::mpi_library::instance();  // MPICH and others may know it only after MPI_Init
    return MPI_COMM_WORLD;
  }

  std::size_t largest_message() const noexcept { return processes_->options().largest_message; }

  void expect_peer(int peer) const {
    pushpull::detail::expects<invalid_argument>(peer >= 0 && peer < size() && peer != rank(), [&] {
      return "comm::mpi: exchange: a peer in [0, " + std::to_string(size()) + ") other than this rank, " +
             std::to_string(rank()) + ", expected, got " + std::to_string(peer);
    });
  }

  /// Calls f(memory, bytes as int) for each message of a transfer; one without bytes has one, so that sizes are compared.
  template <class F>
  void for_each_message(transfer const& t, F const& f) const {
    auto* memory = static_cast<std::byte*>(t.memory);
    std::size_t left = t.bytes;
    do {
      std::size_t const n = std::min(left, largest_message());
      f(memory, static_cast<int>(n));
      memory += n;
      left -= n;
    } while (left > 0);
  }
  void receive(mpi_request& request, transfer const& t, int tag) const {
    for_each_message(t, [&](std::byte* memory, int n) {
      request.start(
          "MPI_Irecv",
          [&](MPI_Request* r) {
            return MPI_Irecv(memory, n, MPI_BYTE, t.peer, tag, processes_->of_mpi().grouped(), r);
          },
          t.peer, n);
    });
  }
  void send(mpi_request& request, transfer const& t, int tag) const {
    for_each_message(t, [&](std::byte const* memory, int n) {
      request.start(
          "MPI_Isend",
          [&](MPI_Request* r) {
            return MPI_Isend(memory, n, MPI_BYTE, t.peer, tag, processes_->of_mpi().grouped(), r);
          },
          t.peer);
    });
  }

  void broadcast_part(std::span<std::byte> bytes, int root) const {
    mpi_request request(processes_, family::host, "broadcast");
    auto& op = request.operation();
    op.received.assign(bytes.begin(), bytes.end());
    request.start("MPI_Ibcast", [&](MPI_Request* r) {
      return MPI_Ibcast(op.received.data(), static_cast<int>(bytes.size()), MPI_BYTE, root, processes_->of_mpi().host(),
                        r);
    });
    request.wait();
    std::ranges::copy(op.received, bytes.begin());
  }

  /// The bytes of all ranks, of which `sizes` gives the numbers, one after the other.
  std::vector<std::byte> gather_part(std::span<std::byte const> bytes, std::vector<std::size_t> const& sizes) const {
    mpi_request request(processes_, family::host, "gather_all");
    auto& op = request.operation();
    int total = 0;
    for (std::size_t const n : sizes) {
      op.offsets.push_back(total);
      op.counts.push_back(static_cast<int>(n));
      total += op.counts.back();
    }
    op.sent.assign(bytes.begin(), bytes.end());
    op.received.resize(static_cast<std::size_t>(total));
    request.start("MPI_Iallgatherv", [&](MPI_Request* r) {
      return MPI_Iallgatherv(op.sent.data(), static_cast<int>(op.sent.size()), MPI_BYTE, op.received.data(),
                             op.counts.data(), op.offsets.data(), MPI_BYTE, processes_->of_mpi().host(), r);
    });
    request.wait();
    return std::move(op.received);
  }

  std::shared_ptr<pushpull::detail::mpi_processes> processes_;
  std::shared_ptr<pushpull::detail::mpi_windows> windows_;
};

static_assert(GroupsCalls<mpi> && BroadcastsBytes<mpi> && GathersBytes<mpi>);

}  // namespace pushpull::comm
