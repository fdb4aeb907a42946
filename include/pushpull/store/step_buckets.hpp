/// @file
/// A step over a model in parts, which begin as soon as their gradients are complete.
#pragma once

#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The keys of a step in buckets: the last keys first, because a backward pass completes their gradients first. A bucket
/// begins once all of its gradients are complete and all earlier buckets have begun, so that all ranks of a store begin them
/// in one order.
/// @tparam S  A ResidentStore with start(plan) and finish(plan).
template <class S>
class step_buckets {
 public:
  explicit step_buckets(S& store) : store_(&store) {}
  step_buckets(step_buckets const&) = delete;
  step_buckets& operator=(step_buckets const&) = delete;
  ~step_buckets() {
    try {
      finish();
    } catch (...) {  // nobody asked any more
    }
  }

  bool empty() const { return buckets_.empty(); }
  /// Whether any part of a step has begun, or a gradient is complete.
  bool is_under_way() const { return complete_ > 0; }

  /// @param bytes  Of one key's gradient each. @param limit  Bytes of a bucket, which ends with the key that exceeds them.
  void make(std::span<std::string const> keys, std::span<std::size_t const> bytes, std::size_t limit) {
    clear();
    std::vector<std::string> names;
    std::size_t sum = 0;
    for (std::size_t i = keys.size(); i-- > 0;) {
      names.push_back(keys[i]);
      sum += bytes[i];
      if (S::steps_in_parts && sum < limit && i > 0) continue;
      if (!S::steps_in_parts && i > 0) continue;
      for (std::string const& name : names) bucket_of_[name] = {buckets_.size(), false};
      buckets_.push_back({store_->make_plan(std::span<typename S::key_type const>(names)), names.size()});
      names.clear();
      sum = 0;
    }
  }
  /// Finishes what has begun, and forgets all buckets.
  void clear() {
    finish();
    buckets_.clear();
    bucket_of_.clear();
  }

  /// The key's gradient is complete. @throws invalid_argument if it was before, since the last step ended
  void ready(std::string const& key) {
    auto const found = bucket_of_.find(key);
    if (found == bucket_of_.end()) return;
    if (begun_ == buckets_.size()) finish();  // the next step begins
    expects<invalid_argument>(!found->second.is_complete, [&] {
      return "parameter_store: ready was called twice for parameter \"" + key + "\" in one step";
    });
    found->second.is_complete = true;
    ++complete_;
    --buckets_[found->second.number].missing;
    while (begun_ < buckets_.size() && buckets_[begun_].missing == 0) store_->start(buckets_[begun_++].plan);
  }
  /// Returns when the step that has begun for the key, if one has, is done.
  void wait(std::string const& key) {
    auto const found = bucket_of_.find(key);
    if (found != bucket_of_.end() && found->second.number < begun_) finish(buckets_[found->second.number]);
  }
  /// Begins the step of the keys that have not begun, and returns when all is done.
  void update() {
    while (begun_ < buckets_.size()) store_->start(buckets_[begun_++].plan);
    finish();
  }

 private:
  struct bucket {
    typename S::plan_type plan;
    std::size_t size;
    std::size_t missing = size;  ///< Gradients that are not complete.
    bool is_done = false;
  };
  struct place {
    std::size_t number;
    bool is_complete;
  };

  void finish(bucket& b) {
    if (std::exchange(b.is_done, true)) return;
    store_->finish(b.plan);
  }
  /// Waits for all that has begun; all gradients are to come again.
  void finish() {
    std::exception_ptr first;
    for (std::size_t i = 0; i < begun_; ++i) try {
        finish(buckets_[i]);
      } catch (...) {
        if (first == nullptr) first = std::current_exception();
      }
    for (bucket& b : buckets_) {
      b.missing = b.size;
      b.is_done = false;
    }
    for (auto& [name, where] : bucket_of_) where.is_complete = false;
    begun_ = complete_ = 0;
    if (first != nullptr) std::rethrow_exception(first);
  }

  S* store_;
  std::vector<bucket> buckets_;
  std::unordered_map<std::string, place> bucket_of_;
  std::size_t begun_ = 0;     // buckets, the first ones
  std::size_t complete_ = 0;  // gradients
};

}  // namespace pushpull::detail
