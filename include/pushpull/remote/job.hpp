/// @file
/// The processes of a job with servers, as their launcher started them.
#pragma once

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
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
inline bool is_number_address(std::string const& host) {
  in_addr number;
  return ::inet_pton(AF_INET, host.c_str(), &number) == 1;
}
/// Where the scheduler itself listens: at the address, if that is a number; a name may have any address of this machine.
inline std::string scheduler_listens(launch::process const& p) {
  std::string const address = scheduler_address(p);
  if (is_number_address(p.address)) return address;
  return "tcp://" + std::string(p.address == "localhost" ? "127.0.0.1" : "*") + ":" + std::to_string(p.port);
}
inline bool is_loopback(std::string const& host) { return host == "localhost" || host.starts_with("127."); }
/// The host in "tcp://host:port".
inline std::string host_in(std::string const& address) {
  std::size_t const begin = address.find("://"), end = address.rfind(':');
  return begin == address.npos || end <= begin + 3 ? "" : address.substr(begin + 3, end - begin - 3);
}
/// Where others reach a server that listens at `address`. If that is any address of this machine: at the launcher's one, or
/// the one from which this machine reaches the scheduler. @throws comm_error if it reaches none
inline std::string published(std::string const& address, launch::process const& p) {
  if (host_in(address) != "0.0.0.0") return address;
  std::string host = p.host;
  if (host.empty()) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_DGRAM;  // which sends nothing to connect
    addrinfo* found = nullptr;
    int const own = ::getaddrinfo(p.address.c_str(), std::to_string(p.port).c_str(), &hints, &found) == 0
                        ? ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
                        : -1;
    sockaddr_in name{};
    socklen_t size = sizeof name;
    std::array<char, INET_ADDRSTRLEN> text{};
    if (own >= 0 && ::connect(own, found->ai_addr, found->ai_addrlen) == 0 &&
        ::getsockname(own, reinterpret_cast<sockaddr*>(&name), &size) == 0 &&
        ::inet_ntop(AF_INET, &name.sin_addr, text.data(), text.size()) != nullptr)
      host = text.data();
    if (own >= 0) ::close(own);
    if (found != nullptr) ::freeaddrinfo(found);
  }
  if (host.empty()) throw comm_error(-1, "run_server: this machine has no way to the scheduler at " + p.address);
  return "tcp://" + host + address.substr(address.rfind(':'));
}
inline std::vector<std::string> lines_of(std::string const& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1)
    lines.push_back(text.substr(begin, end - begin));
  return lines;
}

}  // namespace detail

/// The process of DMLC_ROLE=scheduler: returns when all servers have left. @throws comm_error, invalid_argument
inline void run_scheduler(launch::process const& p = launch::environment(), std::uint64_t job = 0) {
  scheduler(detail::scheduler_listens(p), static_cast<std::size_t>(p.servers), job).run();
}

/// The process of DMLC_ROLE=server: serves the store until all workers have left. Of the options, workers and number are the
/// job's. A server of several machines listens at "tcp://*:*", or at an address of this machine that others reach.
/// @param where  remote::optimizers of an any_store, remote::snapshots, or both in this order
/// @throws as server; comm_timeout if there is no scheduler; invalid_argument if the scheduler is on another machine, perhaps,
/// and the server would listen at an address that only this machine reaches
template <class Store, class... Snapshots>
void run_server(Store& store, server_options options = {}, launch::process const& p = launch::environment(),
                Snapshots const&... where) {
  std::string const scheduled = detail::scheduler_address(p);
  pushpull::detail::expects<invalid_argument>(
      detail::is_loopback(p.address) || !detail::is_loopback(detail::host_in(options.address)), [&] {
        return "run_server: the scheduler is at " + scheduled +
               ", so an address that other machines reach is expected, " +
               "such as \"tcp://*:*\", server_options::address is \"" + options.address + "\"";
      });
  detail::scheduler_client scheduler(scheduled, options.job, std::chrono::seconds(30));
  std::int64_t const number = scheduler.ask(message_kind::new_server, 0, "").first.key;
  try {
    options.number = static_cast<std::uint32_t>(number);
    options.workers = static_cast<std::uint32_t>(p.ranks);
    server served(store, where..., options);
    scheduler.ask(message_kind::server_address, number, detail::published(served.address(), p));
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
