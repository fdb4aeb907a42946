/// @file
/// Operations that are used again and again.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Operations of one type, used again and again: in the steady state nothing is allocated.
template <class Operation>
class operation_pool : public std::enable_shared_from_this<operation_pool<Operation>> {
 public:
  /// An operation with one reference, made by `make()` if none is free.
  template <class Make>
  Operation& take(Make const& make) {
    Operation* op = nullptr;
    {
      std::lock_guard const lock(mutex_);
      if (free_.empty()) {
        // Giving back never allocates.
        if (free_.capacity() <= all_.size()) free_.reserve(2 * (all_.size() + 1));
        all_.push_back(make());
        free_.push_back(all_.back().get());
      }
      op = free_.back();
      free_.pop_back();
    }
    op->home = this->shared_from_this();
    op->acquire();
    return *op;
  }

  /// The operation may end with this call, where the pool's owner is gone.
  static void give_back(Operation& op) noexcept {
    auto const home = std::move(op.home);
    std::lock_guard const lock(home->mutex_);
    home->free_.push_back(&op);
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Operation>> all_;
  std::vector<Operation*> free_;
};

}  // namespace pushpull::detail
