/// @file
/// The rules of every communicator over several ranks. Every rank calls the same functions in the same order. They throw
/// broken_contract rather than use Catch2's macros, which only one thread may.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pushpull/concepts/communicator.hpp>

namespace pushpull::test {

/// A rule that a communicator has broken.
class broken_contract : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

namespace contract {

template <class C>
void expect(C const& c, bool holds, std::string const& rule) {
  if (!holds) throw broken_contract("rank " + std::to_string(c.rank()) + ": " + rule);
}

/// A byte that tells where it comes from, where it goes, and its place.
inline std::byte byte_of(int from, int to, std::size_t round, std::size_t i) {
  return static_cast<std::byte>(
      (31 * static_cast<std::size_t>(from) + 7 * static_cast<std::size_t>(to) + 3 * round + i + (i >> 8)) % 251);
}

/// The bytes that rank `from` sends to rank `to`.
inline std::vector<std::byte> message(int from, int to, std::size_t round, std::size_t bytes) {
  std::vector<std::byte> m(bytes);
  for (std::size_t i = 0; i < bytes; ++i) m[i] = byte_of(from, to, round, i);
  return m;
}

/// Uneven numbers of bytes, some zero.
inline std::size_t bytes_between(int from, int to, std::size_t round) {
  return (static_cast<std::size_t>(5 * from + 3 * to) + round) % 4 * 129;
}

/// The transfers of one exchange with every other rank, and their memory.
struct all_to_all {
  std::vector<std::vector<std::byte>> sent, received;
  std::vector<comm::transfer> out, in;

  template <class C, class Bytes>
  all_to_all(C const& c, std::size_t round, Bytes const& bytes) {
    int const me = c.rank();
    for (int peer = 0; peer < c.size(); ++peer) {
      if (peer == me) continue;
      sent.push_back(message(me, peer, round, bytes(me, peer, round)));
      received.emplace_back(bytes(peer, me, round));
      out.push_back({sent.back().data(), sent.back().size(), peer});
      in.push_back({received.back().data(), received.back().size(), peer});
    }
  }
  template <class C>
  auto start(C const& c, typename C::group_type& group) {
    return c.exchange(group, out, in);
  }
  template <class C>
  void check(C const& c, std::size_t round) const {
    for (std::size_t i = 0; i < in.size(); ++i)
      expect(c, received[i] == message(in[i].peer, c.rank(), round, in[i].bytes),
             "round " + std::to_string(round) + " of exchange: wrong bytes from rank " + std::to_string(in[i].peer));
  }
};

/// Asks until the request is ready, and whether it stays so.
template <class C, class R>
void poll(C const& c, R& request) {
  while (!request.ready()) std::this_thread::yield();
  expect(c, request.ready(), "a ready request stays ready");
  request.wait();
}

}  // namespace contract

/// exchange moves uneven numbers of bytes, also none.
template <class C>
void contract_exchange(C const& c) {
  for (std::size_t round = 0; round < 8; ++round) {
    contract::all_to_all step(c, round, contract::bytes_between);
    auto group = c.group();
    auto request = step.start(c, group);
    group.end();
    if (round % 2 == 0)
      request.wait();
    else
      contract::poll(c, request);
    step.check(c, round);
  }
}

/// An exchange with nothing to do is ready, while other ranks call nothing.
template <class C>
void contract_empty_exchange(C const& c) {
  auto group = c.group();
  auto request = c.exchange(group, {}, {});
  group.end();
  request.wait();
}

/// Transfers to one rank match in their order, within a call and over calls.
template <class C>
void contract_order(C const& c) {
  static constexpr std::size_t transfers = 40;
  int const to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
  if (c.size() == 1) return;
  for (std::size_t round = 0; round < 3; ++round) {
    std::vector<std::vector<std::byte>> sent, received;
    std::vector<comm::transfer> out, in;
    for (std::size_t i = 0; i < transfers; ++i) {
      sent.push_back(contract::message(c.rank(), to, 100 * round + i, 64));
      received.emplace_back(64);
      out.push_back({sent.back().data(), 64, to});
      in.push_back({received.back().data(), 64, from});
    }
    // One end makes the transfers in one call, the other in two.
    auto group = c.group();
    std::span<comm::transfer const> const all_out = out, all_in = in;
    std::size_t const cut = 10 * (static_cast<std::size_t>(c.rank()) % 3);
    auto first = c.exchange(group, all_out.first(cut), all_in.first(transfers - cut));
    auto second = c.exchange(group, all_out.subspan(cut), all_in.subspan(transfers - cut));
    group.end();
    second.wait();
    first.wait();
    for (std::size_t i = 0; i < transfers; ++i)
      contract::expect(c, received[i] == contract::message(from, c.rank(), 100 * round + i, 64),
                       "transfer " + std::to_string(i) + " to one rank came out of order");
  }
}

/// A transfer begins at one end before another call, and at the other end after it.
template <class C>
void contract_order_around_calls(C const& c) {
  if (c.size() == 1) return;
  bool const sends_first = c.rank() % 2 == 0;
  int const to = (c.rank() + 1) % c.size(), from = (c.rank() + c.size() - 1) % c.size();
  for (std::size_t round = 0; round < 4; ++round) {
    auto const sent = contract::message(c.rank(), to, round, 200);
    std::vector<std::byte> received(200);
    comm::transfer const out{const_cast<std::byte*>(sent.data()), 200, to}, in{received.data(), 200, from};
    std::span<comm::transfer const> const none, outs(&out, 1), ins(&in, 1);
    std::vector<double> numbers(4, 1.0);
    auto group = c.group();
    auto first = c.exchange(group, sends_first ? outs : none, sends_first ? none : ins);
    group.end();
    auto next = c.group();
    auto sum = c.sum(next, numbers.data(), numbers.size());
    next.end();
    sum.wait();
    auto last = c.group();
    auto second = c.exchange(last, sends_first ? none : outs, sends_first ? ins : none);
    last.end();
    second.wait();
    first.wait();
    contract::expect(c, received == contract::message(from, c.rank(), round, 200),
                     "an exchange around a sum: wrong bytes");
    contract::expect(c, numbers == std::vector<double>(4, c.size()), "a sum within an exchange");
  }
}

/// Several requests are in flight; each rank finishes them in an order of its own.
template <class C>
void contract_in_flight(C const& c) {
  using request_type = decltype(c.exchange(std::declval<typename C::group_type&>(), {}, {}));
  static constexpr std::size_t requests = 6;
  std::vector<contract::all_to_all> steps;
  std::vector<request_type> started;
  for (std::size_t round = 0; round < requests; ++round) steps.emplace_back(c, round, contract::bytes_between);
  for (std::size_t round = 0; round < requests; round += 2) {
    auto group = c.group();
    started.push_back(steps[round].start(c, group));
    started.push_back(steps[round + 1].start(c, group));
    group.end();
  }
  for (std::size_t i = 0; i < requests; ++i) {
    std::size_t const round = c.rank() % 2 == 0 ? i : requests - 1 - i;
    if (i % 2 == 0)
      started[round].wait();
    else
      contract::poll(c, started[round]);
    steps[round].check(c, round);
  }
}

/// gather completes an array in place; ranges may be empty, in any order, and leave gaps, which stay as they are.
template <class C>
void contract_gather(C const& c) {
  for (std::size_t round = 0; round < 4; ++round) {
    std::vector<comm::byte_range> ranges(static_cast<std::size_t>(c.size()));
    std::size_t end = 0;
    for (int r = c.size() - 1; r >= 0; --r) {  // descending, with a gap of a byte after each
      std::size_t const begin = end;
      end += contract::bytes_between(r, 0, round);
      ranges[static_cast<std::size_t>(r)] = {begin, end++};
    }
    std::vector<std::byte> whole(end, std::byte{255}), expected = whole;
    for (int r = 0; r < c.size(); ++r) {
      comm::byte_range const range = ranges[static_cast<std::size_t>(r)];
      for (std::size_t i = range.begin; i < range.end; ++i) {
        expected[i] = contract::byte_of(r, 0, round, i);
        if (r == c.rank()) whole[i] = expected[i];
      }
    }
    auto group = c.group();
    auto request = c.gather(group, whole.data(), ranges);
    group.end();
    request.wait();
    contract::expect(c, whole == expected, "round " + std::to_string(round) + " of gather: wrong bytes");
  }
}

/// sum is exact if one rank has a value, and the same on all ranks otherwise.
template <class C>
void contract_sum(C const& c) {
  for (std::size_t const count : {std::size_t{0}, std::size_t{1}, std::size_t{1000}}) {
    std::vector<double> one(count, 0.0), all(count), expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      expected[i] = 1.0 / static_cast<double>(i + 3);
      if (i % static_cast<std::size_t>(c.size()) == static_cast<std::size_t>(c.rank())) one[i] = expected[i];
      all[i] = 0.1 * static_cast<double>(i + 1) * static_cast<double>(c.rank() + 1);
    }
    auto group = c.group();
    auto first = c.sum(group, one.data(), count);
    auto second = c.sum(group, all.data(), count);
    group.end();
    second.wait();
    first.wait();
    contract::expect(c, one == expected, "sum of a value and zeros is not the value");
    double const ranks = c.size() * (c.size() + 1) / 2;
    for (std::size_t i = 0; i < count; ++i) {
      double const sum = 0.1 * static_cast<double>(i + 1) * ranks;
      contract::expect(c, all[i] > sum * (1 - 1e-12) && all[i] < sum * (1 + 1e-12), "sum is wrong");
    }
    auto const bytes = std::as_bytes(std::span(all));
    for (auto const& of_rank : c.gather_all(bytes))
      contract::expect(c, std::ranges::equal(of_rank, bytes), "sum differs between ranks");
  }
}

/// broadcast copies the bytes of each root.
template <class C>
void contract_broadcast(C const& c) {
  for (std::size_t const bytes : {std::size_t{0}, std::size_t{1}, std::size_t{100'000}})
    for (int root = 0; root < c.size(); ++root) {
      auto memory = contract::message(c.rank(), 0, bytes, bytes);
      c.broadcast(memory, root);
      contract::expect(c, memory == contract::message(root, 0, bytes, bytes),
                       "broadcast from rank " + std::to_string(root) + ": wrong bytes");
    }
}

/// gather_all gives the bytes of every rank, in their order.
template <class C>
void contract_gather_all(C const& c) {
  for (std::size_t round = 0; round < 4; ++round) {
    auto const mine = contract::message(c.rank(), 0, round, contract::bytes_between(c.rank(), 0, round));
    auto const all = c.gather_all(mine);
    contract::expect(c, all.size() == static_cast<std::size_t>(c.size()), "gather_all: a part for each rank");
    for (int r = 0; r < c.size(); ++r)
      contract::expect(
          c, all[static_cast<std::size_t>(r)] == contract::message(r, 0, round, contract::bytes_between(r, 0, round)),
          "gather_all: wrong bytes of rank " + std::to_string(r));
  }
}

/// barrier returns when every rank has called it. The ranks read one clock.
template <class C>
void contract_barrier(C const& c) {
  auto const now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  for (int round = 0; round < 20; ++round) {
    if (round % c.size() == c.rank()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::array<std::int64_t, 2> times{now(), 0};
    c.barrier();
    times[1] = now();
    for (auto const& of_rank : c.gather_all(std::as_bytes(std::span(times)))) {
      std::int64_t came = 0;
      std::memcpy(&came, of_rank.data(), sizeof(came));
      contract::expect(c, times[1] >= came, "barrier returned before every rank had called it");
    }
  }
}

/// One thread polls requests while another is in calls without a group.
template <class C>
void contract_two_families(C const& c) {
  static constexpr std::size_t rounds = 30;
  std::exception_ptr thrown;
  std::thread other([&] {
    try {
      for (std::size_t round = 0; round < rounds; ++round) {
        c.barrier();
        std::vector<std::byte> memory = contract::message(c.rank(), 1, round, 300);
        int const root = static_cast<int>(round) % c.size();
        c.broadcast(memory, root);
        contract::expect(c, memory == contract::message(root, 1, round, 300), "broadcast beside exchange: wrong bytes");
        contract::expect(c, c.gather_all(memory).back() == memory, "gather_all beside exchange: wrong bytes");
        if constexpr (requires { c.allocate_shared(8); }) c.allocate_shared(8);
      }
    } catch (...) {
      thrown = std::current_exception();
      c.fail("calls without a group threw");
    }
  });
  try {
    for (std::size_t round = 0; round < rounds; ++round) {
      contract::all_to_all step(c, round, contract::bytes_between);
      auto group = c.group();
      auto request = step.start(c, group);
      group.end();
      contract::poll(c, request);
      if constexpr (requires { c.arrive(group); }) {
        auto next = c.group();
        auto arrived = c.arrive(next);
        next.end();
        contract::poll(c, arrived);
      }
      step.check(c, round);
    }
  } catch (...) {
    c.fail("exchanges threw");
    other.join();
    throw;
  }
  other.join();
  if (thrown) std::rethrow_exception(thrown);
}

/// Megabytes move, while barriers hold a rank that has started its exchange.
template <class C>
void contract_large(C const& c, std::size_t bytes = 3'000'001) {
  auto const size = [&](int from, int to, std::size_t) { return bytes + static_cast<std::size_t>(from + 2 * to); };
  contract::all_to_all step(c, 1, size);
  auto group = c.group();
  auto request = step.start(c, group);
  group.end();
  c.barrier();
  request.wait();
  step.check(c, 1);
}

/// Values that a rank wrote to shared memory before `arrive` are there for its node afterwards, and for nobody else.
template <class C>
void contract_shared_memory(C const& c) {
  auto const count = [](int rank) { return 3 + 2 * static_cast<std::size_t>(rank); };
  auto const memory = c.allocate_shared(count(c.rank()) * sizeof(int));
  auto const at = [&](int rank) { return static_cast<int*>(memory.at(rank)); };
  auto const empty = c.allocate_shared(c.rank() % 2 == 0 ? 0 : 8);  // some ranks have nothing
  for (int r = 0; r < c.size(); ++r)
    contract::expect(c, (memory.at(r) != nullptr) == (c.node_of(r) == c.node_of(c.rank())),
                     "shared memory is reached on the node, and only there");
  auto const arrive = [&] {
    auto group = c.group();
    auto request = c.arrive(group);
    group.end();
    request.wait();
  };
  contract::expect(
      c, std::count(at(c.rank()), at(c.rank()) + count(c.rank()), 0) == static_cast<std::ptrdiff_t>(count(c.rank())),
      "shared memory is zeroed");
  for (int round = 1; round <= 3; ++round) {
    arrive();
    std::fill_n(at(c.rank()), count(c.rank()), 100 * round + c.rank());
    arrive();
    for (int r = 0; r < c.size(); ++r) {
      if (c.node_of(r) != c.node_of(c.rank())) continue;
      contract::expect(c, std::count(at(r), at(r) + count(r), 100 * round + r) == static_cast<std::ptrdiff_t>(count(r)),
                       "shared memory of rank " + std::to_string(r) + " has its values after arrive");
    }
  }
  arrive();  // nobody reads any more
}

/// Calls of different kinds in one group, and the same calls again.
template <class C>
void contract_mixed_group(C const& c) {
  for (std::size_t round = 0; round < 5; ++round) {
    contract::all_to_all step(c, round, contract::bytes_between);
    std::vector<double> numbers(3, c.rank() == 0 ? 1.5 : 0.0);
    std::vector<comm::byte_range> ranges;
    std::vector<std::byte> whole(static_cast<std::size_t>(c.size()));
    for (std::size_t r = 0; r < whole.size(); ++r) ranges.push_back({r, r + 1});
    whole[static_cast<std::size_t>(c.rank())] = static_cast<std::byte>(c.rank() + 1);
    auto group = c.group();
    auto sum = c.sum(group, numbers.data(), numbers.size());
    auto exchange = step.start(c, group);
    auto gather = c.gather(group, whole.data(), ranges);
    group.end();
    gather.wait();
    exchange.wait();
    sum.wait();
    step.check(c, round);
    contract::expect(c, numbers == std::vector<double>(3, 1.5), "sum in a group with others");
    for (std::size_t r = 0; r < whole.size(); ++r)
      contract::expect(c, whole[r] == static_cast<std::byte>(r + 1), "gather in a group with others");
  }
}

/// All rules of a CollectiveCommunicator.
template <class C>
void contract_of_collectives(C const& c) {
  contract_empty_exchange(c);
  contract_exchange(c);
  contract_order(c);
  contract_order_around_calls(c);
  contract_in_flight(c);
  contract_gather(c);
  contract_sum(c);
  contract_broadcast(c);
  contract_gather_all(c);
  contract_barrier(c);
  contract_mixed_group(c);
  contract_large(c);
}

}  // namespace pushpull::test
