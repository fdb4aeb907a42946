/// @file
/// A communicator of a type that is chosen at run time.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/comm/any_request.hpp>
#include <pushpull/comm/any_shared_memory.hpp>
#include <pushpull/comm/inline_object.hpp>
#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any Communicator. Copies share it. It has the capabilities of communicators for memory of the devices `Memory`. A call
/// that the held communicator cannot make throws invalid_argument, unless it has one rank only, for which there is nothing to
/// do. See any_communicator and any_device_communicator.
/// @tparam Memory  host_device_probe for memory of every HostDevice.
template <class Memory>
class basic_any_communicator {
  static constexpr bool is_of_host = HostDevice<Memory>;
  struct erased_group {
    virtual ~erased_group() = default;
    virtual void end() = 0;
    virtual erased_group* move_to(void* memory) noexcept = 0;
  };
  using any_group = detail::inline_object<erased_group, 64>;

 public:
  using policy_kind = communicator_tag;
  using request = any_request;
  using shared_memory = any_shared_memory;
  template <class D>
  static constexpr bool moves_memory_of = is_of_host ? HostDevice<D> : std::same_as<D, Memory>;

  /// The held communicator's group.
  class group_type {
   public:
    void end() {
      if (held_.get() != nullptr) held_.get()->end();
    }

   private:
    friend basic_any_communicator;
    explicit group_type(any_group held) : held_(std::move(held)) {}

    any_group held_;  // empty: the communicator has no groups
  };

  /// This process alone.
  basic_any_communicator() : basic_any_communicator(single{}) {}
  template <class C>
    requires(!std::derived_from<C, basic_any_communicator> && Communicator<C>)
  basic_any_communicator(C communicator) : model_(std::make_shared<model<C>>(std::move(communicator))) {}

  int rank() const { return model_->rank(); }
  int size() const { return model_->size(); }
  void barrier() const { model_->barrier(); }
  bool ranks_are_independent() const { return model_->ranks_are_independent(); }

  /// Whether the held communicator is a CollectiveCommunicator for this memory.
  bool exchanges() const { return model_->exchanges(); }
  /// Whether the held communicator shares memory. If not, each rank is a node.
  bool shares_memory() const { return model_->shares_memory(); }

  group_type group() const { return group_type(model_->group()); }
  /// Does nothing if the held communicator has no groups.
  void fail(std::string_view reason) const noexcept { model_->fail(reason); }
  request exchange(group_type& group, std::span<transfer const> out, std::span<transfer const> in) const {
    return model_->exchange(group.held_.get(), out, in);
  }
  request gather(group_type& group, void* whole, std::span<byte_range const> of_rank) const {
    return model_->gather(group.held_.get(), whole, of_rank, 0);
  }
  request gather(group_type& group, void* whole, std::span<byte_range const> of_rank, std::size_t device) const
    requires(!is_of_host)
  {
    return model_->gather(group.held_.get(), whole, of_rank, device);
  }
  /// Whether the held communicator models MovesMemoryOfEachDevice.
  bool moves_memory_of_each_device() const
    requires(!is_of_host)
  {
    return model_->moves_memory_of_each_device();
  }
  request sum(group_type& group, double* numbers, std::size_t count) const {
    return model_->sum(group.held_.get(), numbers, count);
  }
  void broadcast(std::span<std::byte> bytes, int root) const { model_->broadcast(bytes, root); }
  std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const {
    return model_->gather_all(bytes);
  }
  int node_of(int rank) const { return model_->node_of(rank); }
  /// @throws invalid_argument for memory of devices, if the held communicator shares none
  shared_memory allocate_shared(std::size_t bytes) const { return model_->allocate_shared(bytes); }
  request arrive(group_type& group) const { return model_->arrive(group.held_.get()); }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual void barrier() const = 0;
    virtual bool ranks_are_independent() const = 0;
    virtual bool exchanges() const = 0;
    virtual bool shares_memory() const = 0;
    virtual any_group group() const = 0;
    virtual void fail(std::string_view reason) const noexcept = 0;
    virtual request exchange(erased_group*, std::span<transfer const> out, std::span<transfer const> in) const = 0;
    virtual request gather(erased_group*, void* whole, std::span<byte_range const> of_rank,
                           std::size_t device) const = 0;
    virtual bool moves_memory_of_each_device() const = 0;
    virtual request sum(erased_group*, double* numbers, std::size_t count) const = 0;
    virtual void broadcast(std::span<std::byte> bytes, int root) const = 0;
    virtual std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const = 0;
    virtual int node_of(int rank) const = 0;
    virtual shared_memory allocate_shared(std::size_t bytes) const = 0;
    virtual request arrive(erased_group*) const = 0;
  };

  template <class C>
  struct group_model final : erased_group {
    explicit group_model(C const& communicator) : group(communicator.group()) {}
    void end() override { group.end(); }
    erased_group* move_to(void* memory) noexcept override { return detail::moved_to(memory, *this); }

    typename C::group_type group;
  };

  template <class C>
  struct model final : erased {
    explicit model(C given) : communicator(std::move(given)) {}
    int rank() const override { return communicator.rank(); }
    int size() const override { return communicator.size(); }
    void barrier() const override { communicator.barrier(); }
    bool ranks_are_independent() const override { return detail::has_independent_ranks(communicator); }
    bool exchanges() const override { return CollectiveCommunicator<C, Memory>; }
    bool shares_memory() const override { return SharesMemory<C, Memory>; }
    bool moves_memory_of_each_device() const override { return MovesMemoryOfEachDevice<C, Memory>; }

    any_group group() const override {
      if constexpr (GroupsCalls<C>)
        return any_group(std::in_place_type<group_model<C>>, communicator);
      else
        return any_group();
    }
    void fail([[maybe_unused]] std::string_view reason) const noexcept override {
      if constexpr (GroupsCalls<C>) communicator.fail(reason);
    }
    request exchange([[maybe_unused]] erased_group* g, std::span<transfer const> out,
                     std::span<transfer const> in) const override {
      if constexpr (ExchangesSlices<C, Memory>) {
        return communicator.exchange(held(g), out, in);
      } else {
        expect_nothing_to_do("exchange", out.empty() && in.empty());
        return {};
      }
    }
    request gather([[maybe_unused]] erased_group* g, [[maybe_unused]] void* whole,
                   [[maybe_unused]] std::span<byte_range const> of_rank,
                   [[maybe_unused]] std::size_t device) const override {
      if constexpr (MovesMemoryOfEachDevice<C, Memory>) {
        return communicator.gather(held(g), whole, of_rank, device);
      } else if constexpr (GathersSlices<C, Memory>) {
        return communicator.gather(held(g), whole, of_rank);
      } else {
        expect_nothing_to_do("gather");
        return {};
      }
    }
    request sum([[maybe_unused]] erased_group* g, [[maybe_unused]] double* numbers,
                [[maybe_unused]] std::size_t count) const override {
      if constexpr (SumsDoubles<C, Memory>) {
        return communicator.sum(held(g), numbers, count);
      } else {
        expect_nothing_to_do("sum");
        return {};
      }
    }
    void broadcast([[maybe_unused]] std::span<std::byte> bytes, [[maybe_unused]] int root) const override {
      if constexpr (BroadcastsBytes<C>)
        communicator.broadcast(bytes, root);
      else
        expect_nothing_to_do("broadcast");
    }
    std::vector<std::vector<std::byte>> gather_all(std::span<std::byte const> bytes) const override {
      if constexpr (GathersBytes<C>) {
        return communicator.gather_all(bytes);
      } else {
        expect_nothing_to_do("gather_all");
        return {{bytes.begin(), bytes.end()}};
      }
    }
    int node_of(int rank) const override {
      if constexpr (SharesMemory<C, Memory>)
        return communicator.node_of(rank);
      else
        return rank;
    }
    shared_memory allocate_shared(std::size_t bytes) const override {
      if constexpr (SharesMemory<C, Memory>) {
        return shared_memory(communicator.allocate_shared(bytes));
      } else {
        if constexpr (!is_of_host) expect_nothing_to_do("allocate_shared", bytes == 0);
        return shared_memory(rank(), bytes);
      }
    }
    request arrive([[maybe_unused]] erased_group* g) const override {
      if constexpr (SharesMemory<C, Memory>)
        return communicator.arrive(held(g));
      else
        return {};
    }

    static auto& held(erased_group* g) { return static_cast<group_model<C>*>(g)->group; }
    void expect_nothing_to_do(char const* call, bool nothing_given = true) const {
      pushpull::detail::expects<invalid_argument>(size() == 1 && nothing_given, [&] {
        return std::string(call) + ": any_communicator holds rank " + std::to_string(rank()) + " of " +
               std::to_string(size()) + " of a communicator that has no such call for " +
               (is_of_host ? "memory of the host" : "memory of these devices");
      });
    }

    C communicator;
  };

  std::shared_ptr<erased const> model_;
};

/// Holds any Communicator for memory of a HostDevice: the one that any_store has on CPUs.
using any_communicator = basic_any_communicator<pushpull::detail::host_device_probe>;

static_assert(Communicator<any_communicator>);

}  // namespace pushpull::comm
