/// @file
/// Stores by name.
#pragma once

#include <algorithm>
#include <cctype>
#include <concepts>
#include <functional>
#include <map>
#include <mutex>
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

 private:
  mutable std::mutex mutex_;
  std::map<std::string, factory> factories_;
};

}  // namespace detail

/// The result of `create`: `any_store<D, Compressors, Ts...>`, with float for no Ts.
template <Device D, class Compressors = compressors<>, class... Ts>
using created_store_t = typename detail::created_store<D, Compressors, Ts...>::type;

/// A store by name, in any case: a name that was registered, else by its parts. "nccl" and "dist" (also "dist_sync",
/// "dist_async", ...) are stores of several processes; every other name is a store of this process on the given devices,
/// where the devices say what reduces and updates, and the name is only what `type()` returns: "local", "device".
/// @tparam Ts  The element types that keys may have; none: float.
/// The third argument names what set_gradient_compression may be asked for: all_compressors() or compressors<...>(). The
/// communicator is the one that rank(), num_workers() and barrier() ask.
/// @throws invalid_argument on a store of several processes, which this version does not have yet; on no devices; on a name
/// that was registered for other types than those of this call
template <ElementType... Ts, Device D, class... Cs>
created_store_t<D, compressors<Cs...>, Ts...> create(std::string_view name, std::vector<D> const& devices,
                                                     compressors<Cs...>, comm::any_communicator communicator = {}) {
  using store_type = created_store_t<D, compressors<Cs...>, Ts...>;
  std::string type = detail::lower_case(name);
  if (auto const make = detail::store_registry<store_type, D>::instance().find(type)) {
    detail::expects<invalid_argument>(communicator.size() == 1, [&] {
      return "create: \"" + type + "\" was registered as a store that takes no communicator, one of " +
             std::to_string(communicator.size()) + " ranks came";
    });
    return make(type, devices);
  }
  detail::expects<invalid_argument>(!detail::registered_names::instance().contains(type), [&] {
    return "create: \"" + type + "\" was registered for stores on other devices, of other element types or compressors";
  });
  auto const refuse = [&](std::string_view part, std::string_view what, std::string_view option) {
    detail::expects<invalid_argument>(type.find(part) == std::string::npos, [&] {
      return "create: \"" + type + "\" is a store " + std::string(what) +
             ", which this version does not have yet; it will come with the build option " + std::string(option);
    });
  };
  refuse("dist", "of several processes", "PUSHPULL_MPI or PUSHPULL_GLOO");
  refuse("nccl", "over NCCL", "PUSHPULL_NCCL");
  return {std::move(type), devices, std::move(communicator)};
}
/// Without compression, over a communicator.
template <ElementType... Ts, Device D, Communicator C>
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
