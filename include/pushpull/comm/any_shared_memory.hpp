/// @file
/// The shared memory of a communicator of any type.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/detail/host_memory.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any type with `at(rank) -> void*`. Copies share it.
class any_shared_memory {
 public:
  template <class M>
    requires(!std::same_as<M, any_shared_memory> &&
             requires(M const& memory, int rank) {
               { memory.at(rank) } -> std::same_as<void*>;
             })
  explicit any_shared_memory(M memory) : model_(std::make_shared<model<M>>(std::move(memory))) {}
  /// Memory of one rank, zeroed, that no other rank reaches.
  any_shared_memory(int rank, std::size_t bytes) : any_shared_memory(own_memory(rank, bytes)) {}

  void* at(int rank) const { return model_->at(rank); }

 private:
  struct own_memory {
    own_memory(int of, std::size_t bytes)
        : owner(of), memory(pushpull::detail::allocate_host_memory(bytes), [](void* p) {
            pushpull::detail::deallocate_host_memory(p);
          }) {
      if (bytes > 0) std::memset(memory.get(), 0, bytes);
    }
    void* at(int rank) const { return rank == owner ? memory.get() : nullptr; }

    int owner;
    std::shared_ptr<void> memory;
  };
  struct erased {
    virtual ~erased() = default;
    virtual void* at(int rank) const = 0;
  };
  template <class M>
  struct model final : erased {
    explicit model(M given) : memory(std::move(given)) {}
    void* at(int rank) const override { return memory.at(rank); }

    M memory;
  };

  std::shared_ptr<erased const> model_;
};

}  // namespace pushpull::comm
