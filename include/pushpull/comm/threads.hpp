/// @file
/// The communicator of ranks that are threads of one process: for tests, and for programs that look like many processes.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/comm/thread_meetings.hpp>
#include <pushpull/comm/thread_ranks.hpp>
#include <pushpull/comm/thread_transfers.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// One rank of several that are threads of this process. Copies name the same rank.
/// Transfers move while a rank is in any call that waits, or asks whether a request is ready. After a failure, all calls
/// of all ranks throw what failed first.
class threads {
  using world_type = detail::thread_meetings;

 public:
  using policy_kind = communicator_tag;
  template <class D>
  static constexpr bool moves_memory_of = HostDevice<D>;

  /// The calls until `end` start together. Their requests throw until then.
  class group_type {
   public:
    void end() { world_->end_group(rank_, number_); }

   private:
    friend threads;
    explicit group_type(threads const& of)
        : world_(of.world_), rank_(of.rank_), number_(world_->open_group(of.rank_)) {}

    std::shared_ptr<world_type> world_;
    int rank_;
    std::uint64_t number_;
  };

  /// A started call. Dropped before it is ready, it fails the communicator; then nothing touches its memory any more.
  class request {
   public:
    request(request&& other) noexcept
        : world_(std::move(other.world_)), operation_(std::exchange(other.operation_, nullptr)) {}
    request& operator=(request&& other) noexcept {
      request taken(std::move(other));
      swap(taken);
      return *this;
    }
    ~request() { give_back(); }

    bool ready() { return finish(false); }
    void wait() { finish(true); }

   private:
    friend threads;
    request(threads const& of, char const* call, group_type const& group)
        : world_(of.world_), operation_(&world_->take(of.rank_, call, group.number_)) {}

    void swap(request& other) noexcept {
      world_.swap(other.world_);
      std::swap(operation_, other.operation_);
    }
    void send(void const* memory, std::size_t bytes, int peer) {
      operation_->posts.push_back({.memory = const_cast<void*>(memory), .bytes = bytes, .peer = peer, .sends = true});
    }
    void receive(void* memory, std::size_t bytes, int peer) {
      operation_->posts.push_back({.memory = memory, .bytes = bytes, .peer = peer, .sends = false});
    }
    void add_numbers() const {
      for (std::size_t i = 0; i < operation_->count; ++i) {
        double const mine = operation_->numbers[i];
        double const* other = operation_->of_others.data() + i;
        double sum = 0;
        for (int rank = 0; rank < world_->size(); ++rank) {
          double const number = rank == operation_->rank ? mine : *other;
          sum = rank == 0 ? number : sum + number;
          if (rank != operation_->rank) other += operation_->count;
        }
        operation_->numbers[i] = sum;
      }
    }
    bool finish(bool waits) {
      if (operation_ == nullptr) return true;
      if (!world_->finish(*operation_, waits)) return false;
      if (operation_->numbers != nullptr) add_numbers();
      give_back();
      return true;
    }
    void give_back() noexcept {
      if (operation_ != nullptr) world_->give_back(*std::exchange(operation_, nullptr));
    }

    std::shared_ptr<world_type> world_;
    detail::thread_operation* operation_;  // null if ready
  };

  /// Memory of each rank of this node, which stays until the last copy on any rank is gone.
  class shared_memory {
   public:
    void* at(int rank) const {
      detail::expects<invalid_argument>(rank >= 0 && static_cast<std::size_t>(rank) < of_rank_.size(), [&] {
        return "shared_memory::at: rank " + std::to_string(rank) + " of " + std::to_string(of_rank_.size());
      });
      return of_rank_[static_cast<std::size_t>(rank)].get();
    }

   private:
    friend threads;
    std::vector<std::shared_ptr<void>> of_rank_;
  };

  /// A communicator for each of `ranks` threads. @throws invalid_argument unless there is a rank
  static std::vector<threads> make(int ranks, threads_options const& options = {}) {
    detail::expects<invalid_argument>(
        ranks > 0, [&] { return "comm::threads: expected a rank or more, got " + std::to_string(ranks); });
    auto const world = std::make_shared<world_type>(ranks, options);
    std::vector<threads> all;
    for (int rank = 0; rank < ranks; ++rank) all.push_back(threads(world, rank));
    return all;
  }

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return world_->size(); }
  void barrier() const { world_->meet(rank_, "barrier"); }

  group_type group() const { return group_type(*this); }
  void fail(std::string_view reason) const noexcept { world_->fail(rank_, reason); }
  /// The rank that saw the first failure, or -1.
  int failed_by() const { return world_->failed_by(); }

  request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    request r(*this, "exchange", group);
    for (transfer const& t : out) r.send(t.memory, t.bytes, peer_of(t));
    for (transfer const& t : in) r.receive(t.memory, t.bytes, peer_of(t));
    return started(std::move(r), false);
  }
  request gather(group_type& group, void* whole, std::span<byte_range const> of_rank) const {
    detail::expects<invalid_argument>(of_rank.size() == static_cast<std::size_t>(size()), [&] {
      return "gather: expected " + std::to_string(size()) + " ranges, got " + std::to_string(of_rank.size());
    });
    request r(*this, "gather", group);
    auto* const bytes = static_cast<std::byte*>(whole);
    byte_range const mine = of_rank[static_cast<std::size_t>(rank_)];
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      byte_range const theirs = of_rank[static_cast<std::size_t>(peer)];
      r.send(bytes + mine.begin, mine.size(), peer);
      r.receive(bytes + theirs.begin, theirs.size(), peer);
    }
    return started(std::move(r), true);
  }
  /// Adds in the order of the ranks.
  request sum(group_type& group, double* numbers, std::size_t count) const {
    request r(*this, "sum", group);
    r.operation_->numbers = numbers;
    r.operation_->count = count;
    r.operation_->of_others.resize(count * static_cast<std::size_t>(size() - 1));
    double* room = r.operation_->of_others.data();
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      r.send(numbers, count * sizeof(double), peer);
      r.receive(room, count * sizeof(double), peer);
      room += count;
    }
    return started(std::move(r), true);
  }
  request arrive(group_type& group) const {
    request r(*this, "arrive", group);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_ || node_of(peer) != node_of(rank_)) continue;
      r.send(nullptr, 0, peer);
      r.receive(nullptr, 0, peer);
    }
    return started(std::move(r), true);
  }

  void broadcast(std::span<std::byte> bytes, int root) const {
    check_rank("broadcast", root);
    auto const lay = [&](detail::thread_desk& desk) {
      desk.call = "broadcast";
      desk.root = root;
      desk.agreed_bytes = bytes.size();
      desk.data = bytes.data();
    };
    world_->meet(rank_, lay, [&] {
      if (rank_ != root && !bytes.empty()) std::memcpy(bytes.data(), desk_of(root).data, bytes.size());
    });
  }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    std::vector<std::vector<std::byte>> all;
    auto const lay = [&](detail::thread_desk& desk) {
      desk.call = "gather_all";
      desk.root = 0;
      desk.agreed_bytes = 0;
      desk.data = bytes.data();
      desk.bytes = bytes.size();
    };
    world_->meet(rank_, lay, [&] {
      for (int rank = 0; rank < size(); ++rank)
        all.emplace_back(desk_of(rank).data, desk_of(rank).data + desk_of(rank).bytes);
    });
    return all;
  }

  int node_of(int rank) const {
    check_rank("node_of", rank);
    int const on_a_node = world_->options().ranks_per_node;
    return on_a_node > 0 ? rank / on_a_node : 0;
  }
  shared_memory allocate_shared(std::size_t bytes) const {
    static constexpr std::align_val_t alignment{64};  // not rounded to pages, so that sanitizers see its end
    std::shared_ptr<void> const mine(::operator new(bytes, alignment),
                                     [](void* p) { ::operator delete(p, alignment); });
    std::memset(mine.get(), 0, bytes);
    shared_memory memory;
    memory.of_rank_.resize(static_cast<std::size_t>(size()));
    auto const lay = [&](detail::thread_desk& desk) {
      desk.call = "allocate_shared";
      desk.root = 0;
      desk.agreed_bytes = 0;
      desk.memory = &mine;
    };
    world_->meet(rank_, lay, [&] {
      for (int rank = 0; rank < size(); ++rank)
        if (node_of(rank) == node_of(rank_)) memory.of_rank_[static_cast<std::size_t>(rank)] = *desk_of(rank).memory;
    });
    return memory;
  }

 private:
  threads(std::shared_ptr<world_type> world, int rank) : world_(std::move(world)), rank_(rank) {}

  detail::thread_desk const& desk_of(int rank) const { return std::as_const(*world_).desk(rank); }
  void check_rank(char const* call, int rank) const {
    detail::expects<invalid_argument>(rank >= 0 && rank < size(), [&] {
      return detail::call_on_rank(call, rank_) + "rank " + std::to_string(rank) + " of " + std::to_string(size());
    });
  }
  int peer_of(transfer const& t) const {
    check_rank("exchange", t.peer);
    detail::expects<invalid_argument>(
        t.peer != rank_, [&] { return detail::call_on_rank("exchange", rank_) + "a transfer to the rank itself"; });
    return t.peer;
  }
  request started(request r, bool collective) const {
    world_->post(*r.operation_, collective);
    return r;
  }

  std::shared_ptr<world_type> world_;
  int rank_;
};

static_assert(Communicator<threads>);

}  // namespace pushpull::comm
