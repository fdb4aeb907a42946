/// @file
/// comm::nccl: its calls, their results on devices, and its failures. Over the stand-in for libnccl, or over NCCL itself, which
/// has no faults to ask for: on_card.sh.
#include <pushpull/comm/nccl.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/store/keys/topology.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nccl/ranks_of_a_file.cuh"
#include "nccl/stand_in.hpp"
#include "support/catch.hpp"
#include "support/communicator_contract.hpp"
#include "support/cuda_devices.cuh"
#include "support/expect.hpp"
#include "support/meet.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace comm = pushpull::comm;
namespace stand_in = pushpull::test::stand_in;
using namespace std::chrono_literals;
using communicator = comm::nccl<pp::cuda_device>;

/// Numbers in memory of a device.
template <class T>
class numbers {
 public:
  numbers(pp::cuda_device const& device, std::vector<T> const& values)
      : device_(device), size_(values.size()), memory_(static_cast<T*>(device.allocate(size_ * sizeof(T)))) {
    device.copy(memory_, values.data(), size_ * sizeof(T));
    device.synchronize();
  }
  numbers(numbers const&) = delete;
  numbers& operator=(numbers const&) = delete;
  ~numbers() { device_.deallocate(memory_, size_ * sizeof(T)); }

  T* data() const { return memory_; }
  std::vector<T> values() const {
    std::vector<T> result(size_);
    device_.copy(result.data(), memory_, size_ * sizeof(T));
    device_.synchronize();
    return result;
  }

 private:
  pp::cuda_device device_;
  std::size_t size_;
  T* memory_;
};

/// f(communicator) on each of `ranks` ranks. All are gone afterwards.
template <class F>
void on_ranks(int ranks, comm::nccl_options const& options, F const& f) {
  auto const devices = pp::test::logical_devices(ranks);
  if (devices.empty()) return;
  stand_in::reset();
  std::atomic<int> initialised = 0;
  comm::run_ranks(ranks, [&](comm::threads const& host) {
    communicator const c(devices[static_cast<std::size_t>(host.rank())], host, options);
    pp::test::meet(initialised, ranks);  // none fails before all are initialised
    f(c);
  });
}

/// Waits until the stand-in has no communicator: those that failed are aborted on threads of their own.
bool all_are_gone() {
  for (int k = 0; k < 2000 && stand_in::live_communicators() > 0; ++k) std::this_thread::sleep_for(1ms);
  return stand_in::live_communicators() == 0;
}

/// The kind and the text of what f throws.
enum class thrown { nothing, comm_error, timeout };
template <class F>
std::pair<thrown, std::string> result_of(F const& f) {
  try {
    f();
  } catch (pp::comm_timeout const& e) {
    return {thrown::timeout, e.what()};
  } catch (pp::comm_error const& e) {
    return {thrown::comm_error, e.what()};
  }
  return {thrown::nothing, ""};
}
bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

/// An exchange of one float with the next rank, with `more` floats beyond the one that is expected.
void pass_on(communicator const& c, float* out, float* in, std::size_t more = 0) {
  int const next = (c.rank() + 1) % c.size(), before = (c.rank() + c.size() - 1) % c.size();
  comm::transfer const to{out, (1 + more) * sizeof(float), next}, from{in, sizeof(float), before};
  auto group = c.group();
  auto request = c.exchange(group, std::span(&to, 1), std::span(&from, 1));
  group.end();
  request.wait();
}

}  // namespace

static_assert(pp::CollectiveCommunicator<communicator, pp::cuda_device>);
static_assert(pp::MovesMemoryOfEachDevice<communicator, pp::cuda_device>);
static_assert(!pp::MovesMemoryOf<communicator, pp::detail::host_device_probe>);

TEST_CASE("nccl: slices travel, ranges are gathered, numbers are summed") {
  for (int ranks = 1; ranks <= stand_in::most_ranks(); ++ranks)
    on_ranks(ranks, {}, [&](communicator const& c) {
      pp::cuda_device const& device = c.device();
      auto const own = static_cast<float>(c.rank());
      auto const size = static_cast<std::size_t>(ranks), rank = static_cast<std::size_t>(c.rank());
      {
        numbers<float> const whole(device, std::vector<float>(2 * size, own + 1)), sum(device, {-1, -1});
        numbers<double> const wide(device, std::vector<double>(size + 1, own)), total(device, {-1, -1});
        std::vector<comm::byte_range> alike, different;
        for (std::size_t r = 0; r < size; ++r) {
          alike.push_back({8 * r, 8 * r + 8});
          different.push_back({8 * r, 8 * r + (r + 1 == size ? 16 : 8)});
        }
        auto group = c.group();
        auto first = c.reduce_scatter(group, whole.data(), alike, sum.data(), comm::number_type::float32);
        auto second = c.reduce_scatter(group, wide.data(), different, total.data(), comm::number_type::float64);
        group.end();
        first.wait();
        second.wait();
        float const all = static_cast<float>(ranks * (ranks + 1)) / 2;
        pp::test::expect(sum.values() == std::vector<float>{all, all});
        double const wide_sum = ranks * (ranks - 1) / 2.0;
        pp::test::expect(total.values() == std::vector<double>{wide_sum, rank + 1 == size ? wide_sum : -1.0});
      }
      if (ranks > 1) {
        numbers<float> const out(device, {own + 10}), in(device, {-1});
        pass_on(c, out.data(), in.data());
        pp::test::expect(in.values() == std::vector<float>{static_cast<float>((c.rank() + ranks - 1) % ranks) + 10});
      }
      std::vector<float> part(5 * size, -1), expected;
      std::vector<comm::byte_range> alike, different;
      std::size_t first = 0;
      for (std::size_t r = 0; r < size; ++r) {
        for (std::size_t i = 0; i < 5; ++i) expected.push_back(static_cast<float>(10 * r + i));
        alike.push_back({20 * r, 20 * r + 20});
        std::size_t const elements = r + 1 == size ? 5 * size - first : r;  // the first has none
        different.push_back({4 * first, 4 * (first + elements)});
        first += elements;
      }
      for (auto const* const ranges : {&alike, &different}) {
        auto values = part;
        for (std::size_t i = (*ranges)[rank].begin / 4; i < (*ranges)[rank].end / 4; ++i) values[i] = expected[i];
        numbers<float> const whole(device, values);
        numbers<double> const sums(device, {1.0 + c.rank(), rank == 0 ? 0.1 : 0.0});
        auto group = c.group();
        auto gathered = c.gather(group, whole.data(), *ranges);
        auto summed = c.sum(group, sums.data(), 2);
        group.end();
        gathered.wait();
        summed.wait();
        pp::test::expect(whole.values() == expected);
        pp::test::expect(sums.values() == std::vector<double>{ranks * (ranks + 1) / 2.0, 0.1});
      }
      c.barrier();
    });
  CHECK(stand_in::live_communicators() == 0);
  CHECK(stand_in::aborts() == 0);
  CHECK(stand_in::refusals().empty());
}

TEST_CASE("nccl: devices of one process are ranks, each with a thread") {
  auto const devices = pp::test::logical_devices(std::min(3, stand_in::most_ranks()));
  if (devices.empty()) return;
  int const before = static_cast<int>(devices.size()) - 1;  // the rank before, modulo the ranks
  stand_in::reset();
  stand_in::slow_initialisation(5);
  {
    auto const all = communicator::make(devices);
    std::vector<std::thread> threads;
    std::atomic<int> right = 0;
    for (communicator const& c : all)
      threads.emplace_back([&right, before, c] {
        numbers<float> const out(c.device(), {static_cast<float>(c.rank())}), in(c.device(), {-1});
        if (c.size() > 1) pass_on(c, out.data(), in.data());
        if (in.values() ==
            std::vector<float>{c.size() > 1 ? static_cast<float>((c.rank() + before) % c.size()) : -1.0F})
          ++right;
        c.barrier();
      });
    for (auto& each : threads) each.join();
    CHECK(right == static_cast<int>(devices.size()));
  }
  CHECK(stand_in::live_communicators() == 0);
  CHECK(stand_in::refusals().empty());
}

namespace {

/// f(communicator) on each of two ranks, of which rank r has counts[r] devices; at a file or introduced by threads.
template <class F>
void on_two_ranks(bool at_a_file, std::vector<int> const& counts, comm::nccl_options const& options, F const& f) {
  auto const devices = pp::test::logical_devices(counts[0] + counts[1]);
  stand_in::reset();
  pp::test::temporary_folder const folder;
  comm::run_ranks(2, [&](comm::threads const& host) {
    auto const first = devices.begin() + (host.rank() == 0 ? 0 : counts[0]);
    std::vector const own(first, first + counts[static_cast<std::size_t>(host.rank())]);
    if (at_a_file)
      f([&] {
        return communicator(own, comm::nccl_file{folder.file("meeting").string(), "", host.rank(), 2}, options);
      });
    else
      f([&] { return communicator(own, host, options); });
  });
}

}  // namespace

namespace of_nccl {  // in no anonymous namespace, where nvcc warns of members that nothing calls

/// A communicator for one device per rank.
struct of_one_device : communicator {
  explicit of_one_device(communicator const& c) : communicator(c) {}
  comm::nccl_request gather(group_type& group, void* whole, std::span<comm::byte_range const> of_rank) const {
    return communicator::gather(group, whole, of_rank);
  }
};

}  // namespace of_nccl

TEST_CASE("nccl: each device of a rank exchanges memory with the device of its number on the others") {
  if (pp::test::logical_devices(1).empty() || stand_in::most_ranks() < 4) return;
  for (bool const at_a_file : {false, true}) {
    on_two_ranks(at_a_file, {2, 2}, {.deadline = 60000ms}, [](auto const& make) {
      communicator const c = make();
      pp::test::expect(c.devices().size() == 2 && c.size() == 2 && c.device() == c.devices()[0]);
      pp::test::expect(pp::detail::owners_of<pp::cuda_device>(c, 2).owners() == 4);
      pp::test::expect_throws<pp::invalid_argument>(
          [&] { static_cast<void>(pp::detail::owners_of<pp::cuda_device>(of_nccl::of_one_device(c), 2)); });
      auto const own = static_cast<float>(c.rank()), other = 1 - own;
      numbers<float> const out_0(c.devices()[0], {own}), in_0(c.devices()[0], {-1});
      numbers<float> const out_1(c.devices()[1], {own + 10}), in_1(c.devices()[1], {-1});
      numbers<float> const whole(c.devices()[1], {own + 20, own + 20}), sum(c.devices()[1], {-1});
      numbers<double> const sums(c.device(), {1 + own});
      int const peer = 1 - c.rank();
      std::vector<comm::transfer> const out{{out_1.data(), 4, peer, 1}, {out_0.data(), 4, peer, 0}};
      std::vector<comm::transfer> const in{{in_0.data(), 4, peer, 0}, {in_1.data(), 4, peer, 1}};
      std::vector<comm::byte_range> const ranges{{0, 4}, {4, 8}};
      {
        auto group = c.group();
        auto first = c.exchange(group, out, in);
        auto second = c.reduce_scatter(group, whole.data(), ranges, sum.data(), comm::number_type::float32, 1);
        auto third = c.sum(group, sums.data(), 1);
        group.end();
        first.wait();
        second.wait();
        third.wait();
      }
      pp::test::expect(in_0.values() == std::vector{other} && in_1.values() == std::vector{other + 10});
      pp::test::expect(sum.values() == std::vector{41.0F} && sums.values() == std::vector{3.0});
      {
        auto group = c.group();
        auto gathered = c.gather(group, whole.data(), ranges, 1);
        group.end();
        gathered.wait();
        pp::test::expect(whole.values() == std::vector{20.0F, 21.0F});
      }
      auto group = c.group();
      pp::test::expect_throws<pp::invalid_argument>([&] { static_cast<void>(c.gather(group, nullptr, ranges, 2)); });
      comm::transfer const nowhere{in_0.data(), 4, peer, 2};
      pp::test::expect_throws<pp::invalid_argument>([&] { c.exchange(group, {}, std::span(&nowhere, 1)); });
      group.end();
      c.barrier();
    });
    CHECK(stand_in::live_communicators() == 0);
    CHECK(stand_in::aborts() == 0);
    CHECK(stand_in::refusals().empty());
  }
}

TEST_CASE("nccl: ranks of differently many devices, of none, or of one twice are refused on all ranks") {
  auto const devices = pp::test::logical_devices(1);
  if (devices.empty() || stand_in::most_ranks() < 2) return;
  for (bool const at_a_file : {false, true})
    for (auto const& counts : {std::vector{1, 2}, std::vector{2, 1}, std::vector{3, 0}}) {
      if (at_a_file && counts[1] == 0) continue;  // no device to meet with
      on_two_ranks(at_a_file, counts, {.deadline = 60000ms}, [&](auto const& make) {
        std::string text;
        try {
          static_cast<void>(make());
        } catch (pp::invalid_argument const& e) {
          text = e.what();
        }
        pp::test::expect_text(text, counts[1] == 0 ? "rank 1 came with none"
                                                   : "rank 0 came with " + std::to_string(counts[0]) +
                                                         ", rank 1 with " + std::to_string(counts[1]));
      });
      CHECK(all_are_gone());
    }
  comm::run_ranks(2, [&](comm::threads const& host) {
    pp::test::expect_throws<pp::invalid_argument>([&] {
      communicator const c(host.rank() == 0 ? pp::test::logical_devices(2) : std::vector{devices[0], devices[0]}, host);
    });
  });
  CHECK(stand_in::live_communicators() == 0);
}

TEST_CASE("nccl: a failure of one device of a rank ends all of them, on all ranks", "[faults]") {
  if (pp::test::logical_devices(1).empty()) return;
  enum class fault { call, silence, fail };
  for (fault const what : {fault::call, fault::silence, fault::fail}) {
    std::atomic<int> came = 0;
    on_two_ranks(false, {2, 2}, {.deadline = what == fault::silence ? 300ms : 20000ms}, [&](auto const& make) {
      communicator const c = make();
      numbers<float> const out(c.devices()[1], {1}), in(c.devices()[1], {-1});
      if (c.rank() == 0 && what == fault::call) stand_in::fail_call("ncclSend", 1, ncclSystemError);
      if (c.rank() == 0 && what == fault::silence) stand_in::silence(1);
      pp::test::meet(came, 2);
      if (c.rank() == 1 && what == fault::fail) c.fail("a rank threw");
      comm::transfer const to{out.data(), 4, 1 - c.rank(), 1}, from{in.data(), 4, 1 - c.rank(), 1};
      auto const pass = [&] {
        auto group = c.group();
        auto request = c.exchange(group, std::span(&to, 1), std::span(&from, 1));
        group.end();
        request.wait();
      };
      auto const [kind, text] = result_of(pass);
      pp::test::expect(kind != thrown::nothing);
      auto const [again, same] = result_of([&] { c.expect_alive(); });
      pp::test::expect(again == kind && same == text);
      pp::test::meet(came, 4);
    });
    CHECK(all_are_gone());
    CHECK(stand_in::aborts() == 4);
    CHECK(stand_in::refusals().empty());
  }
}

TEST_CASE("nccl: ranks meet at a file, and memory of the host travels by NCCL") {
  for (int ranks = 1; ranks <= stand_in::most_ranks(); ++ranks) {
    stand_in::on_ranks_of_a_file(ranks, {.deadline = 60000ms}, [&](communicator const& c) {
      pp::test::expect(c.size() == ranks);
      numbers<double> const sums(c.device(), {1.0 + c.rank()});
      auto group = c.group();
      auto summed = c.sum(group, sums.data(), 1);
      group.end();
      summed.wait();
      pp::test::expect(sums.values() == std::vector<double>{ranks * (ranks + 1) / 2.0});
      pp::test::contract_exchange(c.host());
      pp::test::contract_order(c.host());
      pp::test::contract_in_flight(c.host());
      pp::test::contract_gather(c.host());
      pp::test::contract_sum(c.host());
      pp::test::contract_broadcast(c.host());
      pp::test::contract_gather_all(c.host());
      pp::test::contract_barrier(c.host());
      pp::test::contract_two_families(c.host());
    });
    CHECK(stand_in::live_communicators() == 0);
    CHECK(stand_in::aborts() == 0);
    CHECK(stand_in::refusals().empty());
  }
}

TEST_CASE("nccl: a rank that does not come to the file, or to a call, is a timeout on the others") {
  auto const devices = pp::test::logical_devices(1);
  if (devices.empty()) return;
  stand_in::reset();
  pp::test::temporary_folder const folder;
  std::string const path = folder.file("meeting").string();
  for (int const rank : {0, 1}) {
    auto const [kind, text] = result_of(
        [&] { communicator const c(devices[0], comm::nccl_file{path, "job", rank, 2}, {.deadline = 300ms}); });
    CHECK(kind == thrown::timeout);
    CHECK(contains(text, rank == 0 ? "no rank 1 came to the file \"" + path + "\" of the job \"job\" in 300 ms"
                                   : "rank 0 did not answer in the file"));
    CHECK(!std::filesystem::exists(path));
    CHECK(!std::filesystem::exists(path + ".1"));
  }
  CHECK(result_of([&] {
          communicator const c(devices[0], comm::nccl_file{folder.file("none/x").string(), "", 0, 1});
        }).first == thrown::comm_error);
  CHECK_THROWS_AS(communicator(devices[0], comm::nccl_file{"", "", 0, 1}), pp::invalid_argument);
  CHECK_THROWS_AS(communicator(devices[0], comm::nccl_file{path, "", 2, 2}), pp::invalid_argument);
  CHECK(all_are_gone());

  if (stand_in::most_ranks() < 2) return;
  std::atomic<int> came = 0;
  stand_in::on_ranks_of_a_file(2, {.deadline = 1500ms}, [&](communicator const& c) {
    numbers<double> const sums(c.device(), {1});
    pp::test::meet(came, 2);
    auto const [kind, text] = result_of([&] {
      if (c.rank() == 0) return;
      auto group = c.group();
      auto request = c.sum(group, sums.data(), 1);
      group.end();
      request.wait();
      for (;; std::this_thread::sleep_for(1ms)) c.expect_alive();
    });
    pp::test::meet(came, 4);
    if (c.rank() == 0) return;
    pp::test::expect(kind == thrown::timeout);
    pp::test::expect_text(text, "not every rank came in 1500 ms");
    pp::test::expect_throws<pp::comm_error>([&] { static_cast<void>(c.group()); });
  });
  CHECK(all_are_gone());
}

TEST_CASE("nccl: initialisation that is slow is waited for, one that does not end meets the deadline", "[faults]") {
  if (pp::test::logical_devices(1).empty()) return;
  for (bool const ends : {true, false}) {
    auto const devices = pp::test::logical_devices(2);
    stand_in::reset();
    stand_in::slow_initialisation(ends ? 100 : stand_in::never);
    std::atomic<int> timeouts = 0;
    comm::run_ranks(2, [&](comm::threads const& host) {
      auto const [kind, text] = result_of([&] {
        communicator const c(devices[static_cast<std::size_t>(host.rank())], host,
                             {.deadline = ends ? 20000ms : 100ms});
        numbers<float> const out(c.device(), {1}), in(c.device(), {-1});
        pass_on(c, out.data(), in.data());
        host.barrier();
      });
      pp::test::expect((kind == thrown::nothing) == ends);
      if (kind != thrown::timeout) return;  // the other's abort may come first
      pp::test::expect_text(text, "initialisation: not every rank came in 100 ms");
      ++timeouts;
    });
    CHECK((timeouts > 0) == !ends);
    CHECK(all_are_gone());
    CHECK(stand_in::refusals().empty());
  }
}

TEST_CASE("nccl: a silent rank is a timeout on the others, also if aborts hang", "[faults]") {
  for (bool const aborts_hang : {false, true}) {
    stand_in::hang_aborts(aborts_hang);
    on_ranks(3, {.deadline = 1s}, [&](communicator const& c) {
      if (c.rank() == 0) stand_in::silence(1);
      c.barrier();
      numbers<float> const out(c.device(), {1}), in(c.device(), {-1});
      auto const [kind, text] = result_of([&] {
        pass_on(c, out.data(), in.data());  // rank 0 has sent to the silent rank, and waits
        pass_on(c, out.data(), in.data());
      });
      pp::test::expect(kind != thrown::nothing);
      if (aborts_hang) pp::test::expect(kind == thrown::timeout);  // nobody learns of the others' ends
      auto const [again, same] = result_of([&] { pass_on(c, out.data(), in.data()); });
      pp::test::expect(again == kind);
      pp::test::expect_text(same, text.substr(text.rfind(": ")));
      c.host().barrier();
    });
    if (aborts_hang) CHECK(stand_in::live_communicators() > 0);
    stand_in::hang_aborts(false);
    CHECK(all_are_gone());
    CHECK(stand_in::aborts() >= (pp::test::logical_devices(1).empty() ? 0 : 1));
  }
}

namespace of_nccl {

/// A GPU whose events wait until `finishes` is set, as they do on a stream in which a kernel of NCCL waits for its peer.
struct stuck_device : pp::cuda_device {
  struct event {
    std::shared_ptr<std::atomic<bool>> finishes;
    bool ready() const { return *finishes; }
    void wait() const {}
  };
  std::shared_ptr<std::atomic<bool>> finishes = std::make_shared<std::atomic<bool>>(true);

  explicit stuck_device(pp::cuda_device const& device) : pp::cuda_device(device) {}
  event record() const { return {finishes}; }
  friend bool operator==(stuck_device const& a, stuck_device const& b) {
    return static_cast<pp::cuda_device const&>(a) == b;
  }
};

}  // namespace of_nccl

TEST_CASE("nccl: the watchdog sees work that does not end on the stream, and late errors", "[faults]") {
  if (pp::test::logical_devices(1).empty()) return;
  for (bool const is_stuck : {true, false}) {
    stand_in::reset();
    of_nccl::stuck_device const device(pp::test::logical_devices(1)[0]);
    *device.finishes = false;
    {
      comm::nccl<of_nccl::stuck_device> const c(device, comm::single{}, {.deadline = is_stuck ? 200ms : 60000ms});
      numbers<double> const sums(device, {1});
      auto const add = [&] {
        auto group = c.group();
        auto request = c.sum(group, sums.data(), 1);
        group.end();
        request.wait();
      };
      add();  // the request is ready: the work is on the stream
      if (!is_stuck) stand_in::fail_asynchronously(0, ncclSystemError);
      for (int k = 0; k < 5000 && stand_in::aborts() == 0; ++k) std::this_thread::sleep_for(1ms);
      CHECK(stand_in::aborts() == 1);  // though nobody has called
      auto const [kind, text] = result_of(add);
      CHECK(kind == (is_stuck ? thrown::timeout : thrown::comm_error));
      CHECK(contains(text, is_stuck ? "does not end" : "unhandled system error (stand-in)"));
    }
    CHECK(all_are_gone());
  }
}

TEST_CASE("nccl: a code of any call is an error with its text, of this rank and of the others", "[faults]") {
  struct failing {
    char const* call;
    ncclResult_t result;
    char const* text;
  };
  for (failing const& f : {failing{"ncclSend", ncclUnhandledCudaError, "ncclSend: unhandled cuda error (stand-in)"},
                           failing{"ncclRecv", ncclInternalError, "ncclRecv: internal error"},
                           failing{"ncclAllReduce", ncclSystemError, "ncclAllReduce: unhandled system error"}}) {
    on_ranks(2, {.deadline = 5000ms}, [&](communicator const& c) {
      if (c.rank() == 1) stand_in::fail_call(f.call, 1, f.result);
      c.barrier();
      numbers<float> const out(c.device(), {1}), in(c.device(), {-1});
      numbers<double> const sums(c.device(), {1});
      std::string text;
      int of_rank = -2;
      try {
        auto group = c.group();
        comm::transfer const to{out.data(), 4, 1 - c.rank()}, from{in.data(), 4, 1 - c.rank()};
        auto request = c.exchange(group, std::span(&to, 1), std::span(&from, 1));
        auto summed = c.sum(group, sums.data(), 1);
        group.end();
        request.wait();
        summed.wait();
      } catch (pp::comm_error const& e) {
        text = e.what();
        of_rank = e.rank();
      }
      pp::test::expect_text(text, c.rank() == 1 ? f.text : "remote process exited");
      pp::test::expect(of_rank == (c.rank() == 1 ? 1 : -1));
    });
    CHECK(stand_in::live_communicators() == 0);  // the destructors have waited for the aborts
    CHECK(stand_in::refusals().empty());
  }
  if (pp::test::logical_devices(1).empty()) return;
  for (char const* const call : {"ncclGetUniqueId", "ncclCommInitRankConfig"}) {
    stand_in::reset();
    stand_in::fail_call(call, 0, ncclUnhandledCudaError);  // as if memory runs out
    auto const [kind, text] =
        result_of([&] { communicator const c(pp::test::logical_devices(1)[0], comm::single{}, {}); });
    CHECK(kind == thrown::comm_error);
    CHECK(contains(text, std::string(call)));
    CHECK(contains(text, "unhandled cuda error"));
    CHECK(stand_in::live_communicators() == 0);
  }
}

TEST_CASE("nccl: sizes that differ, groups that are dropped, ranks that throw", "[faults]") {
  on_ranks(2, {.deadline = 5000ms}, [&](communicator const& c) {
    numbers<float> const out(c.device(), {1, 2}), in(c.device(), {-1});
    auto const [kind, text] = result_of([&] { pass_on(c, out.data(), in.data(), c.rank() == 0 ? 1 : 0); });
    pp::test::expect(kind == thrown::comm_error);
    if (!contains(text, "invalid usage"))
      pp::test::expect_text(text, "remote process exited");  // the other's abort came first
  });
  CHECK(all_are_gone());
  CHECK(stand_in::refusals().size() == (pp::test::logical_devices(1).empty() ? 0 : 1));

  on_ranks(2, {.deadline = 5000ms}, [&](communicator const& c) {
    numbers<float> const out(c.device(), {1}), in(c.device(), {-1});
    if (c.rank() == 0) {
      {
        auto const dropped = c.group();
      }
      pp::test::expect_throws<pp::comm_error>([&] { static_cast<void>(c.group()); });
    } else {
      pp::test::expect_throws<pp::comm_error>([&] { pass_on(c, out.data(), in.data()); });
    }
  });
  CHECK(all_are_gone());
  CHECK(stand_in::refusals().empty());

  on_ranks(2, {.deadline = 5000ms}, [&](communicator const& c) {
    numbers<float> const out(c.device(), {1}), in(c.device(), {-1});
    if (c.rank() == 0) c.fail("a rank threw");
    auto const [kind, text] = result_of([&] { pass_on(c, out.data(), in.data()); });
    pp::test::expect(kind == thrown::comm_error);
    if (c.rank() == 0) pp::test::expect_text(text, "a rank threw");
    pp::test::expect_throws<pp::comm_error>([&] { c.barrier(); });
  });
  CHECK(all_are_gone());

  auto const devices = pp::test::logical_devices(1);
  if (devices.empty()) return;
  CHECK_THROWS_AS(communicator(devices[0], comm::single{}, {.deadline = 0ms}), pp::invalid_argument);
  communicator const c(devices[0], comm::single{});
  auto group = c.group();
  comm::transfer const itself{nullptr, 4, 0};
  CHECK_THROWS_AS(c.exchange(group, std::span(&itself, 1), {}), pp::invalid_argument);
  CHECK_THROWS_AS(c.gather(group, nullptr, {}), pp::invalid_argument);
  group.end();
}
