/// @file
/// The user's code before a pass, which may throw on a host.
#pragma once

#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/factored.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass::detail {

/// Whether a step on `D` can end before its pass, because a rule's `prepare` throws or its `transform` fails: on a host, where
/// `prepare` is the user's.
template <Device D, class Rule, class A>
inline constexpr bool may_fail =
    HostDevice<D> && (!pushpull::detail::prepares_noexcept<Rule, A> || pushpull::detail::keeps_matrices<Rule>);

/// The error of the first of many calls: `for_each` of a device need not know exceptions.
class first_error {
 public:
  void keep(std::int64_t i) noexcept {
    std::lock_guard const lock(mutex_);
    if (i >= at_) return;
    at_ = i;
    error_ = std::current_exception();
  }
  void tell() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::int64_t at_ = std::numeric_limits<std::int64_t>::max();
  std::exception_ptr error_;
};

template <class F>
struct caught {
  F const& f;
  first_error& error;

  void operator()(std::int64_t i) const noexcept {
    try {
      f(i);
    } catch (...) {
      error.keep(i);
    }
  }
};

/// f(0), ..., f(n - 1) on the device. @tparam MayThrow  Then the error of the smallest i is thrown when all have been called.
template <bool MayThrow, Device D, class F>
void for_each_step(D const& device, std::int64_t n, F const& f) {
  if constexpr (MayThrow) {
    first_error error;
    device.for_each(n, caught<F>{f, error});
    error.tell();
  } else {
    device.for_each(n, f);
  }
}

}  // namespace pushpull::pass::detail

namespace pushpull::inline PUSHPULL_ABI::pass {

using detail::for_each_step;
using detail::may_fail;

}  // namespace pushpull::pass
