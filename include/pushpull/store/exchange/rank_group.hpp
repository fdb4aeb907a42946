/// @file
/// A store's place among the ranks that train it, and the messages of one operation, whatever the communicator.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/tracing.hpp>
#include <pushpull/store/exchange/messages.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Memory that the ranks of a node reach, a block of each.
class shared_blocks {
 public:
  virtual ~shared_blocks() = default;
  /// Null if the rank is on another node.
  virtual std::byte* of(std::size_t rank) const = 0;
};

/// Ranks on nodes of equally many: those of a node follow one another.
struct node_layout {
  std::size_t nodes = 1, ranks_per_node = 1;

  std::size_t first_of_node(std::size_t rank) const { return rank / ranks_per_node * ranks_per_node; }
  /// The rank on node number `node` that owns slices beside this one's.
  std::size_t partner(std::size_t rank, std::size_t node) const {
    return node * ranks_per_node + rank % ranks_per_node;
  }
  bool on_one_node(std::size_t a, std::size_t b) const { return a / ranks_per_node == b / ranks_per_node; }
};

/// The ranks of a store. All fail together: after a call to other ranks has failed, a step may be done on some of them
/// only.
class rank_group {
 public:
  virtual ~rank_group() = default;
  virtual std::size_t size() const = 0;
  virtual std::size_t rank() const = 0;
  /// Nodes whose ranks reach each other's mirrors and resident gradients; of one rank each where none do.
  virtual node_layout const& nodes() const = 0;
  bool shares_memory() const { return nodes().ranks_per_node > 1; }
  /// Whether owners get sums of resident gradients from the communicator.
  virtual bool reduces() const = 0;
  /// Whether resident gradients of a rank's devices are added up before they travel: those of GPUs, of which only
  /// the sums need the network.
  virtual bool adds_devices() const = 0;
  /// Whether slices travel between nodes and then within them.
  bool has_levels() const { return shares_memory() && nodes().nodes > 1; }
  /// Zeros. Collective, on the calling thread; each rank asks for as many bytes.
  virtual std::unique_ptr<shared_blocks> allocate_shared(std::size_t bytes) = 0;
  /// Of memory of the store's devices.
  virtual std::unique_ptr<messages> make_messages() = 0;
  /// Of memory of the host.
  virtual std::unique_ptr<messages> make_host_messages() = 0;
  /// Collective, on the calling thread.
  virtual std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) = 0;
  /// Collective, on the calling thread: the bytes of rank 0.
  virtual void broadcast(std::span<std::byte> bytes) = 0;

  /// @throws comm_error if an earlier call has failed
  void expect_in_step(char const* caller) const {
    std::lock_guard const lock(mutex_);
    if (failed_)
      throw comm_error(failed_->rank, std::string(caller) +
                                          ": an earlier call to other ranks failed, so that ranks may "
                                          "hold different weights; load the last checkpoint. It failed with: " +
                                          failed_->text);
    expect_alive();
  }
  /// Of messages that a device moves, errors come after the calls that sent them. @throws comm_error if there was one
  virtual void expect_alive() const {}
  /// Notes the error that an operation fails with, and tells the other ranks, unless it is one that every rank meets alike.
  /// @param alike  Whether every rank meets errors that are none of communication, memory or a device.
  void note(std::exception_ptr const& error, bool alike = true) noexcept {
    try {
      std::rethrow_exception(error);
    } catch (comm_error const& e) {
      fail(e.rank(), e.what());
    } catch (out_of_memory const& e) {
      fail(-1, e.what());
    } catch (std::bad_alloc const& e) {
      fail(-1, e.what());
    } catch (cuda_error const& e) {
      fail(-1, e.what());
    } catch (update_error const&) {  // ranks agree on it
    } catch (std::exception const& e) {
      if (!alike) fail(-1, e.what());
    } catch (...) {
      if (!alike) fail(-1, "an exception of an unknown type");
    }
  }

 protected:
  virtual void tell(char const* reason) noexcept = 0;

 private:
  struct failed_call {
    int rank;
    std::string text;
  };

  void fail(int rank, char const* text) noexcept {
    try {
      std::lock_guard const lock(mutex_);
      if (!failed_) failed_.emplace(failed_call{rank, text});
    } catch (...) {  // no memory for the text
    }
    tell(text);
  }

  mutable std::mutex mutex_;
  std::optional<failed_call> failed_;
};

/// The ranks that hold the keys of a store together, and the place of this process among them.
struct owning_ranks {
  rank_group* group = nullptr;  ///< Null: this process holds them alone.
  std::size_t rank = 0, size = 1;
};

/// The messages of a communicator that exchanges memory of devices D.
template <class C, class D>
class messages_of final : public messages {
  using group_type = typename C::group_type;
  using exchange_request = decltype(std::declval<C const&>().exchange(
      std::declval<group_type&>(), std::span<comm::transfer const>(), std::span<comm::transfer const>()));
  using gather_request = decltype(std::declval<C const&>().gather(std::declval<group_type&>(), nullptr,
                                                                  std::span<comm::byte_range const>()));
  template <class Any>
  static auto arrival_of(Any const& c, group_type& g) {
    if constexpr (SharesMemory<Any, D>) {
      return c.arrive(g);
    } else {
      return 0;
    }
  }
  template <class Any>
  static auto reduction_of(Any const& c, group_type& g) {
    if constexpr (ReducesSlices<Any, D>) {
      return c.reduce_scatter(g, nullptr, {}, nullptr, comm::number_type::float32);
    } else {
      return 0;
    }
  }
  using reduce_request = decltype(reduction_of(std::declval<C const&>(), std::declval<group_type&>()));
  using arrival_request = decltype(arrival_of(std::declval<C const&>(), std::declval<group_type&>()));
  using sum_request = decltype(std::declval<C const&>().sum(std::declval<group_type&>(), nullptr, 0));

 public:
  /// @param shares  Whether the ranks of a node reach the memory that these messages are of.
  messages_of(rank_group& all, C const& communicator, bool shares)
      : all_(all), communicator_(communicator), shares_(shares) {}

  void start_exchange() override {
    start("exchange", out_, [&](C const& c, group_type& g) {
      exchange_.emplace(c.exchange(g, out_, in_));  // also of nothing: other ranks may have something
      if constexpr (ReducesSlices<C, D>)
        for (reduced_array const& array : reductions_) reduce_.push_back(reduction(c, g, array));
      arrive(c, g);
    });
  }
  void start_gathers() override {
    start("gather", results_out_, [&](C const& c, group_type& g) {
      for (gathered_array const& array : gathers_) gather_.push_back(gathering(c, g, array));
      if (!shares_) return;
      if (all_.has_levels()) {
        exchange_.emplace(c.exchange(g, results_out_, results_in_));
      } else {
        arrive(c, g);
      }
    });
  }
  void start_arrival() override {
    start("arrival", {}, [&](C const& c, group_type& g) { arrive(c, g); });
  }
  void start_sum(std::span<double> numbers) override {
    start("sum", {}, [&](C const& c, group_type& g) { sum_.emplace(c.sum(g, numbers.data(), numbers.size())); });
  }

  bool ready() override {
    try {
      if (exchange_ && !exchange_->ready()) return false;
      exchange_.reset();
      if constexpr (ReducesSlices<C, D>)
        for (; !reduce_.empty(); reduce_.pop_back())
          if (!reduce_.back().ready()) return false;
      if (sum_ && !sum_->ready()) return false;
      sum_.reset();
      if constexpr (SharesMemory<C, D>) {
        if (arrival_ && !arrival_->ready()) return false;
        arrival_.reset();
      }
      while (!gather_.empty()) {  // the last first: erasing it moves nothing
        if (!gather_.back().ready()) return false;
        gather_.pop_back();
      }
      traced_.end();
      return true;
    } catch (...) {
      all_.note(std::current_exception());
      exchange_.reset();
      reduce_.clear();
      sum_.reset();
      arrival_.reset();
      gather_.clear();
      traced_.end();
      throw;
    }
  }

 private:
  gather_request gathering(C const& c, group_type& g, gathered_array const& array) const {
    auto const of_rank = ranges(array.first, all_.size());
    if constexpr (MovesMemoryOfEachDevice<C, D>) return c.gather(g, array.whole, of_rank, array.device);
    return c.gather(g, array.whole, of_rank);
  }
  reduce_request reduction(C const& c, group_type& g, reduced_array const& array) const
    requires(ReducesSlices<C, D>)
  {
    auto const of_rank = ranges(array.first, all_.size());
    if constexpr (MovesMemoryOfEachDevice<C, D>)
      return c.reduce_scatter(g, array.whole, of_rank, array.sum, array.type, array.device);
    return c.reduce_scatter(g, array.whole, of_rank, array.sum, array.type);
  }
  void arrive([[maybe_unused]] C const& c, [[maybe_unused]] group_type& g) {
    if constexpr (SharesMemory<C, D>)
      if (shares_) arrival_.emplace(c.arrive(g));
  }
  template <class F>
  void start(char const* name, std::span<comm::transfer const> sent, F const& f) {
    std::int64_t bytes = 0;
    for (comm::transfer const& t : sent) bytes += static_cast<std::int64_t>(t.bytes);
    if (auto* const tally = profile::detail::current_tally) tally->sent_bytes += bytes;
    traced_.begin(name, bytes);
    try {
      group_type g = communicator_.group();
      f(communicator_, g);
      g.end();
    } catch (...) {
      traced_.end();
      throw;
    }
  }

  rank_group& all_;
  C communicator_;
  bool shares_;
  std::optional<exchange_request> exchange_;
  std::optional<sum_request> sum_;
  std::vector<reduce_request> reduce_;
  std::vector<gather_request> gather_;
  std::optional<arrival_request> arrival_;
  profile::detail::message_span traced_;
};

/// The rank_group of a communicator that exchanges memory of devices D.
template <class C, class D>
class ranks_of final : public rank_group {
 public:
  /// @param reaches_node  Whether the ranks of a node share memory.
  /// @param reduces       Whether owners get sums of resident gradients from the communicator.
  ranks_of(C const& communicator, bool reaches_node, bool reduces)
      : communicator_(communicator),
        nodes_(layout_of(communicator, reaches_node)),
        reduces_(reduces),
        adds_devices_(!HostDevice<D> && reaches_node) {}

  std::size_t size() const override { return static_cast<std::size_t>(communicator_.size()); }
  std::size_t rank() const override { return static_cast<std::size_t>(communicator_.rank()); }
  node_layout const& nodes() const override { return nodes_; }
  bool reduces() const override { return reduces_; }
  bool adds_devices() const override { return adds_devices_; }
  std::unique_ptr<shared_blocks> allocate_shared([[maybe_unused]] std::size_t bytes) override {
    if constexpr (SharesMemory<C, D>)
      return std::make_unique<shared_memory_blocks<typename C::shared_memory>>(communicator_.allocate_shared(bytes));
    return nullptr;
  }
  void expect_alive() const override {
    if constexpr (requires { communicator_.expect_alive(); }) communicator_.expect_alive();
  }
  std::unique_ptr<messages> make_messages() override {
    return std::make_unique<messages_of<C, D>>(*this, communicator_, shares_memory());
  }
  std::unique_ptr<messages> make_host_messages() override {
    if constexpr (HostDevice<D>) {
      return make_messages();
    } else {
      using host_type = std::remove_cvref_t<decltype(communicator_.host())>;
      return std::make_unique<messages_of<host_type, host_device_probe>>(*this, communicator_.host(), false);
    }
  }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) override {
    return communicator_.gather_all(bytes);
  }
  void broadcast(std::span<std::byte> bytes) override { communicator_.broadcast(bytes, 0); }

 protected:
  void tell(char const* reason) noexcept override { communicator_.fail(reason); }

 private:
  template <class Memory>
  struct shared_memory_blocks final : shared_blocks {
    explicit shared_memory_blocks(Memory given) : memory(std::move(given)) {}
    std::byte* of(std::size_t rank) const override {
      return static_cast<std::byte*>(memory.at(static_cast<int>(rank)));
    }

    Memory memory;
  };

  /// One rank per node unless all nodes have equally many, which follow one another.
  static node_layout layout_of([[maybe_unused]] C const& communicator, [[maybe_unused]] bool reaches_node) {
    auto const size = static_cast<std::size_t>(communicator.size());
    if constexpr (SharesMemory<C, D>) {
      auto const node = [&](std::size_t rank) { return communicator.node_of(static_cast<int>(rank)); };
      std::size_t first = 1;
      while (first < size && node(first) == node(0)) ++first;
      bool alike = reaches_node && size % first == 0;
      for (std::size_t rank = 1; alike && rank < size; ++rank)
        alike = (node(rank) == node(rank - 1)) == (rank % first != 0);
      if (alike) return {size / first, first};
    }
    return {size, 1};
  }

  C communicator_;
  node_layout nodes_;
  bool reduces_, adds_devices_;
};

}  // namespace pushpull::detail
