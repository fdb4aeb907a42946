/// @file
/// A started call of a communicator of any type.
#pragma once

#include <concepts>
#include <memory>
#include <utility>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any CommunicationRequest. One that holds none is ready.
class any_request {
 public:
  any_request() = default;
  template <class R>
    requires(!std::same_as<R, any_request> && CommunicationRequest<R>)
  any_request(R request) : model_(std::make_unique<model<R>>(std::move(request))) {}

  bool ready() { return model_ == nullptr || model_->ready(); }
  void wait() {
    if (model_ != nullptr) model_->wait();
  }

 private:
  struct erased {
    virtual ~erased() = default;
    virtual bool ready() = 0;
    virtual void wait() = 0;
  };
  template <class R>
  struct model final : erased {
    explicit model(R given) : request(std::move(given)) {}
    bool ready() override { return request.ready(); }
    void wait() override { request.wait(); }

    R request;
  };

  std::unique_ptr<erased> model_;
};

static_assert(CommunicationRequest<any_request>);

}  // namespace pushpull::comm
