/// @file
/// A started call of a communicator of any type.
#pragma once

#include <concepts>
#include <utility>

#include <pushpull/comm/inline_object.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any CommunicationRequest. One that holds none is ready.
class any_request {
 public:
  any_request() = default;
  template <class R>
    requires(!std::same_as<R, any_request> && CommunicationRequest<R>)
  any_request(R request) : model_(std::in_place_type<model<R>>, std::move(request)) {}

  bool ready() { return model_.get() == nullptr || model_.get()->ready(); }
  void wait() {
    if (model_.get() != nullptr) model_.get()->wait();
  }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual bool ready() = 0;
    virtual void wait() = 0;
    virtual erased* move_to(void* memory) noexcept = 0;
  };
  template <class R>
  struct model final : erased {
    explicit model(R given) : request(std::move(given)) {}
    bool ready() override { return request.ready(); }
    void wait() override { request.wait(); }
    erased* move_to(void* memory) noexcept override { return detail::moved_to(memory, *this); }

    R request;
  };

  detail::inline_object<erased, 112> model_;  // requests of the library's communicators lie in it
};

static_assert(CommunicationRequest<any_request>);

}  // namespace pushpull::comm
