/// @file
/// Stores by name.
#pragma once

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/any_store.hpp>

namespace pushpull {

namespace detail {

inline std::string lower_case(std::string_view name) {
  std::string result(name);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

/// any_store of element types `Ts`, of float where there are none.
template <Device D, class... Ts>
struct created_store {
  using type = any_store<D, Ts...>;
};
template <Device D>
struct created_store<D> {
  using type = any_store<D, float>;
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

/// What `create` returns: `any_store<D, Ts...>`, with float for no Ts.
template <Device D, class... Ts>
using created_store_t = typename detail::created_store<D, Ts...>::type;

/// A store by name, in any case: a name that was registered, else by its parts. "nccl" and "dist" (also "dist_sync",
/// "dist_async", ...) are stores of several processes; every other name is a store of this process on the given devices,
/// where the devices say what reduces and updates, and the name is only what `type()` returns: "local", "device".
/// @tparam Ts  The element types that keys may have; none: float.
/// @throws invalid_argument on a store of several processes, which this build does not have; on no devices
template <ElementType... Ts, Device D>
created_store_t<D, Ts...> create(std::string_view name, std::vector<D> const& devices) {
  std::string type = detail::lower_case(name);
  if (auto const make = detail::store_registry<created_store_t<D, Ts...>, D>::instance().find(type))
    return make(type, devices);
  auto const refuse = [&](std::string_view part, std::string_view what, std::string_view option) {
    detail::expects<invalid_argument>(type.find(part) == std::string::npos, [&] {
      return "create: \"" + type + "\" is a store " + std::string(what) + ", which comes with the build option " +
             std::string(option) + "; this build is without it";
    });
  };
  refuse("dist", "of several processes", "PUSHPULL_MPI or PUSHPULL_GLOO");
  refuse("nccl", "over NCCL", "PUSHPULL_NCCL");
  return {std::move(type), devices};
}
/// On one CPU device.
template <ElementType... Ts>
created_store_t<cpu_device<>, Ts...> create(std::string_view name) {
  return create<Ts...>(name, cpu_devices(1));
}

/// From now on `create<Ts...>(name, devices)` returns make(name, devices). Replaces an earlier one of that name.
template <ElementType... Ts, Device D>
void register_store(std::string_view name,
                    std::function<created_store_t<D, Ts...>(std::string const&, std::vector<D> const&)> make) {
  detail::store_registry<created_store_t<D, Ts...>, D>::instance().add(detail::lower_case(name), std::move(make));
}

}  // namespace pushpull
