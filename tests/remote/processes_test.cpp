/// @file
/// Servers and workers in processes: killed, stopped, late, hostile.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/pushpull.hpp>
#include <pushpull/remote/create.hpp>
#include <pushpull/remote/job.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/remote/server.hpp>
#include <pushpull/remote/snapshots.hpp>

#include "remote/child_process.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace remote = pushpull::remote;
namespace update = pushpull::update;
using pushpull::test::child_process;
using pushpull::test::tell;
using pushpull::test::variable;
using device = pp::cpu_device<pp::serial_system>;
using served_sgd = pp::kv_store<float, device, update::sgd, pp::integer_keys>;
using worker_store = pp::remote_store<float, device>;
using std::chrono::milliseconds;

std::vector<device> const devices{device(0)};
constexpr std::size_t elements = 3000;  // two pieces of 8 KiB

remote::worker_options options_of(std::int64_t rank) {
  remote::worker_options options;
  options.rank = rank;
  options.piece_bytes = 8192;
  options.patience = milliseconds(5000);
  return options;
}

std::vector<std::string> servers_in_environment() { return remote::detail::lines_of(variable("SERVERS")); }

template <class F>
bool soon(F const& holds, milliseconds limit = milliseconds(5000)) {
  for (auto const end = std::chrono::steady_clock::now() + limit; std::chrono::steady_clock::now() < end;) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

}  // namespace

// A worker that pushes 1 to element number RANK, and tells how many pushes were acknowledged.
TEST_CASE("child: worker", "[.child]") {
  auto const rank = static_cast<std::size_t>(std::atoi(variable("RANK").c_str()));
  auto options = options_of(static_cast<std::int64_t>(rank));
  if (auto const text = variable("PATIENCE"); !text.empty()) options.patience = milliseconds(std::atoi(text.c_str()));
  worker_store store(devices, servers_in_environment(), options);
  store.init("w", std::vector<float>(elements));
  std::vector<float> gradient(elements);
  gradient[rank] = 1;
  int const pushes = std::atoi(variable("PUSHES").c_str());
  for (int n = 1; n <= pushes; ++n) try {
      store.push("w", gradient).wait();
      tell(std::to_string(n));
    } catch (pp::server_lost const& lost) {
      return tell(lost.what());
    }
}

TEST_CASE("50 workers that are killed at any time disturb nobody, and acknowledged pushes count once", "[remote]") {
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::server server(served, {.workers = 1, .dead_after = milliseconds(300)});
  worker_store store(devices, {server.address()}, options_of(0));
  store.init("w", std::vector<float>(elements));
  std::mt19937 random(1);
  std::vector<float> own(elements), weights(elements);
  own[0] = 1;
  int pushes = 0;
  std::map<std::size_t, int> acknowledged;
  constexpr std::size_t killed = 50, at_once = 5;
  for (std::size_t first = 1; first <= killed; first += at_once) {
    std::vector<std::unique_ptr<child_process>> workers;
    for (std::size_t rank = first; rank < first + at_once; ++rank)
      workers.push_back(std::make_unique<child_process>(
          "child: worker",
          std::map<std::string, std::string>{
              {"RANK", std::to_string(rank)}, {"PUSHES", "1000000"}, {"SERVERS", server.address() + "\n"}}));
    for (auto& worker : workers) REQUIRE(worker->line() == "1");
    std::size_t rank = first;
    for (auto& worker : workers) {
      auto const end = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 20000);
      while (std::chrono::steady_clock::now() < end) {
        store.push("w", own).wait();
        ++pushes;
      }
      worker->send(SIGKILL);
      std::string const last = worker->last_line();
      acknowledged[rank++] = last.empty() ? 1 : std::atoi(last.c_str());
    }
  }
  store.pull("w", weights).wait();
  REQUIRE(weights[0] == -static_cast<float>(pushes));
  for (auto const& [rank, count] : acknowledged) {
    REQUIRE(weights[rank] <= -static_cast<float>(count));
    REQUIRE(weights[rank] >= -static_cast<float>(count + 1));  // the last one may be applied and not acknowledged
  }
  REQUIRE(soon([&] { return store.num_dead_node() == static_cast<int>(killed); }));
}

// A process of a job that MXNet's launcher starts.
TEST_CASE("child: process of a job", "[.child]") {
  auto const process = pp::launch::environment();
  if (process.role == pp::launch::process_role::scheduler) return remote::run_scheduler(process);
  if (process.role == pp::launch::process_role::server) {
    served_sgd served(devices, update::sgd{.learning_rate = 1});
    remote::server_options options{.consistency = remote::rounds{}};
    if (variable("CONSISTENCY") == "asynchronous") options.consistency = remote::asynchronous{};
    return remote::run_server(served, options, process);
  }
  if (std::string const type = variable("TYPE"); !type.empty()) {
    std::vector<float> weights(elements);
    try {
      auto store = pp::create(type);
      store.init("w", weights);
      std::vector<float> const gradient(elements, 1.0F);
      store.pushpull("w", gradient, weights).wait();
      tell(store.type() + ": " + std::to_string(weights[0] < 0));
    } catch (pp::invalid_argument const& refused) {
      tell(refused.what());
    }
    return;
  }
  auto store = remote::connect<float>(devices, options_of(-1), process);
  std::vector<float> weights(elements);
  store.init("w", weights);
  std::vector<float> const gradient(elements, static_cast<float>(1 + store.rank()));
  for (int step = 0; step < 10; ++step) store.pushpull("w", gradient, weights).wait();
  store.barrier();
  for (float const w : weights) pp::test::expect(w == -10.0F * (1 + 2 + 3));
  tell("rank " + std::to_string(store.rank()) + " of " + std::to_string(store.num_workers()));
}

TEST_CASE("MXNet's variables start scheduler, servers and workers", "[remote]") {
  remote::scheduler scheduler("tcp://127.0.0.1:*", 2);  // with the port that a real one would be given
  std::thread running([&] { scheduler.run(); });
  auto const start = [&](std::string const& role) {
    std::string const& address = scheduler.address();
    return std::make_unique<child_process>(
        "child: process of a job",
        std::map<std::string, std::string>{{"DMLC_ROLE", role},
                                           {"DMLC_PS_ROOT_URI", "127.0.0.1"},
                                           {"DMLC_PS_ROOT_PORT", address.substr(address.rfind(':') + 1)},
                                           {"DMLC_NUM_SERVER", "2"},
                                           {"DMLC_NUM_WORKER", "3"}});
  };
  std::vector<std::unique_ptr<child_process>> workers, servers;
  for (int n = 0; n < 3; ++n) workers.push_back(start("worker"));
  for (int n = 0; n < 2; ++n) servers.push_back(start("server"));
  std::vector<std::string> told;
  for (auto& worker : workers) {
    told.push_back(worker->line());
    CHECK(worker->wait());
  }
  std::sort(told.begin(), told.end());
  CHECK(told == std::vector<std::string>{"rank 0 of 3", "rank 1 of 3", "rank 2 of 3"});
  for (auto& server : servers) CHECK(server->wait());  // the workers have left
  scheduler.stop();                                    // if a server has not said goodbye
  running.join();
}

TEST_CASE("a server that cannot start, or is of another job or machine, says so and keeps no scheduler waiting",
          "[remote]") {
  pp::launch::process process;
  process.servers = process.ranks = 1;
  process.address = "localhost";
  process.port = [] {  // one that is free
    remote::scheduler const other("tcp://127.0.0.1:*", 1);
    return std::atoi(other.address().substr(other.address().rfind(':') + 1).c_str());
  }();
  std::string failure;
  std::thread running([&] {
    for (int attempt = 0; attempt < 200; ++attempt) {
      try {
        remote::run_scheduler(process, 5);
        failure.clear();
        return;
      } catch (std::exception const& e) {  // another program has taken the port meanwhile
        failure = e.what();
      }
      std::this_thread::sleep_for(milliseconds(100));
    }
  });
  served_sgd served(devices, update::sgd{});
  CHECK(pp::test::message_of<pp::comm_error>([&] {
          remote::run_server(served, {.job = 7}, process);
        }).find("another job than number 7") != std::string::npos);
  CHECK_THROWS_AS(remote::run_server(served, {.address = "tcp://nowhere:1", .job = 5}, process), pp::comm_error);
  running.join();
  CHECK(failure.empty());
  CHECK(remote::detail::published("tcp://0.0.0.0:41", process) == "tcp://127.0.0.1:41");
  CHECK(remote::detail::published("tcp://10.0.0.8:41", process) == "tcp://10.0.0.8:41");
  process.host = "10.0.0.7";
  CHECK(remote::detail::published("tcp://0.0.0.0:41", process) == "tcp://10.0.0.7:41");
  process.address = "10.0.0.1";
  CHECK_THROWS_AS(remote::run_server(served, {}, process), pp::invalid_argument);
}

TEST_CASE("a worker that is stopped is dead within a second, and goes on when it continues", "[remote]") {
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::server server(served, {.workers = 2, .dead_after = milliseconds(600)});
  worker_store store(devices, {server.address()}, options_of(0));
  store.init("w", std::vector<float>(elements));
  child_process worker("child: worker",
                       {{"RANK", "1"}, {"PUSHES", "50"}, {"PATIENCE", "1000"}, {"SERVERS", server.address() + "\n"}});
  REQUIRE(worker.line() == "1");
  worker.send(SIGSTOP);
  REQUIRE(soon([&] { return store.num_dead_node() == 1; }));
  std::this_thread::sleep_for(milliseconds(1000));  // longer than its patience
  worker.send(SIGCONT);
  REQUIRE(worker.last_line() == "50");
  REQUIRE(worker.wait());
  std::vector<float> weights(elements);
  store.pull("w", weights).wait();
  REQUIRE(weights[1] == -50);
  REQUIRE(soon([&] { return store.num_dead_node() == 0; }));
}

TEST_CASE("a worker that was stopped, and whose rank another one has, is told so", "[remote]") {
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::server server(served, {.workers = 2, .dead_after = milliseconds(600)});
  worker_store store(devices, {server.address()}, options_of(0));
  store.init("w", std::vector<float>(elements));
  child_process worker(
      "child: worker",
      {{"RANK", "1"}, {"PUSHES", "1000000"}, {"PATIENCE", "700"}, {"SERVERS", server.address() + "\n"}});
  REQUIRE(worker.line() == "1");
  worker.send(SIGSTOP);
  REQUIRE(soon([&] { return store.num_dead_node() == 1; }));
  worker_store other(devices, {server.address()}, options_of(-1));
  REQUIRE(other.rank() == 1);
  worker.send(SIGCONT);
  REQUIRE(worker.last_line() == "remote_store: server 0 at " + server.address() +
                                    " has not welcomed this worker for 700 ms: a worker of rank 1 is alive in another "
                                    "process");
}

TEST_CASE("a round ends with an error if a worker dies, or goes on without it", "[remote]") {
  bool const goes_on = GENERATE(false, true);
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::server server(
      served, {.workers = 2, .consistency = remote::rounds{.goes_on = goes_on}, .dead_after = milliseconds(2000)});
  worker_store store(devices, {server.address()}, options_of(0));
  std::vector<float> weights(elements), gradient(elements);
  gradient[0] = 1;
  child_process worker("child: worker", {{"RANK", "1"}, {"PUSHES", "1000"}, {"SERVERS", server.address() + "\n"}});
  store.init("w", weights);
  for (int n = 0; n < 20; ++n) store.push("w", gradient).wait();
  worker.send(SIGKILL);
  int pushes = 20;
  try {
    for (; pushes < 1500; ++pushes) store.push("w", gradient).wait();
  } catch (pp::comm_error const& lost) {
    REQUIRE(std::string(lost.what()) == "push: worker 1 died, and the round cannot be completed");
  }
  REQUIRE((pushes == 1500) == goes_on);
  store.pull("w", weights).wait();
  REQUIRE(weights[0] == -static_cast<float>(pushes));
}

TEST_CASE("100,000 hostile messages are dropped or refused, and workers go on", "[remote]") {
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::server server(served, {.workers = 1, .largest_payload = 1 << 20});
  worker_store store(devices, {server.address()}, options_of(0));
  store.init("w", std::vector<float>(elements));
  std::vector<float> const gradient(elements, 1.0F);
  std::mt19937 random(7);
  auto const bytes = [&](std::size_t count) {
    std::string text(count, '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  };
  zmq::context_t context(1);
  zmq::socket_t hostile(context, zmq::socket_type::dealer);
  hostile.set(zmq::sockopt::sndhwm, 0);
  hostile.set(zmq::sockopt::linger, 0);
  hostile.connect(server.address());
  std::string const whole_push(elements * 4, '\0');
  for (int n = 0; n < 100'000; ++n) {
    remote::message_header h;
    h.kind = static_cast<remote::message_kind>(random() % 30);
    h.element = random() % 8 == 0 ? static_cast<std::uint8_t>(random()) : remote::element_code<float>;
    h.worker = static_cast<std::uint32_t>(random() % 3);
    h.incarnation = random();
    h.sequence = random();
    h.key = static_cast<std::int64_t>(random() % 3) - 1;
    h.piece = static_cast<std::uint32_t>(random() % 3);
    h.elements = random() % 2 == 0 ? 2048 : random();
    h.row_length = random() % 2;
    h.job = random() % 8 == 0 ? 1 : 0;
    if (h.kind == remote::message_kind::hello) h.job = 1;  // who says hello properly is no stranger
    if (random() % 2 == 0) {                               // but half of them come from one who did
      h.worker = 5;
      h.incarnation = 99;
    }
    std::string const body = random() % 8 == 0 ? whole_push : bytes(random() % 64);
    h.payload_bytes = random() % 16 == 0 ? random() : body.size();
    auto frame = remote::to_frame(h);
    switch (random() % 8) {
      case 0: hostile.send(zmq::buffer(bytes(random() % 200)), zmq::send_flags::none); break;
      case 1:
        for (int part = 0; part < 5; ++part) hostile.send(zmq::buffer(body), zmq::send_flags::sndmore);
        hostile.send(zmq::buffer(body), zmq::send_flags::none);
        break;
      case 2: frame[random() % frame.size()] ^= std::byte{4}; [[fallthrough]];
      default:
        hostile.send(zmq::buffer(frame.data(), frame.size() - (random() % 16 == 0 ? 1 : 0)), zmq::send_flags::sndmore);
        hostile.send(zmq::buffer(body), zmq::send_flags::none);
    }
    if (n % 100 == 0)  // again after a goodbye
      remote::detail::send_message(hostile, {.kind = remote::message_kind::hello, .worker = 5, .incarnation = 99}, {});
    if (n % 1000 == 0) {  // bytes that are no ZeroMQ, and a message that is too long
      int const raw = ::socket(AF_INET, SOCK_STREAM, 0);
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_port = htons(
          static_cast<std::uint16_t>(std::atoi(server.address().substr(server.address().rfind(':') + 1).c_str())));
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      if (::connect(raw, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0) {
        std::string const garbage = bytes(4096);
        (void)!::send(raw, garbage.data(), garbage.size(), MSG_NOSIGNAL);
      }
      ::close(raw);
      store.push("w", gradient).wait();
    }
  }
  zmq::socket_t oversized(context, zmq::socket_type::dealer);
  oversized.set(zmq::sockopt::linger, 200);
  oversized.connect(server.address());
  oversized.send(zmq::buffer(std::string(8 << 20, 'x')), zmq::send_flags::none);
  REQUIRE(soon([&] {  // the server has read them
    auto const counts = nlohmann::json::parse(store.server_counts(0));
    return counts.at("malformed") > 10'000 && counts.at("refused") > 10'000;
  }));
  std::vector<float> weights(elements);
  for (int n = 0; n < 100; ++n) store.pushpull("w", gradient, weights).wait();
  for (float const w : weights) REQUIRE(w == -200);
  REQUIRE(store.num_dead_node() <= 1);  // the hostile one, when it has fallen silent
}

TEST_CASE("create connects to the servers of the job, if they work as the name says", "[remote]") {
  remote::scheduler scheduler("tcp://127.0.0.1:*", 1);
  std::thread running([&] { scheduler.run(); });
  auto const start = [&](std::string const& role, std::string const& type) {
    std::string const& address = scheduler.address();
    return std::make_unique<child_process>(
        "child: process of a job",
        std::map<std::string, std::string>{{"DMLC_ROLE", role},
                                           {"DMLC_PS_ROOT_URI", "127.0.0.1"},
                                           {"DMLC_PS_ROOT_PORT", address.substr(address.rfind(':') + 1)},
                                           {"DMLC_NUM_SERVER", "1"},
                                           {"DMLC_NUM_WORKER", "2"},
                                           {"CONSISTENCY", "asynchronous"},
                                           {"TYPE", type}});
  };
  auto const server = start("server", "");
  auto const worker = start("worker", "Dist_Async"), other = start("worker", "dist_sync");
  CHECK(worker->line() == "dist_async: 1");
  CHECK(other->line() ==
        "create: \"dist_sync\" is a store of servers with rounds, the servers of this job are asynchronous");
  CHECK(worker->wait());
  CHECK(other->wait());
  CHECK(server->wait());
  scheduler.stop();
  running.join();
}

// A server at ADDRESS with snapshots in FOLDER, which tells its address.
TEST_CASE("child: server", "[.child]") {
  served_sgd served(devices, update::sgd{.learning_rate = 1});
  remote::snapshots const where{
      .folder = variable("FOLDER"), .every = std::chrono::hours(1), .durable = !variable("DURABLE").empty()};
  remote::server server(served, where, {.address = variable("ADDRESS")});
  tell(server.address());
  server.wait();
}

TEST_CASE("20 servers that are killed at any time lose no push that they acknowledged, if they are durable",
          "[remote]") {
  pp::test::temporary_folder const folder;
  std::map<std::string, std::string> variables{
      {"ADDRESS", "tcp://127.0.0.1:*"}, {"FOLDER", folder.file("snapshots").string()}, {"DURABLE", "1"}};
  auto server = std::make_unique<child_process>("child: server", variables);
  std::string const address = server->line();
  variables["ADDRESS"] = address;
  worker_store store(devices, {address}, options_of(0));
  std::vector<float> weights(elements), gradient(elements, 1.0F);
  store.init("w", weights);
  std::mt19937 random(3);
  int pushes = 0;
  for (int killed = 0; killed < 20; ++killed) {
    auto const pushed = store.push("w", gradient);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 30000));
    server->send(SIGKILL);
    server->wait();
    server = std::make_unique<child_process>("child: server", variables);
    REQUIRE(server->line() == address);
    pushed.wait();
    store.pushpull("w", gradient, weights).wait();
    pushes += 2;
    REQUIRE(weights == std::vector<float>(elements, -static_cast<float>(pushes)));
  }
}

TEST_CASE("a server that is stopped is waited for, or lost if it is silent for too long, until it continues",
          "[remote]") {
  pp::test::temporary_folder const folder;
  child_process server("child: server",
                       {{"ADDRESS", "tcp://127.0.0.1:*"}, {"FOLDER", folder.file("snapshots").string()}});
  auto options = options_of(0);
  options.patience = milliseconds(2000);
  worker_store store(devices, {server.line()}, options);
  std::vector<float> before(elements), after(elements), gradient(elements, 1.0F);
  store.init("w", after);
  store.push("w", gradient).wait();
  server.stop();
  auto const pushed = store.push("w", gradient);
  std::this_thread::sleep_for(milliseconds(600));
  server.send(SIGCONT);
  pushed.wait();
  store.pull("w", after).wait();
  REQUIRE(after == std::vector<float>(elements, -2.0F));
  server.stop();
  REQUIRE_THROWS_AS(store.push("w", gradient).wait(), pp::server_lost);  // the server may find its pieces in the socket
  server.send(SIGCONT);
  REQUIRE(soon([&] {
    try {
      store.pull("w", before).wait();
      return true;
    } catch (pp::server_lost const&) {
      return false;
    }
  }));
  for (float const weight : before) REQUIRE((weight == -2 || weight == -3));
  store.pushpull("w", gradient, after).wait();
  for (std::size_t i = 0; i < elements; ++i) REQUIRE(after[i] == before[i] - 1);
}

TEST_CASE("a server that is started again goes on from its newest whole snapshot", "[remote]") {
  pp::test::temporary_folder const folder;
  std::map<std::string, std::string> variables{{"ADDRESS", "tcp://127.0.0.1:*"},
                                               {"FOLDER", folder.file("snapshots").string()}};
  auto server = std::make_unique<child_process>("child: server", variables);
  std::string const address = server->line();
  variables["ADDRESS"] = address;
  auto options = options_of(0);
  options.patience = milliseconds(2000);
  worker_store store(devices, {address}, options);
  std::vector<float> weights(elements), gradient(elements, 1.0F);
  store.init("w", weights);
  store.set_hyperparameters(update::sgd{.learning_rate = 4});
  store.set_multipliers("w", 0.5);
  store.save_snapshots();
  for (int n = 0; n < 3; ++n) store.push("w", gradient).wait();
  store.save_snapshots();
  store.push("w", gradient).wait();  // acknowledged, and lost
  server->send(SIGKILL);
  server->wait();
  REQUIRE_THROWS_AS(store.push("w", gradient).wait(), pp::server_lost);
  // If the newest snapshot is damaged, the one before is taken.
  auto const newest = pp::checkpoint::list(folder.file("snapshots") / "server-0").front();
  enum class damage { none, of_values, of_pieces };
  damage const done = GENERATE(damage::none, damage::of_values, damage::of_pieces);
  if (done == damage::of_values) {
    std::fstream file(newest.path / pp::checkpoint::detail::rank_file_name(0),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
    REQUIRE(file.good());
  } else if (done == damage::of_pieces) {
    auto const path = folder.file("snapshots") / "server-0" / ("pieces-" + std::to_string(newest.step) + ".json");
    REQUIRE(std::filesystem::exists(path));
    std::ofstream(path) << R"([{"key": 0, "piece": 0, "elements": )" << elements
                        << R"(, "row_length": 1, "applied": []}])";  // no version
  }
  server = std::make_unique<child_process>("child: server", variables);
  REQUIRE(server->line() == address);
  REQUIRE(soon([&] {
    try {
      store.pull("w", weights).wait();
      return true;
    } catch (pp::server_lost const&) {
      return false;
    }
  }));
  float const expected = done == damage::none ? -6.0F : 0.0F;
  REQUIRE(weights == std::vector<float>(elements, expected));
  worker_store late(devices, {address}, options_of(1));
  late.init("w", weights);  // has its value
  late.pushpull("w", gradient, weights).wait();
  REQUIRE(weights == std::vector<float>(elements, expected - 2));  // what workers had set holds
}

TEST_CASE("a server that is killed has all values that init has returned for, without a snapshot of each", "[remote]") {
  pp::test::temporary_folder const folder;
  auto const place = folder.file("snapshots");
  std::map<std::string, std::string> variables{{"ADDRESS", "tcp://127.0.0.1:*"}, {"FOLDER", place.string()}};
  auto server = std::make_unique<child_process>("child: server", variables);
  std::string const address = server->line();
  variables["ADDRESS"] = address;
  worker_store store(devices, {address}, options_of(0));
  int keys = 0;
  for (int life = 0; life < 3; ++life) {
    for (int n = 0; n < 10; ++n, ++keys) store.init(keys, std::vector<float>(elements, static_cast<float>(keys)));
    REQUIRE(pp::checkpoint::list(place / "server-0").empty());
    server->send(SIGKILL);
    server->wait();
    // As if it had been killed while it wrote.
    if (life == 0) std::ofstream(place / "server-0" / "values-1.bin", std::ios::app) << "half of a value";
    server = std::make_unique<child_process>("child: server", variables);
    REQUIRE(server->line() == address);
    std::vector<float> weights(elements);
    for (int key = 0; key < keys; ++key) {
      store.pull(key, weights).wait();
      REQUIRE(weights == std::vector<float>(elements, static_cast<float>(key)));
    }
  }
  store.save_snapshots();
  store.save_snapshots();
  REQUIRE(!std::filesystem::exists(place / "server-0" / "values-1.bin"));
}
