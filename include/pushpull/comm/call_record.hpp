/// @file
/// Descriptions of calls of a communicator, which ranks compare with each other.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The kind of a call.
enum class call_kind : std::uint64_t { exchange, gather, sum, arrive, barrier, broadcast, gather_all, allocate_shared };

inline std::string name_of(call_kind kind) {
  static constexpr std::array names{"exchange", "gather",    "sum",        "arrive",
                                    "barrier",  "broadcast", "gather_all", "allocate_shared"};
  return names[static_cast<std::size_t>(kind)];
}

/// A call of one rank.
struct call_record {
  struct end {
    std::uint64_t peer, bytes;
  };

  call_kind kind;
  std::vector<std::uint64_t> agreed;  // numbers that must be the same on all ranks
  std::vector<end> out, in;           // of an exchange

  /// "sum(5)"
  std::string text() const {
    std::string list;
    for (std::uint64_t const number : agreed) list += (list.empty() ? "" : ", ") + std::to_string(number);
    return name_of(kind) + "(" + list + ")";
  }
};

inline void append(std::vector<std::uint64_t>& words, call_record const& call) {
  for (std::uint64_t const n :
       {static_cast<std::uint64_t>(call.kind), call.agreed.size(), call.out.size(), call.in.size()})
    words.push_back(n);
  words.insert(words.end(), call.agreed.begin(), call.agreed.end());
  for (auto const* ends : {&call.out, &call.in})
    for (call_record::end const& e : *ends) words.insert(words.end(), {e.peer, e.bytes});
}

/// The calls that `append` has written.
inline std::vector<call_record> read_calls(std::span<std::uint64_t const> words) {
  std::vector<call_record> calls;
  std::size_t at = 0;
  auto const next = [&] { return words[at++]; };
  while (at < words.size()) {
    call_record call{static_cast<call_kind>(next()), {}, {}, {}};
    call.agreed.resize(next());
    call.out.resize(next());
    call.in.resize(next());
    for (std::uint64_t& n : call.agreed) n = next();
    for (auto* ends : {&call.out, &call.in})
      for (call_record::end& e : *ends) {
        e.peer = next();
        e.bytes = next();
      }
    calls.push_back(std::move(call));
  }
  return calls;
}

/// Compares the calls of all ranks. What it knows is the same on all ranks, so all of them find the same difference.
class call_comparison {
 public:
  /// @param calls  names the calls in texts: "with a group"
  call_comparison(int ranks, char const* calls)
      : name_(calls), ranks_(static_cast<std::size_t>(ranks)), sent_(ranks_ * ranks_), expected_(ranks_ * ranks_) {}

  /// A difference, and a rank that differs from rank 0 or sends other bytes than are expected.
  struct difference {
    int rank = -1;
    std::string text;  // empty: there is none
  };

  /// `of_rank`: the calls that each rank makes now.
  difference compare(std::vector<std::vector<call_record>> const& of_rank) {
    std::size_t most = 0;
    for (auto const& calls : of_rank) most = std::max(most, calls.size());
    for (std::size_t i = 0; i < most; ++i) {
      ++calls_;
      for (std::size_t rank = 1; rank < ranks_; ++rank)
        if (!agree(of_rank[0], of_rank[rank], i))
          return found(rank, "rank 0 makes " + text_of(of_rank[0], i) + " and rank " + std::to_string(rank) +
                                 " makes " + text_of(of_rank[rank], i));
      for (std::size_t rank = 0; rank < ranks_; ++rank) {
        for (auto const& e : of_rank[rank][i].out) sent_[rank * ranks_ + e.peer].push_back(e.bytes);
        for (auto const& e : of_rank[rank][i].in) expected_[e.peer * ranks_ + rank].push_back(e.bytes);
      }
      if (difference d = match_transfers(); !d.text.empty()) return d;
    }
    return {};
  }

 private:
  static std::string text_of(std::vector<call_record> const& calls, std::size_t i) {
    return i < calls.size() ? calls[i].text() : "no further call in its group";
  }
  static bool agree(std::vector<call_record> const& calls, std::vector<call_record> const& others, std::size_t i) {
    return i < calls.size() && i < others.size() && calls[i].kind == others[i].kind &&
           calls[i].agreed == others[i].agreed;
  }
  difference found(std::size_t rank, std::string const& text) const {
    return {static_cast<int>(rank), "call " + std::to_string(calls_) + " " + name_ + ": " + text};
  }
  difference match_transfers() {
    for (std::size_t from = 0; from < ranks_; ++from)
      for (std::size_t to = 0; to < ranks_; ++to) {
        std::deque<std::uint64_t>& sent = sent_[from * ranks_ + to];
        std::deque<std::uint64_t>& expected = expected_[from * ranks_ + to];
        for (; !sent.empty() && !expected.empty(); sent.pop_front(), expected.pop_front())
          if (sent.front() != expected.front())
            return found(from, "rank " + std::to_string(from) + " sends " + std::to_string(sent.front()) +
                                   " bytes to rank " + std::to_string(to) + ", which expects " +
                                   std::to_string(expected.front()));
      }
    return {};
  }

  char const* name_;
  std::size_t ranks_;
  std::vector<std::deque<std::uint64_t>> sent_, expected_;  // of each pair of ranks: bytes that the other end lacks
  std::uint64_t calls_ = 0;
};

}  // namespace pushpull::detail
