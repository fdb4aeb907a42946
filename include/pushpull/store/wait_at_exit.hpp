/// @file
/// Waiting for a store's work before what its calls borrow ends.
#pragma once

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Waits for a store's work when its block ends, by an exception too: declared behind tensors that calls borrow, it ends
/// before them.
///
///     kv_store store{devices, rule};
///     std::vector<float> weight(n), gradient(n);  // end before the store
///     wait_at_exit const finished{store};         // ends before them
///
/// Needed only where the store is declared before the tensors, or belongs to somebody else: a store that is declared behind
/// the tensors finishes its work when it ends. Errors of the work stay for the store's next wait.
/// @tparam S  A Store, borrowed. One that has no `drain` is waited for, and an error that this tells is lost.
template <class S>
class [[nodiscard]] wait_at_exit {
 public:
  explicit wait_at_exit(S& store) noexcept : store_(store) {}
  wait_at_exit(wait_at_exit const&) = delete;
  wait_at_exit& operator=(wait_at_exit const&) = delete;
  ~wait_at_exit() {
    try {
      if constexpr (requires { store_.drain(); }) {
        store_.drain();
      } else {
        store_.wait();
      }
    } catch (...) {  // a device broke down, and there is nobody to tell
    }
  }

 private:
  S& store_;
};

}  // namespace pushpull
