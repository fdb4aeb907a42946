/// @file
/// A communicator of a type that is chosen at run time, for memory of devices that are not the host.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::comm {

/// Holds any Communicator for memory of devices D: the one that an any_store over ranks of GPUs has. It has the capabilities of
/// communicators for memory of D. A call that the held communicator cannot make throws invalid_argument, unless it has one
/// rank only.
template <Device D>
class any_device_communicator : public basic_any_communicator<D> {
 public:
  /// This process alone.
  any_device_communicator() = default;
  template <class C>
    requires(!std::same_as<C, any_device_communicator> && Communicator<C>)
  any_device_communicator(C const& communicator)
      : basic_any_communicator<D>(communicator), asked_(std::make_shared<questions>()) {
    if constexpr (requires { any_communicator(communicator.host()); })
      asked_->host = any_communicator(communicator.host());
    if constexpr (requires(std::vector<D> const& devices) { communicator.expect_devices(devices); })
      asked_->devices = [communicator](std::vector<D> const& devices) { communicator.expect_devices(devices); };
    if constexpr (requires { communicator.expect_alive(); })
      asked_->alive = [communicator] { communicator.expect_alive(); };
  }

  /// The held communicator's for memory of the host; if it has none, this process alone.
  any_communicator host() const { return asked_ ? asked_->host : any_communicator(); }
  /// @throws invalid_argument if the held communicator refuses the devices
  void expect_devices(std::vector<D> const& devices) const {
    if (asked_ && asked_->devices) asked_->devices(devices);
  }
  /// @throws comm_error, comm_timeout if the held communicator knows of a failure
  void expect_alive() const {
    if (asked_ && asked_->alive) asked_->alive();
  }

 private:
  struct questions {
    any_communicator host;
    std::function<void(std::vector<D> const&)> devices;  // empty: all are fine
    std::function<void()> alive;
  };

  std::shared_ptr<questions> asked_;
};

}  // namespace pushpull::comm
