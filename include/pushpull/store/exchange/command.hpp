/// @file
/// Commands: a text of rank 0's that a handler of the caller's gets on all ranks.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/exchange/function_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Is given commands: a number that says which, and a text.
using command_handler = std::function<void(std::int64_t head, std::string_view body)>;

namespace detail {

/// A store's handler.
class command_slot {
 public:
  void set(command_handler handler) {
    std::shared_ptr<command_handler const> shared;
    if (handler) shared = std::make_shared<command_handler const>(std::move(handler));
    std::lock_guard const lock(mutex_);
    handler_.swap(shared);  // the old one may end with the lock released
  }

  /// Gives the handler a command, if there is one. Over ranks all make the call; rank 0's arguments count. Returns when the
  /// handlers of all ranks have returned.
  /// @param ranks  Null if there is one. @throws what the handler throws; on other ranks error, with the same text;
  /// comm_error if an earlier call has failed
  void run(rank_group* ranks, std::int64_t head, std::string_view body) const {
    std::string text(body);
    if (ranks != nullptr) {
      ranks->expect_in_step("command");
      std::array<std::int64_t, 2> numbers{head, static_cast<std::int64_t>(body.size())};
      ranks->broadcast(std::as_writable_bytes(std::span(numbers)));
      head = numbers[0];
      text.resize(static_cast<std::size_t>(numbers[1]));
      ranks->broadcast(std::as_writable_bytes(std::span(text)));
    }
    std::exception_ptr thrown;
    try {
      if (auto const handler = this->handler()) (*handler)(head, text);
    } catch (comm_error const&) {
      throw;
    } catch (...) {
      thrown = std::current_exception();
    }
    if (ranks != nullptr) expect_success(*ranks, head, thrown);
    if (thrown) std::rethrow_exception(thrown);
  }

 private:
  std::shared_ptr<command_handler const> handler() const {
    std::lock_guard const lock(mutex_);
    return handler_;
  }

  static void expect_success(rank_group& ranks, std::int64_t head, std::exception_ptr const& thrown) {
    std::string const own = thrown ? "1" + text_of(thrown) : "";  // never empty
    auto const all = ranks.gather_all(std::as_bytes(std::span(own)));
    if (thrown) return;
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      expects<error>(all[rank].empty(), [&] {
        return "command " + std::to_string(head) + ": the handler failed on rank " + std::to_string(rank) + ": " +
               std::string(reinterpret_cast<char const*>(all[rank].data()) + 1, all[rank].size() - 1);
      });
  }

  mutable std::mutex mutex_;
  std::shared_ptr<command_handler const> handler_;
};

}  // namespace detail
}  // namespace pushpull
