/// @file
/// Allocations that fail: every one of a call in turn, and what the object must hold after each.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace pushpull::test::faults {

/// The program's operator new and devices ask here before each allocation. @throws std::bad_alloc if it shall fail
void point();

/// What a call is made on. A new one is made for every point.
class subject {
 public:
  virtual ~subject() = default;
  /// Returns when all work is finished. @throws what work failed with
  virtual void wait() {}
  /// All that can be seen of it: weights, states, counts.
  virtual std::vector<double> held() = 0;
  /// Further steps, which need all that cannot be seen.
  virtual void work_on() = 0;
};

using maker = std::function<std::unique_ptr<subject>()>;
using action = std::function<void(subject&)>;

/// Makes the call again and again, with its first allocation failing, then with its second, until none is left: once
/// each, and then with all later ones failing too. Requires that it throws std::bad_alloc or out_of_memory and leaves what
/// was held, or has its full effect; that it succeeds when it is made again; and that further steps give what they give
/// where nothing ever failed. Each call has a process of its own, so that a crash or a hang is a result.
void check_call(std::string const& kind, std::string const& name, maker const& make, action const& call);

/// Whether the environment asks for the long form: PUSHPULL_LONG_TESTS.
bool is_long();

/// The calls of one kind of subject.
template <class Subject>
class calls {
 public:
  explicit calls(std::string kind) : kind_(std::move(kind)) {}

  template <class F>
  void check(char const* name, F const& call) const {
    check_call(
        kind_, name, [] { return std::make_unique<Subject>(); },
        [call](subject& s) { call(static_cast<Subject&>(s)); });
  }

 private:
  std::string kind_;
};

}  // namespace pushpull::test::faults
