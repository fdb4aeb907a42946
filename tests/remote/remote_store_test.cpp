/// @file
/// Stores on servers, with servers and workers in threads of this process.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include <pushpull/pushpull.hpp>
#include <pushpull/remote/outer_steps.hpp>
#include <pushpull/remote/remote_store.hpp>
#include <pushpull/remote/server.hpp>
#include <pushpull/remote/snapshots.hpp>

#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/message_of.hpp"
#include "support/sanitized.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace remote = pushpull::remote;
namespace update = pushpull::update;
using pushpull::test::expect;
using device = pp::cpu_device<pp::serial_system>;
using served_adam = pp::kv_store<float, device, update::adam, pp::integer_keys>;
using served_sgd = pp::kv_store<float, device, update::sgd, pp::integer_keys>;
using worker_store = pp::remote_store<float, device>;
using std::chrono::milliseconds;

std::vector<device> const devices{device(0)};

std::vector<float> values(std::size_t n, std::size_t seed) {
  std::vector<float> result(n);
  for (std::size_t i = 0; i < n; ++i) result[i] = static_cast<float>((i * 7919 + seed * 104729) % 1009) / 1009 - 0.5F;
  return result;
}

/// Servers of one job in this process.
template <class Store>
struct server_set {
  template <class Rule>
  server_set(std::size_t count, Rule const& rule, remote::server_options options = {}) {
    for (std::size_t n = 0; n < count; ++n) {
      options.number = static_cast<std::uint32_t>(n);
      stores.emplace_back(devices, rule);
      servers.emplace_back(std::make_unique<remote::server>(stores.back(), options));
      addresses.push_back(servers.back()->address());
    }
  }
  std::deque<Store> stores;
  std::vector<std::unique_ptr<remote::server>> servers;
  std::vector<std::string> addresses;
};

/// Runs f(rank) in a thread per worker. @throws the first error
void run_workers(std::size_t count, std::function<void(std::size_t)> const& f) {
  std::vector<std::thread> threads;
  std::vector<std::exception_ptr> errors(count);
  for (std::size_t rank = 0; rank < count; ++rank)
    threads.emplace_back([&, rank] {
      try {
        f(rank);
      } catch (...) {
        errors[rank] = std::current_exception();
      }
    });
  for (auto& thread : threads) thread.join();
  for (auto const& error : errors)
    if (error) std::rethrow_exception(error);
}

remote::worker_options of_rank(std::size_t rank) {
  remote::worker_options options;
  options.rank = static_cast<std::int64_t>(rank);
  options.patience = milliseconds(5000);
  return options;
}

/// A worker that sends single messages.
struct raw_worker {
  explicit raw_worker(std::string const& address) {
    socket.set(zmq::sockopt::linger, 0);
    socket.connect(address);
  }
  void send(remote::message_header const& h, std::span<std::byte const> payload = {}) {
    REQUIRE(remote::detail::send_message(socket, h, zmq::message_t(payload.data(), payload.size())));
  }
  /// The header of the answer, whose payload is in `answer`.
  remote::message_header ask(remote::message_header const& h, std::span<std::byte const> payload = {}) {
    send(h, payload);
    zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
    REQUIRE(zmq_poll(&item, 1, 5000) == 1);
    REQUIRE(remote::detail::receive_message(socket, false, answer));
    auto const header = remote::header_in(remote::detail::bytes_of(answer.head));
    REQUIRE(header);
    return *header;
  }

  zmq::context_t context{1};
  zmq::socket_t socket{context, zmq::socket_type::dealer};
  remote::detail::received_message answer;
};

template <class F>
bool soon(F const& holds) {
  for (auto const end = std::chrono::steady_clock::now() + milliseconds(5000);
       std::chrono::steady_clock::now() < end;) {
    if (holds()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

}  // namespace

TEST_CASE("one worker and servers give the bits of a local store", "[remote]") {
  std::size_t const count = GENERATE(1U, 3U);
  server_set<served_adam> servers(count, update::adam{.learning_rate = 0.1});
  auto options = of_rank(0);
  options.piece_bytes = 8192;
  worker_store store(devices, servers.addresses, options);
  pp::kv_store<float, device, update::adam> local(devices, update::adam{.learning_rate = 0.1});
  REQUIRE(store.rank() == 0);
  REQUIRE(store.num_workers() == 1);
  REQUIRE(store.num_servers() == count);
  REQUIRE(store.has_updater());
  REQUIRE(store.type() == "dist_async");
  REQUIRE(store.is_capable("optimizer"));
  for (std::size_t const n : {0U, 1U, 7U, 1000U, 2048U, 2049U, 30011U}) {
    std::string const key = "w" + std::to_string(n);
    auto const initial = values(n, 1);
    store.init(key, initial);
    local.init(key, initial);
    std::vector<float> got(n), expected(n);
    for (std::size_t step = 0; step < 4; ++step) {
      auto const gradient = values(n, step + 2);
      store.push(key, gradient).wait();
      local.push(key, gradient).wait();
      store.pull(key, got).wait();
      local.pull(key, expected).wait();
      REQUIRE(got == expected);
      store.pushpull(key, gradient, got).wait();
      local.pushpull(key, gradient, expected).wait();
      REQUIRE(got == expected);
    }
  }
}

TEST_CASE("lists, several sources and outputs, and tensors of rank 2 mean what they mean on a kv_store", "[remote]") {
  server_set<served_adam> servers(2, update::adam{.learning_rate = 0.1});
  std::vector<device> const two{device(0), device(1)};
  worker_store store(two, servers.addresses, of_rank(0));
  pp::kv_store<float, device, update::adam, pp::any_keys> local(two, update::adam{.learning_rate = 0.1});
  pp::tensor<float, device> a(two[0], pp::shape{5, 3}), b(two[1], pp::shape{7});
  std::fill_n(a.data(), a.size(), 0.5F);
  std::fill_n(b.data(), b.size(), -1.0F);
  auto const run = [&](auto& s) {
    std::vector<pp::any_key> const keys{pp::any_key("a"), pp::any_key("b")};
    std::vector<pp::tensor_view<float, device>> const initial{a.view(), b.view()};
    s.init(keys, initial);
    auto const ga0 = values(15, 3), ga1 = values(15, 4), gb0 = values(7, 5);
    using constant = pp::tensor_view<float const, device>;
    std::vector<std::vector<constant>> const gradients{
        {constant(ga0.data(), a.shape(), two[0]), constant(ga1.data(), a.shape(), two[1])},
        {constant(gb0.data(), b.shape(), two[0])}};
    std::vector<std::vector<float>> results(3);
    results[0].resize(15), results[1].resize(15), results[2].resize(7);
    using writable = pp::tensor_view<float, device>;
    std::vector<std::vector<writable>> const outputs{
        {writable(results[0].data(), a.shape(), two[0]), writable(results[1].data(), a.shape(), two[1])},
        {writable(results[2].data(), b.shape(), two[1])}};
    for (int step = 0; step < 3; ++step) s.pushpull(keys, gradients, outputs);
    s.wait();
    return results;
  };
  REQUIRE(run(store) == run(local));
}

TEST_CASE("a round takes the gradients of all workers in the order of their ranks", "[remote]") {
  constexpr std::size_t workers = 3, steps = 5, n = 5000;
  server_set<served_adam> servers(2, update::adam{.learning_rate = 0.1},
                                  {.workers = workers, .consistency = remote::rounds{}});
  pp::kv_store<float, device, update::adam> local(devices, update::adam{.learning_rate = 0.1});
  local.init("w", values(n, 0));
  std::vector<float> expected(n);
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<std::vector<float>> gradients;
    for (std::size_t rank = 0; rank < workers; ++rank) gradients.push_back(values(n, 10 * step + rank));
    local.pushpull("w", gradients, expected).wait();
  }
  std::vector<std::vector<float>> got(workers, std::vector<float>(n));
  run_workers(workers, [&](std::size_t rank) {
    auto options = of_rank(rank);
    options.piece_bytes = 4096;
    worker_store store(devices, servers.addresses, options);
    store.init("w", values(n, rank));  // that of worker 0 counts
    for (std::size_t step = 0; step < steps; ++step) {
      auto const gradient = values(n, 10 * step + rank);
      store.pushpull("w", gradient, got[rank]).wait();
    }
    store.barrier();
  });
  for (auto const& result : got) REQUIRE(result == expected);
}

TEST_CASE("asynchronous pushes are applied once each, whatever their order", "[remote]") {
  constexpr std::size_t workers = 3, steps = 40, n = 3000;
  server_set<served_sgd> servers(2, update::sgd{.learning_rate = 1}, {.workers = workers});
  run_workers(workers, [&](std::size_t rank) {
    auto options = of_rank(rank);
    options.piece_bytes = 4096;
    worker_store store(devices, servers.addresses, options);
    store.init(7, std::vector<float>(n));
    std::vector<float> const gradient(n, 1.0F);
    for (std::size_t step = 0; step < steps; ++step) store.push(7, gradient);
    store.wait();
    store.barrier();
    std::vector<float> weights(n);
    store.pull(7, weights).wait();
    for (float const w : weights) expect(w == -static_cast<float>(workers * steps));
  });
}

TEST_CASE("a worker whose clock is bounded waits for slower ones", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, {.workers = 2, .consistency = remote::bounded{2}});
  worker_store slow(devices, servers.addresses, of_rank(1));
  worker_store fast(devices, servers.addresses, of_rank(0));
  std::vector<float> const one(1, 1.0F);
  std::vector<float> weight(1), other(1);
  fast.init("w", std::vector<float>(1));
  slow.init("w", std::vector<float>(1));
  for (int step = 0; step < 2; ++step) fast.pushpull("w", one, weight).wait();
  REQUIRE(weight[0] == -2);
  auto const waits = fast.pushpull("w", one, weight);
  std::this_thread::sleep_for(milliseconds(100));
  REQUIRE(!waits.ready());
  slow.push("w", one).wait();
  waits.wait();
  REQUIRE(weight[0] == -4);
  slow.pull("w", other).wait();  // slow workers never wait
  REQUIRE(other[0] == -4);
}

TEST_CASE("who sends other shapes, keys, jobs or element types is told so, and the store goes on", "[remote]") {
  using pushpull::test::message_of;
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, {.workers = 2, .job = 5});
  auto options = of_rank(0);
  REQUIRE(message_of<pp::comm_error>([&] { worker_store(devices, servers.addresses, options); }) ==
          "remote_store: this server belongs to another job");
  options.job = 5;
  worker_store first(devices, servers.addresses, options);
  options.rank = 1;
  worker_store second(devices, servers.addresses, options);
  std::vector<float> const three(3), four(4);
  first.init("w", three);
  REQUIRE(message_of<pp::shape_mismatch>([&] { second.init("w", four); }) ==
          "init: key \"w\" has shape (3) of float32, one of shape (4) of float32 came");
  second.init("w", three);
  REQUIRE_THROWS_AS(second.init("w", three), pp::duplicate_key);
  REQUIRE_THROWS_AS(second.push("w", four), pp::shape_mismatch);
  REQUIRE_THROWS_AS(second.push("v", four), pp::unknown_key);
  REQUIRE(message_of<pp::invalid_argument>([&] {
            pp::remote_store<double, device>(devices, servers.addresses, {.rank = 3, .job = 5});
          }) == "remote_store: servers with elements of type float64 expected, they have float32");
  std::vector<float> got(3);
  second.pushpull("w", three, got).wait();
  options.rank = 0;
  options.patience = milliseconds(300);
  REQUIRE_THROWS_AS(worker_store(devices, servers.addresses, options), pp::comm_timeout);  // its rank is taken
  REQUIRE(second.keys().size() == 1);
}

TEST_CASE("parameter_store and any_store work over servers", "[remote]") {
  server_set<served_adam> servers(2, update::adam{.learning_rate = 0.1});
  worker_store store(devices, servers.addresses, of_rank(0));
  pp::kv_store<float, device, update::adam> local(devices, update::adam{.learning_rate = 0.1});
  auto const train = [&](auto& s) {
    pp::parameter_store parameters(s);
    std::vector<float> weight = values(1000, 1), bias = values(10, 2);
    parameters.add("weight", weight);
    parameters.add("bias", bias);
    for (std::size_t step = 0; step < 3; ++step) {
      for (char const* const name : {"weight", "bias"}) {
        auto const gradient = parameters.grad(name, 0);
        auto const g = values(gradient.size(), step);
        std::copy(g.begin(), g.end(), gradient.data());
      }
      parameters.update_all();
    }
    parameters.sync_master();
    weight.insert(weight.end(), bias.begin(), bias.end());
    return weight;
  };
  auto const expected = train(local);
  REQUIRE(train(store) == expected);

  pp::any_store<device, pp::compressors<>, float> any("dist_async", std::move(store));
  REQUIRE(any.rank() == 0);
  auto const gradient = values(10, 9);
  std::vector<float> got(10), wanted(10);
  any.init("other", gradient);
  local.init("other", gradient);
  any.pushpull("other", gradient, got).wait();
  local.pushpull("other", gradient, wanted).wait();
  REQUIRE(got == wanted);
  REQUIRE_THROWS_AS(any.set_optimizer(update::sgd{}), pp::invalid_argument);

  any.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.25"}});
  std::vector<float> const large(10, 0.3F), unit(10, 0.25F);
  any.pushpull("other", large, got).wait();
  local.pushpull("other", unit, wanted).wait();
  REQUIRE(got == wanted);
}

TEST_CASE("workers choose the rule of servers that let them", "[remote]") {
  using any_store = pp::any_store<device, pp::compressors<>, float>;
  std::deque<any_store> stores;
  std::vector<std::unique_ptr<remote::server>> servers;
  std::vector<std::string> addresses;
  for (std::uint32_t n = 0; n < 2; ++n) {
    stores.emplace_back("server", devices);
    servers.push_back(std::make_unique<remote::server>(stores.back(), remote::optimizers{update::sgd{}, update::adam{}},
                                                       remote::server_options{.number = n}));
    addresses.push_back(servers.back()->address());
  }
  auto options = of_rank(0);
  options.piece_bytes = 256;
  auto store = std::make_unique<worker_store>(devices, addresses, options);
  REQUIRE(!store->has_updater());
  auto const n = std::size_t{1000};
  auto const gradient = values(n, 2);
  std::vector<float> got(n), wanted(n);
  store->init("w", values(n, 1));
  REQUIRE_THROWS_AS(store->set_hyperparameters(update::sgd{}), pp::invalid_argument);
  store->pushpull("w", gradient, got).wait();
  REQUIRE(got == gradient);  // as kv_store without a rule

  pp::kv_store<float, device, update::adam, pp::any_keys> local(devices, update::adam{.learning_rate = 0.1});
  local.init("w", gradient);
  auto const compare = [&](auto& s) {
    for (int step = 0; step < 3; ++step) {
      s.pushpull("w", gradient, got).wait();
      local.pushpull("w", gradient, wanted).wait();
      REQUIRE(got == wanted);
    }
  };
  any_store any("dist_async", std::move(store));
  any.set_optimizer(update::adam{.learning_rate = 0.1});
  REQUIRE(any.has_updater());
  compare(any);
  any.set_optimizer(update::adam{.learning_rate = 0.01});  // other numbers of the same rule: states stay
  local.set_hyperparameters(update::adam{.learning_rate = 0.01});
  compare(any);
  auto& remote_one = *any.target<worker_store>();
  remote_one.set_multipliers("w", 0.5);
  any.set_optimizer(update::adam{.learning_rate = 0.02});
  local.set_hyperparameters(update::adam{.learning_rate = 0.01});
  compare(any);

  REQUIRE(pp::test::message_of([&] { any.set_optimizer(update::nesterov{}); }).find("adam") != std::string::npos);
  REQUIRE_THROWS_AS(any.set_optimizer(update::adam{.learning_rate = -1}), pp::invalid_argument);
  REQUIRE_THROWS_AS(remote_one.set_hyperparameters(update::adam{}, 1), pp::invalid_argument);
  auto damaged = update::detail::whole_text(update::adam{.learning_rate = 0.02});
  damaged[damaged.rfind("\n= ") + 1] = '\xff';
  REQUIRE_THROWS_AS(remote_one.set_optimizer_text(damaged), pp::invalid_argument);
  compare(any);  // what was refused changed nothing
  remote_one.set_hyperparameters(update::adam{.learning_rate = 0.2});
  local.set_hyperparameters(update::adam{.learning_rate = 0.1});
  worker_store(devices, addresses, of_rank(1)).set_optimizer(update::adam{.learning_rate = 0.02});  // comes late
  compare(any);
  any.set_optimizer(update::sgd{.learning_rate = 1});
  pp::kv_store<float, device, update::sgd, pp::any_keys> other(devices, update::sgd{.learning_rate = 1});
  other.init("w", wanted);
  any.pushpull("w", gradient, got).wait();
  other.pushpull("w", gradient, wanted).wait();
  REQUIRE(got == wanted);
}

TEST_CASE("rows, and values that are assigned, mean what they mean on a kv_store", "[remote]") {
  server_set<served_adam> servers(2, update::adam{.learning_rate = 0.1});
  auto options = of_rank(0);
  options.piece_bytes = 400;  // 33 rows
  worker_store store(devices, servers.addresses, options);
  pp::kv_store<float, device, update::adam, pp::any_keys> local(devices, update::adam{.learning_rate = 0.1});
  pp::shape const shape{100, 3};
  std::vector<std::int64_t> const ids{99, 5, 33, 5, 32}, wanted{5, 0, 99, 34, 5};
  std::vector<std::int64_t> const none;
  auto const gradient = values(15, 1);
  auto const initial = values(300, 2), other = values(300, 3);
  auto const run = [&](auto& s) {
    std::vector<float> results;
    s.init("table", pp::tensor_view<float const>(initial.data(), shape));
    pp::row_sparse_view<float const, device> const rows(gradient.data(), ids.data(), 5, shape, devices[0]);
    pp::row_sparse_view<float const, device> const no_rows(gradient.data(), none.data(), 0, shape, devices[0]);
    pp::row_sparse<float, device> pulled(devices[0], shape);
    std::vector<float> whole(300);
    pp::tensor_view<float, device> const all(whole.data(), shape, devices[0]);
    s.push("table", rows).wait();
    s.push("table", no_rows).wait();
    s.row_sparse_pull("table", pulled, wanted).wait();
    REQUIRE(pulled.rows() == 4);
    results.insert(results.end(), pulled.values(), pulled.values() + 12);
    s.pushpull("table", rows, all, pp::row_updates::standard).wait();
    results.insert(results.end(), whole.begin(), whole.end());
    s.assign("table", pp::tensor_view<float const>(other.data(), shape));
    s.push("table", rows).wait();
    s.pull("table", all).wait();
    results.insert(results.end(), whole.begin(), whole.end());
    s.assign("table", pp::tensor_view<float const>(other.data(), shape), pp::rule_states::reset);
    s.push("table", rows).wait();
    s.pull("table", all).wait();
    results.insert(results.end(), whole.begin(), whole.end());
    s.init("rows", rows);
    s.pull("rows", all).wait();
    results.insert(results.end(), whole.begin(), whole.end());
    return results;
  };
  REQUIRE(run(store) == run(local));
  std::vector<std::int64_t> const outside{100};
  pp::row_sparse<float, device> pulled(devices[0], shape);
  REQUIRE_THROWS_AS(store.row_sparse_pull("table", pulled, outside), pp::invalid_argument);
}

TEST_CASE("hyperparameters, multipliers and commands reach all servers, each once", "[remote]") {
  std::vector<std::string> heard;
  std::mutex mutex;
  server_set<served_sgd> servers(2, update::sgd{.learning_rate = 1},
                                 {.on_command = [&](std::int64_t head, std::string_view body) {
                                   if (head == 13) throw std::runtime_error("no such command");
                                   std::lock_guard const lock(mutex);
                                   heard.push_back(std::to_string(head) + std::string(body));
                                 }});
  auto options = of_rank(0);
  options.piece_bytes = 400;
  worker_store store(devices, servers.addresses, options);
  std::vector<float> const one(300, 1.0F);
  std::vector<float> got(300), other(1);
  store.init("w", std::vector<float>(300));
  store.init("v", std::vector<float>(1));
  auto const pushes = [&] {
    store.pushpull("w", one, got);
    store.pushpull("v", std::span(one).first(1), other).wait();
    store.wait();
    REQUIRE(std::equal(got.begin() + 1, got.end(), got.begin()));
    return std::pair(got[0], other[0]);
  };
  REQUIRE(pushes() == std::pair(-1.0F, -1.0F));
  store.set_multipliers("w", 2);
  REQUIRE(pushes() == std::pair(-3.0F, -2.0F));
  store.set_hyperparameters(update::sgd{.learning_rate = 4});
  REQUIRE(pushes() == std::pair(-11.0F, -6.0F));
  store.set_multipliers("w", 0);
  REQUIRE(pushes() == std::pair(-11.0F, -10.0F));
  REQUIRE_THROWS_AS(store.set_hyperparameters(update::adam{}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.set_hyperparameters(update::sgd{.learning_rate = -1}), pp::invalid_argument);
  REQUIRE_THROWS_AS(store.set_multipliers("u", 1), pp::unknown_key);
  REQUIRE(pushes() == std::pair(-11.0F, -14.0F));
  store.set_multipliers("w", 1e30);  // of which 1e30 times as much is infinite: the rate of "v" stays too
  REQUIRE_THROWS_AS(store.set_hyperparameters(update::sgd{.learning_rate = 1e30}), pp::invalid_argument);
  store.set_multipliers("w", 0);
  REQUIRE(pushes() == std::pair(-11.0F, -18.0F));
  store.command(3, "x");
  std::sort(heard.begin(), heard.end());
  REQUIRE(heard == std::vector<std::string>{"3x", "3x"});
  REQUIRE(pushpull::test::message_of<pp::error>([&] { store.command(13, ""); }) == "no such command");

  pushpull::test::temporary_folder const folder;
  store.command(pp::remote::profiler_command, "filename:" + folder.file("p.json").string() + "0");
  store.command(pp::remote::profiler_command, "11");
  store.push("w", one).wait();
  store.command(pp::remote::profiler_command, "12");
  store.push("w", one).wait();
  store.command(pp::remote::profiler_command, "3");
  auto const profile = nlohmann::json::parse(pushpull::test::read_file(folder.file("rank1_p.json")));
  REQUIRE(profile["push"]["messages"] == 1);
  REQUIRE(profile["push"]["payload_bytes"] == 400);
  REQUIRE_THROWS_AS(store.command(pp::remote::profiler_command, "7"), pp::invalid_argument);
  auto const counts = nlohmann::json::parse(store.server_counts(0));
  REQUIRE(counts["push"]["messages"] == 4);
  REQUIRE(counts["malformed"] == 0);
}

TEST_CASE("compressed gradients on servers give the bits of a kv_store that compresses", "[remote]") {
  server_set<served_sgd> servers(2, update::sgd{.learning_rate = 0.5});
  auto options = of_rank(0);
  options.piece_bytes = 1 << 20;  // residuals, scales and counts are those of a piece: here one per key
  worker_store store(devices, servers.addresses, options);
  auto const compare = [&]<class C>(std::string const& name, C const& compressor,
                                    pp::compress::parameters const& given) {
    pp::kv_store<float, device, update::sgd, C> local(devices, update::sgd{.learning_rate = 0.5}, compressor);
    store.set_gradient_compression(given);
    for (std::size_t const n : {0U, 1U, 63U, 65U, 1000U, 30011U}) {
      std::string const key = name + std::to_string(n);
      store.init(key, values(n, 1));
      local.init(key, values(n, 1));
      std::vector<float> got(n), expected(n);
      for (std::size_t step = 0; step < 5; ++step) {
        auto gradient = values(n, step + 2);
        if (step == 3 && n == 1000) gradient[17] = std::numeric_limits<float>::quiet_NaN();
        store.pushpull(key, gradient, got).wait();
        local.pushpull(key, gradient, expected).wait();
        REQUIRE((n == 0 || std::memcmp(got.data(), expected.data(), n * sizeof(float)) == 0));
      }
    }
  };
  using namespace pp::compress;
  compare("2bit", two_bit{0.25F}, {{"type", "2bit"}, {"threshold", "0.25"}});
  compare("1bit", one_bit{0.125F}, {{"type", "1bit"}, {"threshold", "0.125"}});
  compare("float8", cast<pp::float8_e4m3>{true}, {{"type", "float8_e4m3fn"}, {"error_feedback", "1"}});
  compare("topk", top_k{0.05}, {{"type", "topk"}, {"ratio", "0.05"}});

  SECTION("row-sparse gradients and unknown types are refused, and what is sent plainly afterwards is exact") {
    store.init("rows", pp::tensor<float, device>(devices[0], pp::shape{4, 2}));
    pp::row_sparse<float, device> rows(devices[0], pp::shape{4, 2});
    REQUIRE_THROWS_AS(store.push("rows", rows), pp::invalid_argument);
    REQUIRE_THROWS_AS(store.set_gradient_compression({{"type", "3bit"}}), pp::invalid_argument);
    store.set_gradient_compression({{"type", "none"}});
    std::vector<float> got(3);
    store.init("plain", std::vector<float>(3));
    std::vector<float> const gradient{1, 2, 1e-3F};
    store.pushpull("plain", gradient, got).wait();
    REQUIRE(got == std::vector<float>{-0.5F, -1, -0.5e-3F});
  }
}

TEST_CASE("compressed gradients of several workers and pieces are the sources of a round", "[remote]") {
  constexpr std::size_t workers = 2, n = 1000;
  server_set<served_sgd> servers(2, update::sgd{.learning_rate = 0.5},
                                 {.workers = workers, .consistency = remote::rounds{}});
  pp::kv_store<float, device, update::sgd, pp::compress::two_bit> local(devices, update::sgd{.learning_rate = 0.5},
                                                                        pp::compress::two_bit{0.25F});
  local.init("w", values(n, 0));
  std::vector<float> expected(n);
  for (std::size_t step = 0; step < 5; ++step) {
    std::vector<std::vector<float>> const gradients{values(n, step), values(n, step + 9)};
    local.pushpull("w", gradients, expected).wait();
  }
  run_workers(workers, [&](std::size_t rank) {
    auto options = of_rank(rank);
    options.piece_bytes = 1024;
    worker_store store(devices, servers.addresses, options);
    store.set_gradient_compression({{"type", "2bit"}, {"threshold", "0.25"}});
    store.init("w", values(n, 0));
    std::vector<float> got(n);
    for (std::size_t step = 0; step < 5; ++step) {
      auto const gradient = values(n, step + 9 * rank);
      store.pushpull("w", gradient, got).wait();
    }
    expect(got == expected);
    store.barrier();
  });
}

TEST_CASE("codes of a piece are decoded as its encoder meant them, and damaged ones are refused", "[remote]") {
  namespace compress = pp::compress;
  remote::detail::piece_decoder decoder;
  compress::any_compressor const compressor = GENERATE(
      compress::any_compressor(compress::two_bit{0.25F}), compress::any_compressor(compress::one_bit{0.1F}),
      compress::any_compressor(compress::cast<pp::half>{}), compress::any_compressor(compress::cast<pp::bfloat16>{}),
      compress::any_compressor(compress::cast<pp::float8_e5m2>{}), compress::any_compressor(compress::top_k{0.1}));
  std::size_t const n = GENERATE(1U, 64U, 1001U);
  auto const encoder = remote::detail::make_encoder(compressor, static_cast<std::int64_t>(n));
  auto const gradient = values(n, 3);
  auto const first = encoder->encode(gradient.data());
  std::vector<std::byte> const message(first.begin(), first.end());
  std::vector<float> got(n, -9);
  decoder.decode(message, static_cast<std::int64_t>(n), got.data());
  if (std::holds_alternative<compress::cast<pp::half>>(compressor)) {
    for (std::size_t i = 0; i < n; ++i) REQUIRE(got[i] == pp::convert<float>(pp::convert<pp::half>(gradient[i])));
  } else if (std::holds_alternative<compress::cast<pp::bfloat16>>(compressor)) {
    for (std::size_t i = 0; i < n; ++i) REQUIRE(got[i] == pp::convert<float>(pp::convert<pp::bfloat16>(gradient[i])));
  } else if (std::holds_alternative<compress::two_bit>(compressor)) {
    for (std::size_t i = 0; i < n; ++i)
      REQUIRE(got[i] == (gradient[i] >= 0.25F ? 0.25F : gradient[i] <= -0.25F ? -0.25F : 0.0F));
  }

  // A push that no server has acknowledged took nothing from the residual.
  auto const again = encoder->encode(gradient.data());
  REQUIRE(std::equal(again.begin(), again.end(), message.begin(), message.end()));

  // Whatever comes, memory outside is neither read nor written, and what is refused writes nothing.
  std::mt19937 engine(7);
  for (int turn = 0; turn < 300; ++turn) {
    auto damaged = message;
    for (int i = 0; i < 3; ++i) damaged[engine() % damaged.size()] = static_cast<std::byte>(engine());
    if (turn % 5 == 0) damaged.resize(engine() % (damaged.size() + 9));
    std::vector<float> to(n + 1, -9);
    try {
      decoder.decode(damaged, static_cast<std::int64_t>(n), to.data());
    } catch (pp::invalid_argument const&) {
      REQUIRE(std::count(to.begin(), to.end(), -9.0F) == static_cast<std::ptrdiff_t>(n + 1));
    }
    REQUIRE(to[n] == -9);
  }
}

TEST_CASE("rules with norms of tensors have whole keys on servers", "[remote]") {
  using rule = update::lamb;
  server_set<pp::kv_store<float, device, rule, pp::integer_keys>> servers(2, rule{.learning_rate = 0.1});
  auto options = of_rank(0);
  options.piece_bytes = 256;
  options.placement = GENERATE(remote::server_placement::in_turn, remote::server_placement::mxnet);
  options.bound = 500;
  worker_store store(devices, servers.addresses, options);
  pp::kv_store<float, device, rule> local(devices, rule{.learning_rate = 0.1});
  for (std::size_t const n : {0U, 1U, 1000U, 5003U}) {
    std::string const key = "w" + std::to_string(n);
    std::vector<float> got(n), expected(n);
    store.init(key, values(n, 1));
    local.init(key, values(n, 1));
    for (std::size_t step = 0; step < 3; ++step) {
      auto const gradient = values(n, step + 2);
      store.pushpull(key, gradient, got).wait();
      local.pushpull(key, gradient, expected).wait();
      REQUIRE(got == expected);
    }
  }
}

TEST_CASE("a snapshot has the rule that workers chose, and its states", "[remote]") {
  pp::test::temporary_folder const folder;
  auto const n = std::size_t{300};
  auto const gradient = values(n, 2);
  std::vector<float> got(n), wanted(n);
  pp::kv_store<float, device, update::adam> local(devices, update::adam{.learning_rate = 0.1});
  local.init("w", values(n, 1));
  for (int life = 0; life < 3; ++life) {
    pp::any_store<device, pp::compressors<>, float> served("server", devices);
    remote::server const server(served, remote::optimizers{update::sgd{}, update::adam{}},
                                remote::snapshots{.folder = folder.file("snapshots"), .durable = life != 1});
    worker_store store(devices, {server.address()}, of_rank(0));
    if (life == 0) store.set_optimizer(update::adam{.learning_rate = 0.1});
    store.init("w", values(n, 1));  // the first life's counts
    store.pushpull("w", gradient, got).wait();
    local.pushpull("w", gradient, wanted).wait();
    REQUIRE(got == wanted);
    if (life == 1) store.save_snapshots();
  }
}

TEST_CASE("keys lie on MXNet's servers", "[remote]") {
  remote::worker_options options;
  options.placement = remote::server_placement::mxnet;
  auto const sizes = [&](std::int64_t number, std::int64_t size, std::size_t count, std::int64_t row_length = 1) {
    std::vector<std::int64_t> result(count);
    std::int64_t end = 0;
    for (auto const& piece : remote::pieces_of({number, size, row_length, 4}, count, options)) {
      REQUIRE(piece.begin == end);
      REQUIRE(piece.size() <= 262144);
      end = piece.end;
      result[piece.server] += piece.size();
    }
    REQUIRE(end == size);
    return result;
  };
  using list = std::vector<std::int64_t>;
  REQUIRE(sizes(0, 1000003, 2) == list{500002, 500001});
  REQUIRE(sizes(7, 1000000, 3) == list{333333, 333334, 333333});
  REQUIRE(sizes(4, 999999, 3) == list{0, 999999, 0});  // 4 * 9973 mod 3
  REQUIRE(sizes(5, 10, 4) == list{0, 10, 0, 0});
  REQUIRE(sizes(1, 3 * 400000, 2, 3) == list{600000, 600000});
  REQUIRE(sizes(1, 7 * 200001, 2, 7) == list{7 * 100001, 7 * 100000});
}

TEST_CASE("a connection with keys takes workers that have the public one", "[remote]") {
  auto const keys = remote::new_curve_keys(), other = remote::new_curve_keys();
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, {.curve = keys});
  auto options = of_rank(0);
  options.patience = milliseconds(400);
  REQUIRE_THROWS_AS(worker_store(devices, servers.addresses, options), pp::comm_timeout);
  options.server_key = other.public_key;
  REQUIRE_THROWS_AS(worker_store(devices, servers.addresses, options), pp::comm_timeout);
  options.server_key = keys.public_key;
  options.patience = milliseconds(5000);
  worker_store store(devices, servers.addresses, options);
  std::vector<float> weights(10000);
  store.init("w", weights);
  std::vector<float> const ones(10000, 1.0F);
  store.pushpull("w", ones, weights).wait();
  REQUIRE(weights == std::vector<float>(10000, -1.0F));
}

// Algorithm 1 of Douillard et al. 2023, with SGD inside and the Nesterov momentum of PyTorch outside.
TEST_CASE("outer steps over servers are those of DiLoCo's pseudo-code", "[remote]") {
  constexpr std::size_t workers = 3, outer_rounds = 6, every = 4, n = 50;
  constexpr double inner_rate = 0.05, outer_rate = 0.7, outer_momentum = 0.9;
  auto const gradient = [](std::size_t worker, std::size_t step, double w, std::size_t i) {
    return w - std::sin(static_cast<double>(worker * 1000 + step * 31 + i));
  };
  std::vector<double> theta(n), momentum(n);
  for (std::size_t i = 0; i < n; ++i) theta[i] = static_cast<double>(i) / 10;
  auto const initial = theta;
  for (std::size_t t = 0; t < outer_rounds; ++t)
    for (std::size_t i = 0; i < n; ++i) {
      double delta = 0;
      for (std::size_t worker = 0; worker < workers; ++worker) {
        double w = theta[i];
        for (std::size_t h = 0; h < every; ++h) w -= inner_rate * gradient(worker, t * every + h, w, i);
        delta += (theta[i] - w) / workers;
      }
      momentum[i] = outer_momentum * momentum[i] + delta;
      theta[i] -= outer_rate * (delta + outer_momentum * momentum[i]);
    }

  using served_nesterov = pp::kv_store<double, device, update::nesterov, pp::integer_keys, pp::reduce::mean>;
  server_set<served_nesterov> servers(2, update::nesterov{.learning_rate = outer_rate, .momentum = outer_momentum},
                                      {.workers = workers, .consistency = remote::rounds{}});
  run_workers(workers, [&](std::size_t worker) {
    pp::remote_store<double, device> store(devices, servers.addresses, of_rank(worker));
    pp::outer_steps outer(store, every);
    std::vector<double> weights = initial;
    outer.add(pp::any_key("w"), weights);
    for (std::size_t step = 0; step < outer_rounds * every; ++step) {
      for (std::size_t i = 0; i < n; ++i) weights[i] -= inner_rate * gradient(worker, step, weights[i], i);
      expect(outer.step() == (step % every == every - 1));
    }
    for (std::size_t i = 0; i < n; ++i) expect(std::abs(weights[i] - theta[i]) < 1e-12);
  });
}

TEST_CASE("a message that comes again is answered again and not applied", "[remote]") {
  using remote::message_kind;
  constexpr std::size_t n = 8;
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1});
  worker_store store(devices, servers.addresses, of_rank(0));
  store.init("w", std::vector<float>(n));
  std::vector<float> weights(n);
  auto const weight = [&] {
    store.pull("w", weights).wait();
    return weights[0];
  };

  std::vector<float> const ones(n, 1.0F);
  raw_worker raw(servers.addresses[0]);
  auto const ask = [&](remote::message_header h, bool has_payload) {
    return raw.ask(h, std::as_bytes(std::span(ones).first(has_payload ? n : 0)));
  };
  remote::message_header h{.kind = message_kind::hello, .worker = remote::no_worker, .incarnation = 77};
  REQUIRE(ask(h, false).kind == message_kind::welcome);
  h.worker = 1;
  h.element = remote::element_code<float>;
  h.elements = n;
  h.row_length = 1;
  h.kind = message_kind::push;
  h.sequence = 5;
  for (int time = 0; time < 3; ++time) REQUIRE(ask(h, true).kind == message_kind::acknowledge);
  REQUIRE(weight() == -1);
  h.sequence = 4;
  REQUIRE(ask(h, true).kind == message_kind::acknowledge);
  REQUIRE(weight() == -1);
  h.sequence = 6;
  h.kind = message_kind::pushpull;
  for (int time = 0; time < 2; ++time) {
    REQUIRE(ask(h, true).version == 2);
    float value = 0;
    REQUIRE(raw.answer.payload.size() == n * sizeof(float));
    std::memcpy(&value, raw.answer.payload.data(), sizeof value);
    REQUIRE(value == -2);
  }
  h.sequence = 7;
  h.incarnation = 78;
  REQUIRE(ask(h, true).error == remote::message_error::unknown_worker);
  h.incarnation = 77;
  REQUIRE(ask(h, false).error == remote::message_error::invalid_argument);
  h.piece = 1;
  REQUIRE(ask(h, true).error == remote::message_error::unknown_key);
  REQUIRE(weight() == -2);
}

TEST_CASE("a server that is started again knows who has left, and ends when the others leave", "[remote]") {
  pp::test::temporary_folder const folder;
  remote::server_options options{.workers = 2};
  if (GENERATE(true, false)) options.consistency = remote::rounds{};
  remote::snapshots const where{.folder = folder.file("snapshots"), .durable = true};
  auto stored = std::make_unique<served_sgd>(devices, update::sgd{.learning_rate = 1});
  auto server = std::make_unique<remote::server>(*stored, where, options);
  options.address = server->address();
  auto stays = std::make_unique<worker_store>(devices, std::vector{options.address}, of_rank(0));
  auto leaves = std::make_unique<worker_store>(devices, std::vector{options.address}, of_rank(1));
  std::vector<float> const one(3, 1.0F);
  std::vector<float> weights(3);
  stays->init("w", weights);
  leaves->init("w", weights);
  {
    auto const first = stays->push("w", one);
    leaves->push("w", one).wait();
    first.wait();
  }
  leaves.reset();
  stays->push("w", one).wait();
  server.reset();
  stored = std::make_unique<served_sgd>(devices, update::sgd{.learning_rate = 1});
  server = std::make_unique<remote::server>(*stored, where, options);
  stays->barrier();
  auto const pushed = stays->pushpull("w", one, weights);
  REQUIRE(soon([&] { return pushed.ready(); }));
  REQUIRE(weights == std::vector<float>(3, -4.0F));
  stays.reset();
  server->wait();
}

TEST_CASE("if all workers are started again with the server, ranks begin anew", "[remote]") {
  pp::test::temporary_folder const folder;
  remote::server_options options{.workers = 2, .consistency = remote::rounds{}, .dead_after = milliseconds(300)};
  remote::snapshots const where{.folder = folder.file("snapshots"), .durable = true};
  std::vector<float> const one(3, 1.0F);
  for (int life = 0; life < 2; ++life) {
    served_sgd stored(devices, update::sgd{.learning_rate = 1});
    auto server = std::make_unique<remote::server>(stored, where, options);
    options.address = server->address();
    std::vector<std::unique_ptr<worker_store>> workers(2);
    run_workers(2, [&](std::size_t i) {
      auto any_rank = of_rank(0);
      any_rank.rank = -1;
      workers[i] = std::make_unique<worker_store>(devices, std::vector{options.address}, any_rank);
      workers[i]->init("w", std::vector<float>(3));
      std::vector<float> weights(3);
      workers[i]->pushpull("w", one, weights).wait();
      expect(weights[0] == -2.0F * static_cast<float>(life + 1));
    });
    REQUIRE(workers[0]->rank() + workers[1]->rank() == 1);
    server.reset();  // with the workers alive
  }
}

TEST_CASE("a process that takes a dead one's rank inherits neither its barrier nor its commands", "[remote]") {
  std::atomic<int> ran = 0;
  remote::server_options options{.workers = 2, .dead_after = milliseconds(300)};
  options.on_command = [&](std::int64_t head, std::string_view) {
    if (head == 6) std::this_thread::sleep_for(milliseconds(900));  // too busy to notice who died
    ++ran;
  };
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, options);
  auto of_first = of_rank(0), of_second = of_rank(1);
  of_first.heartbeat = of_second.heartbeat = milliseconds(50);
  worker_store first(devices, servers.addresses, of_first);
  raw_worker raw(servers.addresses[0]);
  remote::message_header h{.kind = remote::message_kind::hello, .worker = 1, .incarnation = 77};
  REQUIRE(raw.ask(h).kind == remote::message_kind::welcome);
  h.kind = remote::message_kind::barrier;
  h.sequence = 1000;
  raw.send(h);
  auto busy = std::async(std::launch::async, [&] { first.command(6, ""); });
  std::this_thread::sleep_for(milliseconds(100));
  worker_store second(devices, servers.addresses, of_second);
  busy.get();
  auto in_barrier = std::async(std::launch::async, [&] { first.barrier(); });
  REQUIRE(in_barrier.wait_for(milliseconds(300)) == std::future_status::timeout);
  second.command(7, "");
  REQUIRE(ran == 2);
  second.barrier();
  in_barrier.get();
}

TEST_CASE("workers that give the values of one another's keys, in other orders, wait for none in vain", "[remote]") {
  server_set<served_sgd> servers(2, update::sgd{.learning_rate = 1}, {.workers = 3});
  auto zero = std::make_unique<worker_store>(devices, servers.addresses, of_rank(0));
  worker_store first(devices, servers.addresses, of_rank(1)), second(devices, servers.addresses, of_rank(2));
  zero.reset();
  std::vector<std::string> keys;
  std::vector<std::vector<float>> initial;
  for (std::size_t i = 0; i < 40; ++i) {
    keys.push_back(std::to_string(i));
    initial.push_back(values(i, i));
  }
  std::vector<std::string> const reversed(keys.rbegin(), keys.rend());
  std::vector<std::vector<float>> const of_reversed(initial.rbegin(), initial.rend());
  auto other = std::async(std::launch::async, [&] { second.init(reversed, of_reversed); });
  first.init(keys, initial);
  other.get();
  for (std::size_t i = 0; i < 40; ++i) {
    std::vector<float> got(i);
    second.pull(keys[i], got).wait();
    REQUIRE(got == initial[i]);
  }
}

TEST_CASE("a list of keys of which one is refused leaves no other worker waiting", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, {.workers = 2});
  worker_store first(devices, servers.addresses, of_rank(0)), second(devices, servers.addresses, of_rank(1));
  std::vector<std::string> const keys{"a", "b", "c"};
  std::vector<std::vector<float>> const initial{{1}, {2}, {3}}, others{{1}, {2, 2}, {3}};
  auto asked = std::async(std::launch::async, [&] { second.init(keys, others); });
  REQUIRE(asked.wait_for(milliseconds(300)) == std::future_status::timeout);  // for the values of worker 0
  REQUIRE_THROWS_AS(first.init(keys, initial), pp::shape_mismatch);
  first.init("b", others[1]);  // the others have come
  REQUIRE(soon([&] { return asked.wait_for(milliseconds(0)) == std::future_status::ready; }));
  std::vector<float> got(1);
  second.pull("c", got).wait();
  REQUIRE(got[0] == 3);
}

TEST_CASE("a worker that was away does not hold up those whose clock is bounded", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1},
                                 {.workers = 2, .consistency = remote::bounded{2}, .dead_after = milliseconds(400)});
  worker_store store(devices, servers.addresses, of_rank(0));
  raw_worker raw(servers.addresses[0]);
  remote::message_header const hello{.kind = remote::message_kind::hello, .worker = 1, .incarnation = 77};
  REQUIRE(raw.ask(hello).kind == remote::message_kind::welcome);
  std::vector<float> const one(1, 1.0F);
  std::vector<float> weight(1);
  store.init("w", weight);
  remote::message_header h = hello;
  h.kind = remote::message_kind::push;
  h.element = remote::element_code<float>;
  h.elements = h.row_length = h.sequence = 1;
  REQUIRE(raw.ask(h, std::as_bytes(std::span(one))).kind == remote::message_kind::acknowledge);
  for (int n = 0; n < 20; ++n) store.pushpull("w", one, weight).wait();  // waits until the other one is dead
  REQUIRE(raw.ask(hello).kind == remote::message_kind::welcome);
  auto const pushed = store.pushpull("w", one, weight);
  REQUIRE(soon([&] {
    remote::message_header beat = hello;
    beat.kind = remote::message_kind::heartbeat;
    raw.send(beat);
    return pushed.ready();
  }));
}

TEST_CASE("rounds go on without a worker that comes late, until its first push", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1}, {.workers = 2, .consistency = remote::rounds{}});
  worker_store store(devices, servers.addresses, of_rank(0));
  auto other = std::make_unique<worker_store>(devices, servers.addresses, of_rank(1));
  std::vector<float> const one(1, 1.0F);
  std::vector<float> weight(1), of_late(1);
  store.init("w", weight);
  auto const first = store.push("w", one);
  other->init("w", weight);
  other->push("w", one).wait();
  first.wait();
  other.reset();
  store.push("w", one).wait();
  worker_store late(devices, servers.addresses, of_rank(1));
  late.init("w", of_late);
  auto in_barrier = std::async(std::launch::async, [&] { late.barrier(); });  // as programs begin
  auto const pushed = store.pushpull("w", one, weight);
  REQUIRE(soon([&] { return pushed.ready(); }));
  REQUIRE(weight[0] == -4);
  store.barrier();
  in_barrier.get();
  auto const both = late.pushpull("w", one, of_late);
  std::this_thread::sleep_for(milliseconds(100));
  REQUIRE(!both.ready());
  store.pushpull("w", one, weight).wait();
  both.wait();
  REQUIRE((weight[0] == -6 && of_late[0] == -6));
  auto const alone = store.push("w", one);
  std::this_thread::sleep_for(milliseconds(100));
  REQUIRE(!alone.ready());  // it is one of the round now
  late.push("w", one).wait();
}

TEST_CASE("a server 0 that has lost its keys is no longer that of its workers, nor of other servers' pieces",
          "[remote]") {
  served_sgd lost(devices, update::sgd{}), other(devices, update::sgd{}), again(devices, update::sgd{});
  remote::server_options options{.workers = 2};
  auto zero = std::make_unique<remote::server>(lost, options);
  remote::server const one(other, {.number = 1, .workers = 2});
  options.address = zero->address();
  std::vector<std::string> const addresses{options.address, one.address()};
  auto cut = of_rank(0);
  cut.piece_bytes = 4096;
  std::vector<float> weights(2048);
  auto store = std::make_unique<worker_store>(devices, addresses, cut);
  store->init("w", weights);
  zero.reset();
  zero = std::make_unique<remote::server>(again, options);
  std::string said;
  REQUIRE(soon([&] {
    said = pushpull::test::message_of<pp::error>([&] { store->push("w", weights).wait(); });
    return said.find("was started again without its keys") != std::string::npos;
  }));
  REQUIRE_THROWS_AS(store->init("v", weights), pp::server_lost);
  store.reset();
  cut.rank = 1;
  worker_store late(devices, addresses, cut);
  REQUIRE(pushpull::test::message_of<pp::invalid_argument>([&] {
            late.init("v", weights);
          }).find("of an earlier server 0") != std::string::npos);
}

TEST_CASE("servers that differ, and workers that cut keys otherwise, are told so", "[remote]") {
  using pushpull::test::message_of;
  served_sgd zero(devices, update::sgd{}), one(devices, update::sgd{}), small(devices, update::sgd{});
  remote::server const first(zero, {.workers = 3}), other(one, {.number = 1, .workers = 2}),
      narrow(small, {.number = 1, .workers = 3, .largest_payload = 4096});
  std::vector<std::string> addresses{first.address(), other.address()};
  REQUIRE(message_of<pp::comm_error>([&] {
            worker_store(devices, addresses, of_rank(0));
          }).find("differ: workers 3 and 2") != std::string::npos);
  addresses[1] = narrow.address();
  auto options = of_rank(0);
  worker_store store(devices, addresses, options);
  std::vector<float> const weights(2048);
  REQUIRE(message_of<pp::invalid_argument>([&] { store.init("large", weights); }).find("at most 4096 bytes") !=
          std::string::npos);
  std::vector<float> const few(16);
  store.init("w", few);
  options.rank = 1;
  options.piece_bytes = 32;
  worker_store finer(devices, addresses, options);
  REQUIRE(
      message_of<pp::invalid_argument>([&] { finer.init("w", few); }) ==
      "init: key \"w\" is in pieces of 1048576 bytes on 2 servers in turn, this worker looks for pieces of 32 bytes "
      "on 2 servers in turn");
  REQUIRE(message_of<pp::duplicate_key>([&] {
            store.init(std::vector<std::string>{"a", "a"}, std::vector<std::vector<float>>{few, few});
          }) == "init: key \"a\" stands twice in one call");
  REQUIRE_THROWS_AS(store.init(std::string(5000, 'x'), few), pp::invalid_argument);
  options.rank = std::int64_t{1} << 32;
  REQUIRE_THROWS_AS(worker_store(devices, addresses, options), pp::invalid_argument);
  options.rank = 2;
  options.heartbeat = milliseconds(1000);
  REQUIRE_THROWS_AS(worker_store(devices, addresses, options), pp::invalid_argument);
}

TEST_CASE("the value of a key whose pieces are lost is given anew by init", "[remote]") {
  pp::test::temporary_folder const folder;
  remote::snapshots const where{.folder = folder.file("snapshots")};
  std::vector<float> const one(3, 1.0F);
  for (int life = 0; life < 2; ++life) {
    {
      served_sgd stored(devices, update::sgd{.learning_rate = 1});
      remote::server const server(stored, where);
      worker_store store(devices, {server.address()}, of_rank(0));
      std::vector<float> weights(3, static_cast<float>(life));
      store.init("w", weights);
      store.pushpull("w", one, weights).wait();
      REQUIRE(weights[0] == static_cast<float>(life) - 1);
    }
    for (auto const& entry : std::filesystem::directory_iterator(folder.file("snapshots") / "server-0"))
      if (entry.path().filename() != "keys.json") std::filesystem::remove_all(entry.path());
  }
}

TEST_CASE("a push whose answer waits for the disk takes few snapshots, however many its pieces are", "[remote]") {
  pp::test::temporary_folder const folder;
  served_sgd stored(devices, update::sgd{.learning_rate = 1});
  remote::server const server(stored, remote::snapshots{.folder = folder.file("snapshots"), .durable = true});
  auto options = of_rank(0);
  options.piece_bytes = 4096;
  worker_store store(devices, {server.address()}, options);
  std::vector<float> weights(65536);
  store.init("w", weights);
  auto const written = [&] {
    auto const all = pp::checkpoint::list(folder.file("snapshots") / "server-0");
    return all.empty() ? 0 : all.front().step;
  };
  auto const before = written();
  auto const gradient = values(65536, 1);
  store.push("w", gradient).wait();
  REQUIRE(written() > before);
  REQUIRE(written() < before + 8);  // 64 pieces
}

TEST_CASE("a server whose disk is full serves on, and tries again at times", "[remote]") {
  pp::test::temporary_folder const folder;
  auto const place = folder.file("snapshots"), away = folder.file("away");
  served_sgd stored(devices, update::sgd{.learning_rate = 1});
  remote::server const server(stored, remote::snapshots{.folder = place, .every = milliseconds(10)});
  worker_store store(devices, {server.address()}, of_rank(0));
  std::vector<float> const one(3, 1.0F);
  std::vector<float> weights(3);
  store.init("w", weights);
  auto const unsaved = [&] { return nlohmann::json::parse(store.server_counts(0))["unsaved"].get<int>(); };
  std::filesystem::rename(place, away);
  std::ofstream(place) << "no folder";
  store.push("w", one).wait();
  REQUIRE(soon([&] { return unsaved() > 0; }));
  std::this_thread::sleep_for(milliseconds(500));
  REQUIRE(unsaved() < 3);
  store.pushpull("w", one, weights).wait();
  REQUIRE(weights[0] == -2);
  auto late = std::async(std::launch::async, [&] { store.init("v", one); });  // is not told what is not on the disk
  REQUIRE(late.wait_for(milliseconds(100)) == std::future_status::timeout);
  auto const newest = pp::checkpoint::list(away / "server-0");
  std::filesystem::remove(place);
  std::filesystem::rename(away, place);
  late.get();
  REQUIRE(soon([&] {
    auto const all = pp::checkpoint::list(place / "server-0");
    return !all.empty() && (newest.empty() || all.front().step > newest.front().step);
  }));
}

TEST_CASE("commands of several threads are done once each, in any order, and an error is told again", "[remote]") {
  using remote::message_kind;
  int ran = 0;
  server_set<served_sgd> servers(1, update::sgd{},
                                 {.workers = 2, .on_command = [&](std::int64_t head, std::string_view) {
                                    ++ran;
                                    if (head == 1) throw 1;  // no std::exception
                                  }});
  raw_worker raw(servers.addresses[0]);
  remote::message_header h{.kind = message_kind::hello, .incarnation = 77};
  REQUIRE(raw.ask(h).kind == message_kind::welcome);
  h.kind = message_kind::command;
  for (std::uint64_t const sequence : {9U, 5U, 9U, 5U}) {
    h.sequence = sequence;
    REQUIRE(raw.ask(h).kind == message_kind::acknowledge);
  }
  REQUIRE(ran == 2);
  h.key = 1;
  h.sequence = 10;
  for (int n = 0; n < 2; ++n) REQUIRE(raw.ask(h).error == remote::message_error::failed);
  REQUIRE(ran == 3);
  h.kind = message_kind::barrier;
  h.sequence = 4;
  raw.send(h);
  worker_store other(devices, servers.addresses, of_rank(1));
  other.barrier();
  auto const before = other.statistics();
  other.init("w", std::vector<float>(3));
  other.assign("w", std::vector<float>(3));
  REQUIRE((other.statistics() - before).operations == 1);
}

TEST_CASE("a server that is always busy notices who died", "[remote]") {
  remote::server_options options{.workers = 2, .dead_after = milliseconds(400)};
  options.on_command = [](std::int64_t, std::string_view) { std::this_thread::sleep_for(milliseconds(240)); };
  server_set<served_sgd> servers(1, update::sgd{}, options);
  worker_store store(devices, servers.addresses, of_rank(0));
  raw_worker raw(servers.addresses[0]);
  REQUIRE(raw.ask({.kind = remote::message_kind::hello, .worker = 1, .incarnation = 77}).kind ==
          remote::message_kind::welcome);
  int commands = 0;
  for (; commands < 40 && store.num_dead_node() == 0; ++commands) store.command(6, "");
  REQUIRE(store.num_dead_node() == 1);
  REQUIRE(commands > 0);
}

TEST_CASE("a worker of many heartbeats notices that its server is gone", "[remote]") {
  auto options = of_rank(0);
  options.heartbeat = milliseconds(0);
  server_set<served_sgd> servers(1, update::sgd{});
  REQUIRE_THROWS_AS(worker_store(devices, servers.addresses, options), pp::invalid_argument);
  options.heartbeat = milliseconds(10);
  options.patience = milliseconds(500);
  worker_store store(devices, servers.addresses, options);
  std::vector<float> weights(3);
  store.init("w", weights);
  servers.servers.clear();
  auto const pulled = store.pull("w", weights);
  REQUIRE(soon([&] { return pulled.ready(); }));
  REQUIRE_THROWS_AS(pulled.wait(), pp::server_lost);
}

TEST_CASE("after a worker that could not give a lost value anew, the next one is asked", "[remote]") {
  using remote::message_kind;
  server_set<served_sgd> servers(1, update::sgd{}, {.workers = 3, .dead_after = milliseconds(60'000)});
  worker_store store(devices, servers.addresses, of_rank(0));
  store.init("w", std::vector<float>(3));
  raw_worker raw(servers.addresses[0]);
  auto const key = remote::detail::to_payload(
      {"sw", {3}, 1, remote::element_code<float>, remote::detail::cut_text(1, of_rank(0), false)});
  remote::message_header h{.element = remote::element_code<float>, .row_length = 1};
  auto const answer_of = [&](message_kind kind, std::uint8_t flags) {
    h.kind = kind;
    h.flags = flags;
    ++h.sequence;
    return raw.ask(h,
                   kind == message_kind::register_key ? std::as_bytes(std::span(key)) : std::span<std::byte const>());
  };
  bool const dies = GENERATE(false, true);
  h.worker = 1;
  h.incarnation = 77;
  REQUIRE(answer_of(message_kind::hello, 0).kind == message_kind::welcome);
  auto const asked = answer_of(message_kind::register_key, remote::detail::value_is_missing);
  REQUIRE(asked.flags == remote::detail::asker_sends_value);
  if (dies) {
    h.kind = message_kind::goodbye;
    raw.send(h);
  } else {
    h.key = asked.key;
    REQUIRE(answer_of(message_kind::key_ready, remote::detail::value_failed).kind == message_kind::acknowledge);
  }
  h.worker = 2;
  h.incarnation = 78;
  REQUIRE(answer_of(message_kind::hello, 0).kind == message_kind::welcome);
  REQUIRE(answer_of(message_kind::register_key, 0).flags == remote::detail::asker_sends_value);
}

TEST_CASE("a failure to open the file of initial values costs none of them", "[remote]") {
  pp::test::temporary_folder const folder;
  auto const place = folder.file("values"), away = folder.file("away");
  std::filesystem::create_directories(place);
  std::vector<float> const value(5, 2.0F);
  remote::message_header h{.kind = remote::message_kind::init, .element = remote::element_code<float>};
  h.elements = 5;
  h.row_length = 1;
  auto const add = [&](remote::detail::value_journal& journal, std::int64_t snapshot) {
    journal.add(snapshot, h, std::as_bytes(std::span(value)));
    journal.commit();
    ++h.key;
  };
  {
    remote::detail::value_journal journal(place);
    for (std::int64_t const snapshot : {4, 4, 5}) add(journal, snapshot);
    std::filesystem::rename(place, away);
    REQUIRE_THROWS_AS(add(journal, 6), pp::file_error);
    std::filesystem::rename(away, place);
    add(journal, 6);
  }
  std::vector<std::int64_t> keys;
  remote::detail::value_journal again(place);
  again.replay(3, 4, 6, [&](remote::message_header const& read, std::vector<std::byte> const& bytes) {
    REQUIRE(std::memcmp(bytes.data(), value.data(), sizeof(float) * 5) == 0);
    keys.push_back(read.key);
  });
  REQUIRE(keys == std::vector<std::int64_t>{0, 1, 2, 3});

  SECTION("a server gives new ones a file of their own") {
    std::filesystem::rename(place, folder.file("server-0"));
    for (int life = 0; life < 2; ++life) {
      served_sgd stored(devices, update::sgd{});
      remote::server const server(stored, remote::snapshots{.folder = folder.file(".")});
      raw_worker raw(server.address());
      remote::message_header ask{.kind = remote::message_kind::hello, .worker = 0, .incarnation = 77};
      REQUIRE(raw.ask(ask).kind == remote::message_kind::welcome);
      ask = h;
      ask.incarnation = 77;
      ask.sequence = 1;
      ask.key = 9 + life;
      REQUIRE(raw.ask(ask, std::as_bytes(std::span(value))).kind == remote::message_kind::acknowledge);
      REQUIRE(std::filesystem::exists(folder.file("server-0") / ("values-" + std::to_string(7 + life) + ".bin")));
    }
  }
  SECTION("a server refuses values of other types and sizes") {
    std::filesystem::rename(place, folder.file("server-0"));
    if (GENERATE(false, true))
      h.elements = 1000;
    else
      h.element = remote::element_code<double>;
    {
      remote::detail::value_journal journal(folder.file("server-0"));
      add(journal, 7);
    }
    served_sgd stored(devices, update::sgd{});
    REQUIRE(pushpull::test::message_of<pp::file_error>([&] {
              remote::server(stored, remote::snapshots{.folder = folder.file(".")});
            }).find("cannot go on from its initial values") != std::string::npos);
  }
}

TEST_CASE("threads of one worker may wait in barriers at once", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{}, {.workers = 2});
  worker_store first(devices, servers.addresses, of_rank(0)), second(devices, servers.addresses, of_rank(1));
  auto const call = [](worker_store& store) { return std::async(std::launch::async, [&] { store.barrier(); }); };
  auto a = call(first), b = call(first);
  REQUIRE(a.wait_for(milliseconds(100)) == std::future_status::timeout);
  second.barrier();
  auto const is_done = [](std::future<void> const& f) {
    return f.wait_for(milliseconds(0)) == std::future_status::ready;
  };
  REQUIRE(soon([&] { return is_done(a) || is_done(b); }));
  std::this_thread::sleep_for(milliseconds(50));
  REQUIRE(is_done(a) != is_done(b));
  second.barrier();
  a.get();
  b.get();
}

TEST_CASE("threads of one worker may give the same key to init at once", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{}, {.workers = 2});
  worker_store first(devices, servers.addresses, of_rank(0)), second(devices, servers.addresses, of_rank(1));
  auto const call = [&] { return std::async(std::launch::async, [&] { second.init("w", std::vector<float>(3)); }); };
  auto a = call(), b = call();
  REQUIRE(b.wait_for(milliseconds(100)) == std::future_status::timeout);
  first.init("w", std::vector<float>(3, 1.0F));
  a.get();
  b.get();
  std::vector<float> weights(3);
  second.pull("w", weights).wait();
  REQUIRE(weights[0] == 1);
}

TEST_CASE("a server all of whose snapshots are damaged does not start without them", "[remote]") {
  pp::test::temporary_folder const folder;
  remote::snapshots const where{.folder = folder.file("snapshots"), .durable = true};
  {
    served_sgd stored(devices, update::sgd{});
    remote::server const server(stored, where);
    worker_store store(devices, {server.address()}, of_rank(0));
    std::vector<float> const one(3, 1.0F);
    store.init("w", one);
    store.push("w", one).wait();
  }
  for (auto const& entry : std::filesystem::directory_iterator(folder.file("snapshots") / "server-0"))
    if (entry.path().filename().string().starts_with("pieces-")) std::ofstream(entry.path()) << "damaged";
  served_sgd stored(devices, update::sgd{});
  REQUIRE(pushpull::test::message_of<pp::file_error>([&] {
            remote::server(stored, where);
          }).find("none of the snapshots can be used") != std::string::npos);
}

TEST_CASE("rounds of a key that had no step yet go on without a worker that died before it", "[remote]") {
  server_set<served_sgd> servers(1, update::sgd{.learning_rate = 1},
                                 {.workers = 2, .consistency = remote::rounds{}, .dead_after = milliseconds(300)});
  auto of_zero = of_rank(0);
  of_zero.heartbeat = milliseconds(50);
  worker_store store(devices, servers.addresses, of_zero);
  raw_worker raw(servers.addresses[0]);
  REQUIRE(raw.ask({.kind = remote::message_kind::hello, .worker = 1, .incarnation = 77}).kind ==
          remote::message_kind::welcome);
  std::vector<float> weight(1);
  std::vector<float> const one(1, 1.0F);
  store.init("w", weight);
  REQUIRE(soon([&] { return store.num_dead_node() == 1; }));
  of_zero.rank = 1;
  worker_store again(devices, servers.addresses, of_zero);
  again.init("w", one);
  auto in_barrier = std::async(std::launch::async, [&] { again.barrier(); });
  auto const pushed = store.pushpull("w", one, weight);
  REQUIRE(soon([&] { return pushed.ready(); }));
  store.barrier();
  in_barrier.get();
  REQUIRE(weight[0] == -1);
}

TEST_CASE("a process takes no gradient of the one that had its rank before", "[remote]") {
  server_set<served_sgd> servers(
      1, update::sgd{.learning_rate = 1},
      {.workers = 2, .consistency = remote::rounds{.goes_on = true}, .dead_after = milliseconds(400)});
  worker_store store(devices, servers.addresses, of_rank(0));
  raw_worker raw(servers.addresses[0]), again(servers.addresses[0]);
  remote::message_header h{.kind = remote::message_kind::hello, .worker = 1, .incarnation = 77};
  remote::message_header const next{.kind = remote::message_kind::hello, .worker = 1, .incarnation = 78};
  REQUIRE(raw.ask(h).kind == remote::message_kind::welcome);
  std::vector<float> weight(1);
  std::vector<float> const one(1, 1.0F);
  store.init("w", weight);
  h.kind = remote::message_kind::push;
  h.element = remote::element_code<float>;
  h.elements = h.row_length = h.sequence = 1;
  raw.send(h, std::as_bytes(std::span(one)));  // waits for the other one's, for ever
  REQUIRE(soon([&] { return again.ask(next).kind == remote::message_kind::welcome; }));
  store.pushpull("w", one, weight).wait();
  REQUIRE(weight[0] == -1);
}

TEST_CASE("who had left stays so when the server and the others are started again with their ranks", "[remote]") {
  pp::test::temporary_folder const folder;
  remote::server_options options{.workers = 3, .consistency = remote::rounds{}, .dead_after = milliseconds(400)};
  remote::snapshots const where{.folder = folder.file("snapshots"), .durable = true};
  std::vector<float> const one(1, 1.0F);
  for (int life = 0; life < 2; ++life) {
    served_sgd stored(devices, update::sgd{.learning_rate = 1});
    auto server = std::make_unique<remote::server>(stored, where, options);
    options.address = server->address();
    std::vector<std::unique_ptr<worker_store>> workers(3);
    auto const start = [&](std::size_t rank) {
      workers[rank] = std::make_unique<worker_store>(devices, std::vector{options.address}, of_rank(rank));
    };
    start(0);
    if (life == 1) std::this_thread::sleep_for(milliseconds(2500));  // the other one is no longer awaited
    start(1);
    if (life == 0) start(2);
    for (auto const& worker : workers)
      if (worker != nullptr) worker->init("w", std::vector<float>(1));
    workers[2].reset();
    std::vector<float> weights(2);
    auto const first = workers[0]->pushpull("w", one, std::span(weights).first(1));
    auto const second = workers[1]->pushpull("w", one, std::span(weights).last(1));
    REQUIRE(soon([&] { return first.ready() && second.ready(); }));
    REQUIRE(weights == std::vector<float>(2, -2.0F * static_cast<float>(life + 1)));
    server.reset();  // with the workers alive
  }
}

#if defined(__GLIBC__) && !PUSHPULL_TEST_SANITIZED
TEST_CASE("messages of steady steps map no memory anew", "[remote]") {
  constexpr std::size_t pages = std::size_t{16} << 8;  // of 4 KiB, in a gradient
  server_set<served_sgd> set(1, update::sgd{});
  worker_store store(devices, set.addresses);
  std::vector<float> const gradient(pages << 10, 0.5F);
  std::vector<float> weights(gradient.size());
  store.init("w", weights);
  auto const faults = [] {
    rusage usage{};
    REQUIRE(getrusage(RUSAGE_SELF, &usage) == 0);
    return static_cast<std::size_t>(usage.ru_minflt);
  };
  for (int step = 0; step < 50; ++step) store.pushpull("w", gradient, weights).wait();
  std::size_t const before = faults();
  constexpr std::size_t steps = 50;
  for (std::size_t step = 0; step < steps; ++step) store.pushpull("w", gradient, weights).wait();
  REQUIRE(faults() - before < steps * pages / 100);
}
#endif
