/// @file
/// A step over resident keys that its owner keeps.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/operations/model_step.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A model_step that is made once for given keys and can be moved.
template <class Types>
class step_plan {
 public:
  /// @throws as model_step
  step_plan(store_contents<Types>& contents, std::vector<typename Types::record*> keys)
      : step_(std::make_unique<model_step<Types>>(contents, std::move(keys))) {}

  /// Keys that it updates.
  std::size_t size() const { return step_->size(); }
  template <class F>
  void for_each_key(F const& f) const {
    step_->for_each_key(f);
  }
  model_step<Types>& step() const { return *step_; }

 private:
  std::unique_ptr<model_step<Types>> step_;
};

}  // namespace pushpull::detail
