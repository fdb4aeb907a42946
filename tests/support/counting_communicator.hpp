/// @file
/// Ranks that are threads and count their calls to other ranks.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>

#include <pushpull/comm/threads.hpp>

namespace pushpull::test {

/// Counts the calls of one rank that exchange, gather, add up or wait for arrivals. Copies share the count.
class counting_communicator : public comm::threads {
 public:
  explicit counting_communicator(comm::threads const& rank) : comm::threads(rank) {}

  long calls() const { return *calls_; }
  /// Bytes of the messages of `exchange` to other ranks.
  std::size_t bytes() const { return *bytes_; }

  request exchange(group_type& group, std::span<comm::transfer const> out, std::span<comm::transfer const> in) const {
    ++*calls_;
    for (comm::transfer const& t : out) *bytes_ += t.bytes;
    return comm::threads::exchange(group, out, in);
  }
  request gather(group_type& group, void* whole, std::span<comm::byte_range const> of_rank) const {
    ++*calls_;
    return comm::threads::gather(group, whole, of_rank);
  }
  request sum(group_type& group, double* numbers, std::size_t count) const {
    ++*calls_;
    return comm::threads::sum(group, numbers, count);
  }
  request arrive(group_type& group) const {
    ++*calls_;
    return comm::threads::arrive(group);
  }

 private:
  std::shared_ptr<std::atomic<long>> calls_ = std::make_shared<std::atomic<long>>(0);
  std::shared_ptr<std::atomic<std::size_t>> bytes_ = std::make_shared<std::atomic<std::size_t>>(0);
};

}  // namespace pushpull::test
