/// @file
/// A step over a model in parts, which begin as soon as their gradients are complete.
#pragma once

#include <algorithm>
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

/// How the keys of a step become buckets.
struct bucket_rule {
  std::size_t bytes = 0;     ///< Of gradients: a bucket ends with the key that reaches them.
  bool in_parts = true;      ///< False: one bucket, because the rule sums over all keys.
  bool in_one_order = true;  ///< A bucket begins when all earlier ones have begun: alike on all ranks of a store.
  bool at_once = false;      ///< A bucket's step is made in the call that completes its gradients.
  friend bool operator==(bucket_rule const&, bucket_rule const&) = default;
};

/// The keys of a step in buckets: the last keys first, because a backward pass completes their gradients first. A bucket
/// begins once all of its gradients are complete.
/// @tparam Parts  Has part_type; make_part(names) -> part_type; update(part); start(part, urgency), where 0 is the most urgent;
///                finish(part); step_in_parts(), whether no rule sums over all keys; has_ranks(), whether other processes make the
///                same steps.
template <class Parts>
class step_buckets {
 public:
  explicit step_buckets(Parts parts) : parts_(std::move(parts)) {}
  step_buckets(step_buckets const&) = delete;
  step_buckets& operator=(step_buckets const&) = delete;
  ~step_buckets() {
    try {
      end();
    } catch (...) {  // nobody asked any more
    }
  }

  /// The keys of the steps that follow. Finishes what has begun. @param bytes  Of one key's gradient each.
  void set_keys(std::vector<std::string> keys, std::vector<std::size_t> bytes) {
    forget();
    keys_ = std::move(keys);
    bytes_ = std::move(bytes);
  }
  /// Finishes what has begun. The next step makes its buckets anew.
  void forget() {
    end();
    buckets_.clear();
    bucket_of_.clear();
  }
  using parts_type = Parts;
  /// What makes parts of steps.
  Parts& parts() { return parts_; }
  /// From the next step on a bucket's part is made in the call that completes its gradients.
  void step_at_once(bool on) {
    forget();
    at_once_ = on;
  }
  /// Whether a gradient of a step is complete that has not been ended.
  bool has_begun() const { return complete_ > 0; }
  /// Whether some parts of a step have not begun and others may have.
  bool is_amid() const { return has_begun() && begun_ < buckets_.size(); }

  /// The key's gradient is complete. @param limit  Bytes of a bucket.
  /// @throws invalid_argument if it was before, since the last step ended
  void ready(std::string const& key, std::size_t limit) {
    if (!is_amid()) begin_step({limit, parts_.step_in_parts(), parts_.has_ranks(), at_once_});
    auto const found = bucket_of_.find(key);
    if (found == bucket_of_.end()) return;
    expects<invalid_argument>(!found->second.is_complete, [&] {
      return "parameter_store: ready was called twice for parameter \"" + key + "\" in one step";
    });
    found->second.is_complete = true;
    ++complete_;
    bucket& own = buckets_[found->second.number];
    --own.missing;
    if (!rule_.in_one_order && own.missing == 0) begin(own);
    while (rule_.in_one_order && begun_ < buckets_.size() && buckets_[begun_].missing == 0) begin(buckets_[begun_]);
  }
  /// Returns when the step that has begun for the key, if one has, is done. The step of all keys ends with its last bucket.
  void wait(std::string const& key) {
    auto const found = bucket_of_.find(key);
    if (found == bucket_of_.end()) return;
    bucket& own = buckets_[found->second.number];
    if (own.is != stage::under_way) return;
    bool const is_last =
        std::count_if(buckets_.begin(), buckets_.end(), [](auto const& b) { return b.is != stage::done; }) == 1;
    is_last ? end() : finish(own);
  }
  /// Begins the step of the keys that have not begun, and returns when all is done.
  void update() {
    for (bucket& b : buckets_)
      if (b.is == stage::gathers) begin(b);
    end();
  }

  /// Waits for all that has begun; all gradients are to come again.
  void end() {
    std::exception_ptr first;
    for (bucket& b : buckets_) {
      try {
        finish(b);
      } catch (...) {
        if (first == nullptr) first = std::current_exception();
      }
      b.missing = b.size;
      b.is = stage::gathers;
    }
    for (auto& [name, where] : bucket_of_) where.is_complete = false;
    begun_ = complete_ = 0;
    if (first != nullptr) std::rethrow_exception(first);
  }

 private:
  enum class stage { gathers, under_way, done };
  struct bucket {
    typename Parts::part_type part;
    std::size_t size;
    std::size_t missing = size;  ///< Gradients that are not complete.
    stage is = stage::gathers;
  };
  struct place {
    std::size_t number;
    bool is_complete;
  };

  void begin_step(bucket_rule const& rule) {
    end();
    if (!buckets_.empty() && rule == rule_) return;
    forget();
    rule_ = rule;
    std::vector<std::string> names;
    std::size_t sum = 0;
    for (std::size_t i = keys_.size(); i-- > 0;) {
      names.push_back(keys_[i]);
      sum += bytes_[i];
      if (i > 0 && (!rule.in_parts || sum < rule.bytes)) continue;
      for (std::string const& name : names) bucket_of_[name] = {buckets_.size(), false};
      buckets_.push_back({parts_.make_part(std::span<std::string const>(names)), names.size()});
      names.clear();
      sum = 0;
    }
  }

  void begin(bucket& b) {
    if (rule_.at_once) {
      parts_.update(b.part);
    } else {
      parts_.start(b.part, buckets_.size() - 1 - static_cast<std::size_t>(&b - buckets_.data()));
    }
    b.is = stage::under_way;
    ++begun_;
  }
  void finish(bucket& b) {
    if (b.is != stage::under_way) return;
    b.is = stage::done;
    if (!rule_.at_once) parts_.finish(b.part);
  }
  Parts parts_;
  std::vector<std::string> keys_;
  std::vector<std::size_t> bytes_;
  bool at_once_ = false;
  bucket_rule rule_;  // of the buckets
  std::vector<bucket> buckets_;
  std::unordered_map<std::string, place> bucket_of_;
  std::size_t begun_ = 0;     // buckets
  std::size_t complete_ = 0;  // gradients
};

}  // namespace pushpull::detail
