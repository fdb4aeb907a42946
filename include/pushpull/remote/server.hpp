/// @file
/// A server: a kv_store that workers in other processes push to and pull from.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/router.hpp>
#include <pushpull/remote/served_store.hpp>
#include <pushpull/remote/server_rules.hpp>
#include <pushpull/remote/snapshot_keeper.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

struct snapshots;

/// Serves a kv_store to workers from a thread of its own. The store has integer keys and no keys yet; nobody else uses it
/// meanwhile. It may have any devices, element policy and reduction. The rule takes no sums over keys, and no statistics of rows and
/// columns. With sums over a tensor each key is whole on one server.
///
///     kv_store<float, cpu_device<>, update::adam, integer_keys> store{cpu_devices(1), update::adam{}};
///     remote::server server{store, {.workers = 3}};
///     publish(server.address());
///     server.wait();  // until the workers have left
class server {
 public:
  /// Listens when it returns. @param store  Borrowed. @throws comm_error if it cannot; invalid_argument
  template <class Store>
  explicit server(Store& store, server_options options = {})
      : server(std::make_unique<detail::served<Store>>(store), nullptr, checked(std::move(options))) {}
  /// Same, but goes on from the newest snapshot in a folder, and writes further ones: include remote/snapshots.hpp.
  /// @throws also file_error
  template <class Store>
  server(Store& store, snapshots const& where, server_options options = {})
      : server(std::make_unique<detail::served<Store>>(store), keeper_of(store, where, options.number),
               checked(std::move(options))) {}
  /// Serves an any_store, whose rule workers choose out of these with `set_optimizer`; until then pushes replace values.
  ///
  ///     any_store<cpu_device<>, compressors<>, float> store{"server", cpu_devices(1)};
  ///     remote::server server{store, remote::optimizers{update::sgd{}, update::adam{}}, {.workers = 3}};
  template <class Store, class Rule, class... Rules>
  server(Store& store, optimizers<Rule, Rules...> const& rules, server_options options = {})
      : server(std::make_unique<detail::served<Store, detail::chosen_rule<Store, Rule, Rules...>>>(store, rules),
               nullptr, checked(std::move(options))) {}
  /// Same, with snapshots.
  template <class Store, class Rule, class... Rules>
  server(Store& store, optimizers<Rule, Rules...> const& rules, snapshots const& where, server_options options = {})
      : server(std::make_unique<detail::served<Store, detail::chosen_rule<Store, Rule, Rules...>>>(store, rules),
               keeper_of(store, where, options.number), checked(std::move(options))) {}
  server(server const&) = delete;
  server& operator=(server const&) = delete;
  ~server() {
    stop();
    join();
  }

  /// The address that workers connect to: "tcp://127.0.0.1:40123".
  std::string const& address() const { return router_.address(); }
  /// Returns when no worker is left, or when `stop` was called. One thread calls it. @throws what the server failed with
  void wait() {
    join();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }
  /// Ends the server soon. From any thread.
  void stop() noexcept { router_.stop(); }

 private:
  server(std::unique_ptr<detail::served_store> store, std::unique_ptr<detail::snapshot_keeper> keeper,
         server_options options)
      : store_(std::move(store)), router_(*store_, std::move(options), std::move(keeper)) {
    thread_ = std::thread([this] {
      try {
        router_.run();
      } catch (...) {
        failure_ = std::current_exception();
      }
    });
  }

  static server_options checked(server_options options) {
    pushpull::detail::expects<invalid_argument>(
        options.workers >= 1, [] { return std::string("server: at least 1 worker expected, got 0"); });
    pushpull::detail::expects<invalid_argument>(options.dead_after.count() > 0, [&] {
      return "server: dead_after above 0 ms expected, got " + std::to_string(options.dead_after.count()) + " ms";
    });
    return options;
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  std::unique_ptr<detail::served_store> store_;
  detail::router router_;
  std::exception_ptr failure_;  // of the thread, until it is joined
  std::thread thread_;
};

}  // namespace pushpull::remote
