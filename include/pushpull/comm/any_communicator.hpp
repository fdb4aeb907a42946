/// @file
/// A communicator of a type that is chosen at run time.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/policy.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any Communicator: the one that any_store has. Copies share it.
class any_communicator {
 public:
  using policy_kind = communicator_tag;

  /// This process alone.
  any_communicator() : any_communicator(single{}) {}
  template <class C>
    requires(!std::same_as<C, any_communicator> && Communicator<C>)
  any_communicator(C communicator) : model_(std::make_shared<model<C>>(std::move(communicator))) {}

  int rank() const { return model_->rank(); }
  int size() const { return model_->size(); }
  void barrier() const { model_->barrier(); }
  bool ranks_are_independent() const { return model_->ranks_are_independent(); }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual void barrier() const = 0;
    virtual bool ranks_are_independent() const = 0;
  };
  template <class C>
  struct model final : erased {
    explicit model(C given) : communicator(std::move(given)) {}
    int rank() const override { return communicator.rank(); }
    int size() const override { return communicator.size(); }
    void barrier() const override { communicator.barrier(); }
    bool ranks_are_independent() const override { return detail::has_independent_ranks(communicator); }

    C communicator;
  };

  std::shared_ptr<erased const> model_;
};

static_assert(Communicator<any_communicator>);

}  // namespace pushpull::comm
