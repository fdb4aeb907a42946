/// @file
/// The processes of a job with servers, as their launcher started them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/launch/environment.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/remote/scheduler.hpp>
#include <pushpull/remote/server.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

namespace detail {

/// Where the scheduler of a job listens. @throws invalid_argument if the launcher did not say so
inline std::string scheduler_address(launch::process const& p) {
  pushpull::detail::expects<invalid_argument>(p.servers > 0 && !p.address.empty() && p.port > 0, [&] {
    return "a job with servers expected: DMLC_NUM_SERVER is " + std::to_string(p.servers) + ", DMLC_PS_ROOT_URI \"" +
           p.address + "\", DMLC_PS_ROOT_PORT " + std::to_string(p.port);
  });
  return "tcp://" + p.address + ":" + std::to_string(p.port);
}
inline std::vector<std::string> lines_of(std::string const& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  return lines;
}

}  // namespace detail

/// The process of DMLC_ROLE=scheduler: returns when all servers have left. @throws comm_error, invalid_argument
inline void run_scheduler(launch::process const& p = launch::environment()) {
  scheduler(detail::scheduler_address(p), static_cast<std::size_t>(p.servers)).run();
}

/// The process of DMLC_ROLE=server: serves the store until all workers have left. Of the options, workers and number are the
/// job's.
/// @param where  remote::optimizers of an any_store, remote::snapshots, or both in this order
/// @throws as server; comm_timeout if there is no scheduler
template <class Store, class... Snapshots>
void run_server(Store& store, server_options options = {}, launch::process const& p = launch::environment(),
                Snapshots const&... where) {
  detail::scheduler_client scheduler(detail::scheduler_address(p), options.job, std::chrono::seconds(30));
  std::int64_t const number = scheduler.ask(message_kind::new_server, 0, "").first.key;
  options.number = static_cast<std::uint32_t>(number);
  options.workers = static_cast<std::uint32_t>(p.ranks);
  server served(store, where..., options);
  scheduler.ask(message_kind::server_address, number, served.address());
  try {
    served.wait();
  } catch (...) {
    scheduler.say_goodbye(number);  // else the scheduler waits for this server for ever
    throw;
  }
  scheduler.say_goodbye(number);
}

/// The store of a worker of the job. @throws as remote_store; comm_timeout if there is no scheduler
template <ElementType T, Device D>
remote_store<T, D> connect(std::vector<D> const& devices, worker_options options = {},
                           launch::process const& p = launch::environment()) {
  detail::scheduler_client scheduler(detail::scheduler_address(p), options.job, options.patience);
  auto const servers = detail::lines_of(scheduler.ask(message_kind::list_servers, 0, "").second);
  if (options.rank < 0) options.rank = p.rank;
  return remote_store<T, D>(devices, servers, options);
}

}  // namespace pushpull::remote
