/// @file
/// The processes that share a store, and how bytes travel between them.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace comm {

/// Bytes that travel between this rank and the rank `peer`. The memory must stay until the request is ready.
struct transfer {
  void* memory;
  std::size_t bytes;
  int peer;
  /// Which of the store's devices at this end, and at the other, has the memory. 0 for memory of the host, and where ranks
  /// exchange memory of one device each.
  std::size_t device = 0;
};

/// The numbers that an engine adds up.
enum class number_type { float16, bfloat16, float32, float64 };

/// Bytes [begin, end) of an array.
struct byte_range {
  std::size_t begin = 0, end = 0;
  std::size_t size() const { return end - begin; }
};

}  // namespace comm

/// Needs:     rank() -> int in [0, size()); size() -> int; barrier(), which returns when every rank has called it;
///            policy_kind = communicator_tag. All are const; copies refer to the same processes.
/// May have:  ranks_are_independent() -> bool: true if every rank trains a store of its own. A store of several ranks
///            that neither say so nor exchange slices is refused.
///            expect_devices(devices), which throws invalid_argument unless a store may have these devices.
/// Models:    comm::single, comm::threads, comm::mpi, comm::nccl, comm::nccl_windows, comm::checked, comm::any_communicator,
///            comm::any_device_communicator.
/// Each capability below is a concept of its own. All ranks make the same calls in the same order; the order holds for
/// each of two families by itself, so that one thread may be in a call of each: calls that take a group, and barrier,
/// broadcast, gather_all and allocate_shared.
template <class C>
concept Communicator = requires(C const& c) {
  typename C::policy_kind;
  { c.rank() } -> std::convertible_to<int>;
  { c.size() } -> std::convertible_to<int>;
  c.barrier();
} && std::copy_constructible<C>;

/// A call that takes a group, once it is started. Dropped before it is ready, it waits, or fails the communicator.
/// Needs:     ready() -> bool, which may be asked again and again, from one thread at a time; true stays true;
///            wait(), which returns when it is ready. Both throw comm_error, and comm_timeout after the deadline.
///            Where devices have streams, ready calls are enqueued: later work on the device's stream comes after them.
template <class R>
concept CommunicationRequest = std::movable<R> && requires(R& r) {
  { r.ready() } -> std::convertible_to<bool>;
  r.wait();
};

/// Starts calls that are submitted together: some engines need to know all of them first.
/// Needs:     group() -> group_type, which has end(): submits. fail(reason): every call that waits or comes, on any rank,
///            throws comm_error; noexcept.
template <class C>
concept GroupsCalls = Communicator<C> && requires(C const& c, typename C::group_type& g, std::string_view reason) {
  { c.group() } -> std::same_as<typename C::group_type>;
  g.end();
  { c.fail(reason) } noexcept;
};

/// The calls that take a group move memory of the devices D.
/// Needs:     moves_memory_of<D>, a static constexpr bool.
template <class C, class D>
concept MovesMemoryOf = GroupsCalls<C> && requires {
  { C::template moves_memory_of<D> } -> std::convertible_to<bool>;
} && C::template moves_memory_of<D>;

/// Sends slices to ranks and receives slices from ranks, this one not among them.
/// Needs:     exchange(group, out, in) -> request. The transfers from one rank to another match in their order, over all
///            calls, and have as many bytes at both ends. Memory of `out` is only read.
template <class C, class D>
concept ExchangesSlices =
    MovesMemoryOf<C, D> && requires(C const& c, typename C::group_type& g, std::span<comm::transfer const> transfers) {
      { c.exchange(g, transfers, transfers) } -> CommunicationRequest;
    };

/// All-gather in place: every rank ends with the bytes that each has in its range of the array.
/// Needs:     gather(group, whole, of_rank) -> request, with a range per rank, the same on every rank.
template <class C, class D>
concept GathersSlices = MovesMemoryOf<C, D> && requires(C const& c, typename C::group_type& g, void* whole,
                                                        std::span<comm::byte_range const> of_rank) {
  { c.gather(g, whole, of_rank) } -> CommunicationRequest;
};

/// Moves memory of every device of a rank, each of which exchanges it with those of its number on the other ranks. Stores of
/// several devices per rank need it unless their devices are the host's.
/// Needs:     exchange regards `device` of transfers; gather(group, whole, of_rank, device). All ranks name the same device.
template <class C, class D>
concept MovesMemoryOfEachDevice =
    ExchangesSlices<C, D> && GathersSlices<C, D> &&
    requires(C const& c, typename C::group_type& g, void* whole, std::span<comm::byte_range const> of_rank) {
      { c.gather(g, whole, of_rank, std::size_t{1}) } -> CommunicationRequest;
    };

/// Sums doubles over the ranks, in place. Exact where only one rank has a value that is not zero.
/// Needs:     sum(group, numbers, count) -> request.
template <class C, class D>
concept SumsDoubles =
    MovesMemoryOf<C, D> && requires(C const& c, typename C::group_type& g, double* numbers, std::size_t count) {
      { c.sum(g, numbers, count) } -> CommunicationRequest;
    };

/// Adds up slices over the ranks, each on one rank. The order of the sum, and so its last bits, are the engine's.
/// Needs:     reduce_scatter(group, whole, of_rank, sum, type) -> request: `sum` gets the sum over the ranks of the bytes of this
///            rank's range of the array; a range per rank, the same on every rank. The array is only read. If it models
///            MovesMemoryOfEachDevice, also with a `device`.
template <class C, class D>
concept ReducesSlices = MovesMemoryOf<C, D> && requires(C const& c, typename C::group_type& g, void const* whole,
                                                        void* sum, std::span<comm::byte_range const> of_rank) {
  { c.reduce_scatter(g, whole, of_rank, sum, comm::number_type::float32) } -> CommunicationRequest;
};

/// Copies rank `root`'s bytes, in host memory, to every rank. Returns when they are there.
template <class C>
concept BroadcastsBytes =
    Communicator<C> && requires(C const& c, std::span<std::byte> bytes, int root) { c.broadcast(bytes, root); };

/// Gives every rank the bytes of every rank, which may be of different numbers, in the order of the ranks.
template <class C>
concept GathersBytes = Communicator<C> && requires(C const& c, std::span<std::byte const> bytes) {
  { c.gather_all(bytes) } -> std::same_as<std::vector<std::vector<std::byte>>>;
};

/// The capabilities that a store over several ranks asks for. If D is no HostDevice it also needs host() -> a
/// CollectiveCommunicator for memory of the host, for states, weights and texts.
template <class C, class D>
concept CollectiveCommunicator =
    ExchangesSlices<C, D> && GathersSlices<C, D> && SumsDoubles<C, D> && BroadcastsBytes<C> && GathersBytes<C>;

/// Allocates memory that the ranks of one node reach by pointers.
/// Needs:     node_of(rank) -> int; allocate_shared(bytes) -> shared_memory, called by all ranks of the communicator, each
///            with its own number of bytes, zeroed, kept at least until the last copy on this rank goes; it has at(rank) -> void*, null
///            unless the rank is on this rank's node. arrive(group) -> request, ready when all ranks of the node have
///            arrived: what they wrote to shared memory before can be read then, where devices have streams by later work there.
template <class C, class D>
concept SharesMemory =
    MovesMemoryOf<C, D> && requires(C const& c, typename C::group_type& g, typename C::shared_memory const& memory,
                                    int rank, std::size_t bytes) {
      { c.node_of(rank) } -> std::convertible_to<int>;
      { c.allocate_shared(bytes) } -> std::same_as<typename C::shared_memory>;
      { memory.at(rank) } -> std::same_as<void*>;
      { c.arrive(g) } -> CommunicationRequest;
    };

namespace detail {

/// Whether the communicator says that its ranks exchange nothing.
template <Communicator C>
bool has_independent_ranks(C const& communicator) {
  if constexpr (requires {
                  { communicator.ranks_are_independent() } -> std::convertible_to<bool>;
                }) {
    return communicator.ranks_are_independent();
  } else {
    return false;
  }
}

}  // namespace detail
}  // namespace pushpull
