/// @file
/// The messages of one operation, whatever the communicator.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/schedule/awaited.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The messages of one operation, in the parts in which it waits for them. Kept from call to call: in the steady state the
/// lists allocate nothing.
class messages : public awaited {
 public:
  virtual ~messages() = default;

  void clear() {
    out_.clear();
    in_.clear();
    gathers_.clear();
    ranges_.clear();
    results_out_.clear();
    results_in_.clear();
    reductions_.clear();
  }

  /// Bytes for a rank, which are read once `start_exchange` has been called.
  /// @param device  The number of the device that has the memory, at both ends: see moving_device.
  void send(void const* memory, std::size_t bytes, int peer, std::size_t device = 0) {
    if (bytes > 0) out_.push_back({const_cast<void*>(memory), bytes, peer, device});
  }
  /// Bytes from a rank. Those between two ranks come in the order in which they are sent.
  void receive(void* memory, std::size_t bytes, int peer, std::size_t device = 0) {
    if (bytes > 0) in_.push_back({memory, bytes, peer, device});
  }
  /// An array of which each rank has a range of bytes, the same on all ranks; `of_rank` is copied.
  void gather(void* whole, std::span<comm::byte_range const> of_rank, std::size_t device = 0) {
    gathers_.push_back({whole, ranges_.size(), device});
    ranges_.insert(ranges_.end(), of_rank.begin(), of_rank.end());
  }

  /// With the bytes that `start_exchange` moves: an array of numbers on each rank, of which this rank gets the sum, over the
  /// ranks, of the elements in its range of bytes; `of_rank` is copied.
  void reduce(void const* whole, std::span<comm::byte_range const> of_rank, void* sum, comm::number_type type,
              std::size_t device = 0) {
    reductions_.push_back({whole, sum, ranges_.size(), type, device});
    ranges_.insert(ranges_.end(), of_rank.begin(), of_rank.end());
  }

  /// Same as send and receive, of what `start_gathers` moves.
  void send_result(void const* memory, std::size_t bytes, int peer) {
    if (bytes > 0) results_out_.push_back({const_cast<void*>(memory), bytes, peer});
  }
  void receive_result(void* memory, std::size_t bytes, int peer) {
    if (bytes > 0) results_in_.push_back({memory, bytes, peer});
  }

  /// Each starts calls, for which the operation then waits. Where ranks reach each other's memory, the first waits for
  /// all ranks of the node to be in the operation; the second too, unless there are several nodes.
  virtual void start_exchange() = 0;
  virtual void start_gathers() = 0;
  /// Until all ranks of the node have called it.
  virtual void start_arrival() = 0;
  virtual void start_sum(std::span<double> numbers) = 0;

 protected:
  struct gathered_array {
    void* whole;
    std::size_t first;  // its ranges
    std::size_t device;
  };

  struct reduced_array {
    void const* whole;
    void* sum;
    std::size_t first;  // its ranges
    comm::number_type type;
    std::size_t device;
  };

  std::span<comm::byte_range const> ranges(std::size_t first, std::size_t ranks) const {
    return std::span(ranges_).subspan(first, ranks);
  }

  std::vector<comm::transfer> out_, in_, results_out_, results_in_;
  std::vector<gathered_array> gathers_;
  std::vector<reduced_array> reductions_;
  std::vector<comm::byte_range> ranges_;
};

/// Which device's messages move memory of device number n of a store on devices D: its own, but of the host all is one.
template <Device D>
constexpr std::size_t moving_device([[maybe_unused]] std::size_t n) {
  return HostDevice<D> ? 0 : n;
}

}  // namespace pushpull::detail
