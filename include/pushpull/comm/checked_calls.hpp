/// @file
/// The calls of a checked communicator that ranks compare before they make them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/comm/any_request.hpp>
#include <pushpull/comm/call_record.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A call with a group, from its description to its request.
template <class C>
struct checked_call {
  call_record record;
  std::function<comm::any_request(typename C::group_type&)> start;
  bool ended = false, started = false;
  comm::any_request request;
};

/// The calls of a group, which every rank describes to all others before it makes them.
template <class C>
class checked_group {
 public:
  std::vector<std::shared_ptr<checked_call<C>>> calls;

  void describe(C const& c) {
    for (auto const& call : calls) append(words_, call->record);
    rank_ = static_cast<std::size_t>(c.rank());
    gather(c, std::vector<std::size_t>(static_cast<std::size_t>(c.size()), 1), {words_.size()});
  }
  /// The calls of all ranks, when they are known.
  std::optional<std::vector<std::vector<call_record>>> described(C const& c) {
    if (!request_.ready()) return {};
    if (!sizes_known_) {
      sizes_known_ = true;
      gather(c, std::vector<std::size_t>(gathered_.begin(), gathered_.end()), words_);
      if (!request_.ready()) return {};
    }
    std::vector<std::vector<call_record>> all;
    for (comm::byte_range const range : ranges_)
      all.push_back(read_calls(
          std::span(gathered_).subspan(range.begin / sizeof(std::uint64_t), range.size() / sizeof(std::uint64_t))));
    return all;
  }
  void start(C const& c) {
    auto group = c.group();
    for (auto const& call : calls) call->request = call->start(group);
    group.end();
    for (auto const& call : calls) call->started = true;
  }

 private:
  /// Starts to gather `count_of` words of each rank, of which this one has `mine`.
  void gather(C const& c, std::vector<std::size_t> const& count_of, std::vector<std::uint64_t> const& mine) {
    ranges_.clear();
    std::size_t end = 0;
    for (std::size_t const count : count_of) {
      std::size_t const begin = std::exchange(end, end + count * sizeof(std::uint64_t));
      ranges_.push_back({begin, end});
    }
    gathered_.assign(end / sizeof(std::uint64_t), 0);
    std::ranges::copy(mine, &gathered_[ranges_[rank_].begin / sizeof(std::uint64_t)]);
    auto group = c.group();
    request_ = c.gather(group, gathered_.data(), ranges_);
    group.end();
  }

  std::vector<std::uint64_t> words_;
  std::vector<std::uint64_t> gathered_;
  std::vector<comm::byte_range> ranges_;
  std::size_t rank_ = 0;
  bool sizes_known_ = false;
  comm::any_request request_;
};

/// The state that copies of a checked communicator share.
template <class C>
class checked_calls {
 public:
  explicit checked_calls(C communicator)
      : inner(std::move(communicator)),
        with_group_(inner.size(), "with a group"),
        without_group_(inner.size(), "without a group") {}

  C const inner;

  void end(checked_group<C>& group) {
    std::scoped_lock const held(mutex_);
    throw_if_failed();
    for (auto const& call : group.calls) call->ended = true;
    groups_.push_back(std::move(group));
    groups_.back().describe(inner);
  }
  /// Whether the communicator has started the call.
  bool started(checked_call<C> const& call) {
    std::scoped_lock const held(mutex_);
    if (call.started) return true;
    throw_if_failed();
    if (!call.ended) fail(inner.rank(), "a request of " + call.record.text() + " was asked before its group ended");
    while (!groups_.empty()) {
      auto const all = groups_.front().described(inner);
      if (!all) break;
      check(with_group_.compare(*all));
      try {
        groups_.front().start(inner);
      } catch (std::exception const& e) {
        failure_ = {inner.rank(), e.what()};
        inner.fail(e.what());
        throw;
      }
      groups_.pop_front();
    }
    return call.started;
  }
  void drop(checked_call<C>& call) noexcept {
    std::scoped_lock const held(mutex_);
    if (!call.started && failure_.text.empty()) {
      failure_ = {inner.rank(), "a request was dropped before it was ready"};
      inner.fail(failure_.text);
    }
    call.request = {};
  }
  /// Before a call without a group.
  void compare(call_record const& call) {
    std::vector<std::uint64_t> words;
    append(words, call);
    std::vector<std::vector<call_record>> all;
    for (auto const& bytes : inner.gather_all(std::as_bytes(std::span(words)))) {
      words.resize(bytes.size() / sizeof(std::uint64_t));
      std::memcpy(words.data(), bytes.data(), bytes.size());
      all.push_back(read_calls(words));
    }
    auto const difference = without_group_.compare(all);
    std::scoped_lock const held(mutex_);
    throw_if_failed();
    check(difference);
  }

 private:
  void check(call_comparison::difference const& difference) {
    if (!difference.text.empty()) fail(difference.rank, difference.text);
  }
  [[noreturn]] void fail(int rank, std::string const& text) {
    failure_ = {rank, text};
    inner.fail(text);
    throw_failure();
  }
  void throw_if_failed() const {
    if (!failure_.text.empty()) throw_failure();
  }
  [[noreturn]] void throw_failure() const {
    throw comm_error(failure_.rank, "comm::checked on rank " + std::to_string(inner.rank()) + ": " + failure_.text);
  }

  std::mutex mutex_;
  std::deque<checked_group<C>> groups_;  // not started, in their order
  call_comparison with_group_, without_group_;
  call_comparison::difference failure_;
};

}  // namespace pushpull::detail
