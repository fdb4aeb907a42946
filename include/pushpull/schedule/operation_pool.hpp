/// @file
/// Operations that are used again and again.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

class operation_pool;

/// An operation that returns to its pool when nobody refers to it any more; one without a pool ends.
class pooled_operation : public operation {
 protected:
  /// Gives up what it was given for its last use.
  virtual void forget() noexcept {}

 private:
  friend operation_pool;
  inline void recycle() noexcept override;

  std::shared_ptr<operation_pool> home_;
};

/// Operations of one type, used again and again: in the steady state nothing is allocated. The type is named where an
/// operation is taken, so that a store compiles no operations that nobody asks for.
class operation_pool : public std::enable_shared_from_this<operation_pool> {
 public:
  /// An operation with one reference, made by `make()` if none is free. `make` gives the same type in each call.
  template <class Make>
  auto& take(Make const& make) {
    using operation_type = typename decltype(make())::element_type;
    return static_cast<operation_type&>(take(&make, [](void const* function) -> std::unique_ptr<pooled_operation> {
      return (*static_cast<Make const*>(function))();
    }));
  }

  /// The operation may end with this call, if the pool's owner is gone.
  static void give_back(pooled_operation& op) noexcept {
    auto const home = std::move(op.home_);
    std::lock_guard const lock(home->mutex_);
    home->free_.push_back(&op);
  }

 private:
  /// Compiled once for all types of operations.
  pooled_operation& take(void const* make, std::unique_ptr<pooled_operation> (*call)(void const*)) {
    pooled_operation* op = nullptr;
    {
      std::lock_guard const lock(mutex_);
      if (free_.empty()) {
        // Giving back never allocates.
        if (free_.capacity() <= all_.size()) free_.reserve(2 * (all_.size() + 1));
        all_.push_back(call(make));
        free_.push_back(all_.back().get());
      }
      op = free_.back();
      free_.pop_back();
    }
    op->home_ = this->shared_from_this();
    op->acquire();
    return *op;
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<pooled_operation>> all_;
  std::vector<pooled_operation*> free_;
};

inline void pooled_operation::recycle() noexcept {
  forget();
  if (home_ != nullptr) {
    operation_pool::give_back(*this);
  } else {
    delete this;
  }
}

}  // namespace pushpull::detail
