/// @file
/// Stores by name.
#pragma once

#include <algorithm>
#include <cctype>
#include <concepts>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

inline std::string lower_case(std::string_view name) {
  std::string result(name);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

/// any_store of element types `Ts`, of float where there are none.
template <Device D, class Compressors, class... Ts>
struct created_store {
  using type = any_store<D, Compressors, Ts...>;
};
template <Device D, class Compressors>
struct created_store<D, Compressors> {
  using type = any_store<D, Compressors, float>;
};

/// The names of all stores that users named, whatever their types.
class registered_names {
 public:
  static registered_names& instance() {
    static registered_names names;
    return names;
  }
  void add(std::string const& name) {
    std::lock_guard const lock(mutex_);
    names_.insert(name);
  }
  bool contains(std::string const& name) const {
    std::lock_guard const lock(mutex_);
    return names_.contains(name);
  }

 private:
  mutable std::mutex mutex_;
  std::set<std::string> names_;
};

/// Stores that users named.
template <class Store, Device D>
class store_registry {
 public:
  using factory = std::function<Store(std::string const&, std::vector<D> const&)>;

  static store_registry& instance() {
    static store_registry registry;
    return registry;
  }
  void add(std::string name, factory make) {
    registered_names::instance().add(name);
    std::lock_guard const lock(mutex_);
    factories_[std::move(name)] = std::move(make);
  }
  factory find(std::string const& name) const {
    std::lock_guard const lock(mutex_);
    auto const found = factories_.find(name);
    return found == factories_.end() ? factory() : found->second;
  }
  /// Makes the stores of servers: those whose names have "dist", without a communicator.
  void set_remote(factory make) {
    std::lock_guard const lock(mutex_);
    remote_ = std::move(make);
  }
  factory remote() const {
    std::lock_guard const lock(mutex_);
    return remote_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::string, factory> factories_;
  factory remote_;
};

/// @throws invalid_argument unless the name and the communicator say the same: several ranks, or one process
template <class C>
void expect_known_kind(std::string const& type, std::optional<C> const& communicator) {
  auto const says = [&](char const* part) { return type.find(part) != std::string::npos; };
  auto const expect = [&](bool condition, char const* text) {
    expects<invalid_argument>(condition, [&] { return "create: \"" + type + "\" " + text; });
  };
  if (says("dist")) {
    expect(
        !says("_async"),
        "is a store of servers: it takes no communicator, and is made where pushpull/remote/create.hpp, of the target "
        "pushpull::zmq, is included; \"dist_sync\" with a communicator has ranks in step");
    expect(communicator.has_value(),
           "is a store of several processes and needs a communicator: create(name, devices, comm::mpi{}), "
           "from pushpull/comm/mpi.hpp and the target pushpull::mpi, or comm::single{} for this process alone; or "
           "servers: pushpull/remote/create.hpp and the target pushpull::zmq");
  } else if (says("nccl")) {
    expect(communicator.has_value() && !std::same_as<C, comm::any_communicator>,
           "is a store of ranks of GPUs and needs their communicator: create(name, devices, comm::nccl(devices, "
           "comm::mpi{})), from pushpull/comm/nccl.hpp and the target pushpull::nccl");
  } else {
    expect(!communicator || communicator->size() == 1 || communicator->ranks_are_independent() ||
               !communicator->exchanges(),
           "is a store of this process, and a communicator of several ranks came; \"dist_sync\" and "
           "\"dist_device_sync\" name a store of all ranks");
  }
}

/// The store that `create` returns, over any type of communicator.
template <class Store, Device D>
Store create_store(std::string_view name, std::vector<D> const& devices,
                   std::optional<typename Store::communicator_type> communicator) {
  std::string type = lower_case(name);
  if (auto const make = store_registry<Store, D>::instance().find(type)) {
    expects<invalid_argument>(!communicator || communicator->size() == 1, [&] {
      return "create: \"" + type + "\" was registered as a store that takes no communicator, one of " +
             std::to_string(communicator->size()) + " ranks came";
    });
    return make(type, devices);
  }
  expects<invalid_argument>(!registered_names::instance().contains(type), [&] {
    return "create: \"" + type + "\" was registered for stores on other devices, of other element types or compressors";
  });
  if (!communicator && type.find("dist") != std::string::npos)
    if (auto const make = store_registry<Store, D>::instance().remote()) return make(type, devices);
  expect_known_kind(type, communicator);
  return {std::move(type), devices, std::move(communicator).value_or(typename Store::communicator_type())};
}

}  // namespace detail

/// The result of `create`: `any_store<D, Compressors, Ts...>`, with float for no Ts.
template <Device D, class Compressors = compressors<>, class... Ts>
using created_store_t = typename detail::created_store<D, Compressors, Ts...>::type;

/// A store by name, in any case: a name that was registered, else by its parts. With "dist" ("dist_sync",
/// "dist_device_sync") it is a store of all ranks of the communicator, if only `comm::single`; without a communicator it is
/// one of servers ("dist_async" too), where pushpull/remote/create.hpp is included. Every other name is a store of this process.
/// The devices say what reduces and updates; of "local", "device" and any other word the name is only what `type()` returns.
/// @tparam Ts  The element types that keys may have; none: float.
/// The third argument names what set_gradient_compression may be asked for: all_compressors() or compressors<...>().
/// rank(), num_workers() and barrier() ask the communicator; for a store of this process it may have several ranks if they
/// are independent.
/// @throws invalid_argument on "dist" without a communicator or servers, on other names with one whose ranks would train
/// together; on "nccl" without a communicator for memory of these devices; on no devices; on a name that was registered for other
/// types than those of this call
template <ElementType... Ts, Device D, class... Cs>
created_store_t<D, compressors<Cs...>, Ts...> create(std::string_view name, std::vector<D> const& devices,
                                                     compressors<Cs...>,
                                                     std::optional<comm::any_communicator> communicator = {}) {
  return detail::create_store<created_store_t<D, compressors<Cs...>, Ts...>>(name, devices, std::move(communicator));
}
/// Over ranks whose devices are not the host, as GPUs over comm::nccl: "nccl", "dist_sync" and the like. Its type is one of
/// its own, whose operations are compiled with messages.
template <ElementType... Ts, Device D, class... Cs, Communicator C>
  requires(!HostDevice<D> && CollectiveCommunicator<C, D>)
created_store_t<D, compressors_over_ranks<Cs...>, Ts...> create(std::string_view name, std::vector<D> const& devices,
                                                                compressors<Cs...>, C const& communicator) {
  return detail::create_store<created_store_t<D, compressors_over_ranks<Cs...>, Ts...>>(
      name, devices, comm::any_device_communicator<D>(communicator));
}
/// Same, without compression.
template <ElementType... Ts, Device D, Communicator C>
  requires(!HostDevice<D> && CollectiveCommunicator<C, D>)
created_store_t<D, compressors_over_ranks<>, Ts...> create(std::string_view name, std::vector<D> const& devices,
                                                           C const& communicator) {
  return create<Ts...>(name, devices, compressors<>(), communicator);
}
/// Without compression, over a communicator.
template <ElementType... Ts, Device D, Communicator C>
  requires(HostDevice<D> || !CollectiveCommunicator<C, D>)
created_store_t<D, compressors<>, Ts...> create(std::string_view name, std::vector<D> const& devices,
                                                C const& communicator) {
  return create<Ts...>(name, devices, compressors<>(), comm::any_communicator(communicator));
}
/// Without compression.
template <ElementType... Ts, Device D>
created_store_t<D, compressors<>, Ts...> create(std::string_view name, std::vector<D> const& devices) {
  return create<Ts...>(name, devices, compressors<>());
}
/// On one CPU device.
template <ElementType... Ts>
created_store_t<cpu_device<>, compressors<>, Ts...> create(std::string_view name) {
  return create<Ts...>(name, cpu_devices(1), compressors<>());
}

/// From now on `create` of this name, where it would return a `Result`, returns what make(name, devices) returns: a Result, or
/// a user's own Store, which the Result is made of. Replaces an earlier one of that name.
/// @tparam Result  An any_store: `created_store_t<D>` and the like.
template <class Result, class Make>
  requires std::invocable<Make&, std::string const&, std::vector<typename Result::device_type> const&>
void register_store(std::string_view name, Make make) {
  using device = typename Result::device_type;
  detail::store_registry<Result, device>::instance().add(
      detail::lower_case(name), [make](std::string const& type, std::vector<device> const& devices) mutable -> Result {
        if constexpr (std::convertible_to<decltype(make(type, devices)), Result>) {
          return make(type, devices);
        } else {
          return Result(type, make(type, devices));
        }
      });
}

}  // namespace pushpull
