/// @file
/// Stores of servers by name: where this header is included, `create` makes them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/launch/environment.hpp>
#include <pushpull/remote/job.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/store/create.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// From now on `create` of a name with "dist" that would return a `Result` connects to the servers of the job in the
/// environment, if it is given no communicator. "dist_async" takes servers that are asynchronous or bounded, other names those
/// with rounds. set_optimizer chooses one of the servers' rules, if they let workers choose, and set_gradient_compression is this
/// worker's.
/// @tparam Result  An any_store: `created_store_t<D>` and the like.
template <class Result>
void register_remote_stores() {
  using device = typename Result::device_type;
  using element = typename Result::value_type;
  pushpull::detail::store_registry<Result, device>::instance().set_remote(
      [](std::string const& type, std::vector<device> const& devices) -> Result {
        launch::process const process = launch::environment();
        pushpull::detail::expects<invalid_argument>(process.servers > 0, [&] {
          return "create: \"" + type +
                 "\" is a store of several processes: a communicator, or DMLC_NUM_SERVER of at least 1 "
                 "in the environment, expected; none came";
        });
        auto store = std::make_unique<remote_store<element, device>>(connect<element>(devices, {}, process));
        bool const wants_rounds = type.find("_async") == std::string::npos;
        pushpull::detail::expects<invalid_argument>(store->has_rounds() == wants_rounds, [&] {
          return "create: \"" + type + "\" is a store of servers " + (wants_rounds ? "with" : "without") +
                 " rounds, the servers of this job are " + (wants_rounds ? "asynchronous" : "in rounds");
        });
        return Result(type, std::move(store));
      });
}

namespace detail {

/// Stores of float on CPUs, as `create(name)` makes them, need no call.
inline bool const registers_remote_stores = (register_remote_stores<created_store_t<cpu_device<>>>(), true);

}  // namespace detail
}  // namespace pushpull::remote
