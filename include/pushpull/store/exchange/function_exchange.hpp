/// @file
/// The messages around a function that rank 0 calls for all ranks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The text of an exception. @param thrown  Not null.
inline std::string text_of(std::exception_ptr const& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (std::exception const& e) {
    return e.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

/// Brings masters to rank 0, and word to the other ranks of how the function ended. Each `start` is to be waited for.
template <class Table>
class function_exchange {
  using W = typename Table::W;
  using D = typename Table::device_type;
  using record = typename Table::record;

 public:
  /// The other ranks' masters, for rank 0.
  /// @param for_each_key  for_each_key(f) calls f(record). @param whole  whole(record): memory of rank 0 for the key's masters.
  template <class ForEachKey, class Whole>
  awaited& start_masters(Table const& table, ForEachKey const& for_each_key, Whole const& whole) {
    messages& to = begin(masters_, [&] { return table.ranks().make_messages(); });
    bool const collects = table.owners().rank() == 0;
    if (received_.empty()) received_ = make_staging<D>(table.staged());
    for (auto& memory : received_) memory.clear();
    copies_.clear();
    for_each_key([&](record& r) {
      for_each_owner(
          table, r,
          [&](auto const& shard) {
            if (!collects) to.send(shard.master(), bytes(shard.size()), 0, moving_device<D>(shard.device_number()));
          },
          [&](distant_part const& part) {
            if (!collects) return;
            std::size_t const device = moving_device<D>(part.device);
            W* memory = whole(r) + part.offset;
            if (device != 0) {  // it comes to the device of the owner's number
              void* const received = received_[device].take(table.devices()[device], bytes(part.size));
              copies_.push_back({0, memory, received, bytes(part.size)});
              memory = static_cast<W*>(received);
            }
            to.receive(memory, bytes(part.size), static_cast<int>(part.rank), device);
          });
    });
    to.start_exchange();
    return to;
  }
  /// When they have come.
  void finish_masters(Table const& table) const { copy_before(table.devices(), copies_); }

  /// @param thrown  By the function, on rank 0; null if it has returned.
  awaited& start_outcome(Table const& table, std::exception_ptr thrown) {
    messages& to = begin(outcomes_, [&] { return table.ranks().make_host_messages(); });
    thrown_ = std::move(thrown);
    if (table.owners().rank() != 0) {
      to.receive(&outcome_, sizeof(outcome_), 0);
    } else {
      outcome_ = {};
      if (thrown_ != nullptr) {
        std::string const text = text_of(thrown_);
        outcome_.failed = 1;
        std::copy_n(text.begin(), std::min(text.size(), outcome_.text.size()), outcome_.text.begin());
      }
      for (std::size_t rank = 1; rank < table.owners().ranks(); ++rank)
        to.send(&outcome_, sizeof(outcome_), static_cast<int>(rank));
    }
    to.start_exchange();
    return to;
  }
  /// @throws what the function has thrown; on other ranks error with the same text
  void expect_success() {
    if (thrown_ != nullptr) std::rethrow_exception(std::exchange(thrown_, nullptr));
    if (outcome_.failed == 0) return;
    auto const end = std::find(outcome_.text.begin(), outcome_.text.end(), '\0');
    throw error("set_updater: the function failed on rank 0: " + std::string(outcome_.text.begin(), end));
  }

 private:
  /// Of one size, so that no rank has to ask for it.
  struct outcome {
    std::uint64_t failed = 0;
    std::array<char, 1016> text = {};  // filled up with zeros, or cut
  };

  static std::size_t bytes(std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(W); }
  template <class Make>
  static messages& begin(std::unique_ptr<messages>& kept, Make const& make) {
    if (kept == nullptr) kept = make();
    kept->clear();
    return *kept;
  }

  std::unique_ptr<messages> masters_, outcomes_;
  std::vector<staging<D>> received_;  // on each device
  std::vector<staged_copy> copies_;   // from there
  outcome outcome_;
  std::exception_ptr thrown_;
};

}  // namespace pushpull::detail
