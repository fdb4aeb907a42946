/// @file
/// A function of the user's that sees each operation, pass and transfer begin and end.
#pragma once

#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/profile/statistics.hpp>

namespace pushpull::inline PUSHPULL_ABI::profile {

/// The kind of an activity.
enum class activity {
  operation,  ///< The work of a call, or a stage of it: where it waits for messages, its thread is free.
  pass,       ///< One loop over elements on one device. On a GPU its launch, which does not wait for the loop.
  copy,       ///< Between devices that do not reach each other's memory.
  message     ///< To and from other ranks. Begins and ends on different threads, while others run.
};

/// Whether an activity begins or ends.
enum class phase { begin, end };

/// The beginning or the end of an activity. The texts are valid during the call.
struct event {
  activity what;
  profile::phase phase;
  std::string_view name;  ///< "push", "pull", "update", ...; "pass", "pre_reduce", "rows", "encode"; "copy"; "exchange"
  std::string_view keys;  ///< Of an operation: "fc1.weight, fc1.bias, fc2.weight and 3 more".
  std::int64_t bytes = 0;    ///< That a pass, copy or message moves. 0 for operations: their passes say it.
  int device = -1;           ///< The device's id; -1 for operations and messages.
  std::uint64_t number = 0;  ///< Of a message: the same at its begin and its end, and unlike those of others under way.
};

namespace detail {

struct hook {
  void* function;
  void (*call)(void*, event const&) noexcept;

  void operator()(event const& e) const noexcept { call(function, e); }
};

inline constinit std::atomic<hook const*> installed_hook{nullptr};

/// The one that is called at present, or null: all that a store without a trace asks.
inline hook const* current_hook() noexcept { return installed_hook.load(std::memory_order_acquire); }

}  // namespace detail

/// Calls f(event) at the begin and the end of the activities of all stores of the process, from the threads that run them.
/// One at a time; a second one takes the place of the first until it ends, which it does before the first. Made and ended while no store has work: after
/// `store.wait()`. f is called by several threads at once, and must not throw or call a store. Activities of one thread
/// are nested, but for messages.
/// Cost without one: a load and a branch per operation, pass and transfer.
template <class F>
class tracing {
 public:
  tracing()
    requires std::default_initializable<F>
      : tracing(F()) {}
  explicit tracing(F f)
      : function_(std::move(f)),
        hook_{&function_, [](void* function, event const& e) noexcept { (*static_cast<F*>(function))(e); }} {
    before_ = detail::installed_hook.exchange(&hook_);
  }
  tracing(tracing const&) = delete;
  tracing& operator=(tracing const&) = delete;
  ~tracing() {
    detail::hook const* own = &hook_;
    detail::installed_hook.compare_exchange_strong(own, before_);
  }

  /// The function.
  F& function() noexcept { return function_; }

 private:
  F function_;
  detail::hook hook_;
  detail::hook const* before_ = nullptr;
};

namespace detail {

/// The keys of an operation in few words.
class key_list {
 public:
  void add(std::string_view key) {
    if (++count_ > shown) return;
    if (count_ > 1) text_ += ", ";
    text_ += key;
  }
  void add(std::int64_t key) { add(std::string_view(count_ < shown ? std::to_string(key) : std::string())); }
  template <class Key>
  void add(Key const& key)
    requires(!std::convertible_to<Key const&, std::string_view> && !std::convertible_to<Key const&, std::int64_t>)
  {
    key.visit([this](auto const& k) { this->add(k); });
  }
  std::string text() && {
    if (count_ > shown) text_ += " and " + std::to_string(count_ - shown) + " more";
    return std::move(text_);
  }

 private:
  static constexpr int shown = 3;
  std::string text_;
  std::int64_t count_ = 0;
};

/// An activity of this thread, if there is a hook.
class span {
 public:
  span(hook const* h, event const& e) noexcept : hook_(h), event_(e) {
    if (hook_ != nullptr) (*hook_)(event_);
  }
  span(span const&) = delete;
  span& operator=(span const&) = delete;
  ~span() {
    if (hook_ == nullptr) return;
    event_.phase = phase::end;
    (*hook_)(event_);
  }

 private:
  hook const* hook_;
  event event_;
};

/// A loop over elements that this thread launches.
class pass_span {
 public:
  pass_span(char const* name, int device, std::int64_t bytes) noexcept
      : span_(current_hook(), {activity::pass, phase::begin, name, {}, bytes, device}) {
    if (current_tally == nullptr) return;
    ++current_tally->launches;
    current_tally->bytes += bytes;
  }

 private:
  span span_;
};

/// A copy that this thread enqueues.
class copy_span {
 public:
  copy_span(int device, std::size_t bytes) noexcept
      : span_(current_hook(), {activity::copy, phase::begin, "copy", {}, static_cast<std::int64_t>(bytes), device}) {
    if (current_tally == nullptr) return;
    ++current_tally->copies;
    current_tally->copied_bytes += static_cast<std::int64_t>(bytes);
  }

 private:
  span span_;
};

/// Messages that are under way from `begin` to `end`.
class message_span {
 public:
  void begin(char const* name, std::int64_t bytes) noexcept {
    hook_ = current_hook();
    if (hook_ == nullptr) return;
    event_ = {activity::message, phase::begin, name, {}, bytes, -1, last_number.fetch_add(1) + 1};
    (*hook_)(event_);
  }
  void end() noexcept {
    if (hook_ == nullptr) return;
    event_.phase = phase::end;
    (*std::exchange(hook_, nullptr))(event_);
  }

 private:
  static inline std::atomic<std::uint64_t> last_number{0};
  hook const* hook_ = nullptr;
  event event_{};
};

}  // namespace detail
}  // namespace pushpull::profile
