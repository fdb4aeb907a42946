/// @file
/// The handle of a call's work, and its priority.
#pragma once

#include <algorithm>
#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/schedule/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// A call's work, which may be under way. Copies speak of the same work; it may outlive the store. One handle is used
/// by one thread at a time.
class completion {
 public:
  /// Of nothing: ready.
  completion() = default;
  /// Takes over a reference. For stores.
  explicit completion(detail::operation& op) noexcept : operation_(&op) {}
  /// Of several works: ready when all are.
  explicit completion(std::vector<completion> all)
      : all_(std::make_shared<std::vector<completion> const>(std::move(all))) {}
  completion(completion const& other) noexcept : operation_(other.operation_), all_(other.all_) {
    if (operation_ != nullptr) operation_->acquire();
  }
  completion(completion&& other) noexcept
      : operation_(std::exchange(other.operation_, nullptr)), all_(std::move(other.all_)) {}
  completion& operator=(completion other) noexcept {
    std::swap(operation_, other.operation_);
    std::swap(all_, other.all_);
    return *this;
  }
  ~completion() {
    if (operation_ != nullptr) operation_->release();
  }

  /// Whether the work is finished, with success or not. Never blocks. @throws cuda_error
  bool ready() const {
    if (all_ != nullptr) return std::all_of(all_->begin(), all_->end(), [](completion const& c) { return c.ready(); });
    return operation_ == nullptr || (operation_->done() && operation_->devices_ready());
  }

  /// Returns when the work is finished, of several all of it; meanwhile this thread may run such work.
  /// @throws what it failed with, of several the first, as often as it is asked
  void wait() const {
    if (all_ != nullptr) {
      std::exception_ptr first;
      for (completion const& c : *all_) {
        try {
          c.wait();
        } catch (...) {
          if (first == nullptr) first = std::current_exception();
        }
      }
      if (first != nullptr) std::rethrow_exception(first);
    }
    if (operation_ == nullptr) return;
    if (!operation_->done()) operation_->owner_->finish(*operation_);
    if (detail::failure* const failed = operation_->failed()) {
      failed->told = true;
      std::rethrow_exception(failed->error);
    }
    operation_->devices_wait();
  }

 private:
  detail::operation* operation_ = nullptr;
  std::shared_ptr<std::vector<completion> const> all_;
};

/// Among work that could run, that of the highest priority runs first. Never changes a result. A GPU's stream runs what it
/// is given in order.
struct priority {
  int value = 0;
};

}  // namespace pushpull
