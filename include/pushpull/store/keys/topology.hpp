/// @file
/// The owners of a store: which processes there are, and with how many devices each.
#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <string>

#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Every device of every process is an owner: owner number = rank * devices + device. A process holds the memory of its own
/// devices only, the local owners.
class topology {
 public:
  /// One process.
  explicit topology(std::size_t device_count) : topology(0, 1, device_count) {}
  /// Process number `rank_number` of `rank_count`, each with as many devices.
  topology(std::size_t rank_number, std::size_t rank_count, std::size_t device_count)
      : rank_(rank_number), ranks_(rank_count), devices_(device_count) {}

  std::size_t rank() const { return rank_; }
  std::size_t ranks() const { return ranks_; }
  /// Devices of one process.
  std::size_t devices() const { return devices_; }
  std::size_t owners() const { return ranks_ * devices_; }

  /// Which of this process's devices the owner is, if it is one of them.
  std::optional<std::size_t> local(std::size_t owner) const {
    std::size_t const first = owner_of(0);
    if (owner < first || owner >= first + devices_) return std::nullopt;
    return owner - first;
  }
  /// The owner that this process's device number `device` is.
  std::size_t owner_of(std::size_t device) const { return rank_ * devices_ + device; }
  std::size_t rank_of(std::size_t owner) const { return owner / devices_; }
  /// The first of a process's owners, which follow one another.
  std::size_t first_owner(std::size_t rank_number) const { return rank_number * devices_; }

 private:
  std::size_t rank_, ranks_, devices_;
};

/// Whether a store on devices D asks the communicator for its owners: one that exchanges slices of their memory, which
/// the ranks then own together.
template <class C, class D>
inline constexpr bool is_collective = !std::same_as<C, comm::single> && CollectiveCommunicator<C, D>;

/// Whether the communicator exchanges slices; one that holds another says so at run time.
template <class C>
bool exchanges(C const& communicator) {
  if constexpr (requires {
                  { communicator.exchanges() } -> std::convertible_to<bool>;
                }) {
    return communicator.exchanges();
  } else {
    return true;
  }
}

/// Whether the communicator moves memory of several devices D per rank: any memory of the host is the same to it.
template <Device D, class C>
bool moves_memory_of_each_device(C const& communicator) {
  if constexpr (requires {
                  { communicator.moves_memory_of_each_device() } -> std::convertible_to<bool>;
                }) {
    return communicator.moves_memory_of_each_device();
  } else {
    return HostDevice<D> || MovesMemoryOfEachDevice<C, D>;
  }
}

/// The owners of a store with `devices` devices D in each process. Independent ranks own all slices of their own stores.
/// @throws invalid_argument unless 0 <= rank < size; for several ranks that are not independent and cannot exchange slices,
/// or not those of as many devices
template <Device D, Communicator C>
topology owners_of(C const& communicator, std::size_t devices) {
  int const rank = communicator.rank(), size = communicator.size();
  expects<invalid_argument>(rank >= 0 && rank < size, [&] {
    return "kv_store: a communicator's rank is at least 0 and below its size, got rank " + std::to_string(rank) +
           " of " + std::to_string(size);
  });
  if (size == 1 || has_independent_ranks(communicator)) return topology(devices);
  if constexpr (is_collective<C, D>)
    if (exchanges(communicator)) {
      expects<invalid_argument>(devices == 1 || moves_memory_of_each_device<D>(communicator), [&] {
        return "kv_store: the communicator moves memory of one device per rank, the store has " +
               std::to_string(devices) + " devices";
      });
      return topology(static_cast<std::size_t>(rank), static_cast<std::size_t>(size), devices);
    }
  throw invalid_argument(
      "kv_store: the communicator says rank " + std::to_string(rank) + " of " + std::to_string(size) +
      " and cannot exchange slices of these devices' memory, so each rank would train alone; if that "
      "is meant, give it a member ranks_are_independent() that returns true");
}

}  // namespace pushpull::detail
