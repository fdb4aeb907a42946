/// @file
/// task_schedule: order, concurrency, priorities and errors of operations on variables.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <oneapi/tbb/global_control.h>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
using pp::detail::task_schedule;
using pp::detail::variable;

/// Runs a function; ends with its last reference.
class operation final : public pp::detail::operation {
 public:
  explicit operation(std::function<void()> f) : function_(std::move(f)) {}
  pp::detail::progress run() override {
    function_();
    return pp::detail::progress::done();
  }

 private:
  void recycle() noexcept override { delete this; }
  std::function<void()> function_;
};

struct call {
  std::vector<variable*> reads = {};
  std::vector<variable*> writes = {};
  int priority = 0;
  bool is_small = false;
};

pp::completion submit(task_schedule& schedule, call const& c, std::function<void()> f) {
  auto* const op = new operation(std::move(f));
  op->acquire();
  pp::completion handle(*op);
  for (variable* const v : c.reads) op->reads(*v);
  for (variable* const v : c.writes) op->writes(*v);
  schedule.submit(*op, c.priority, c.is_small);
  return handle;
}

/// What operations wait for until the test lets them go on; false after a time that no working schedule needs.
class gate {
 public:
  void open() { promise_.set_value(); }
  bool pass() const { return future_.wait_for(std::chrono::seconds(20)) == std::future_status::ready; }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future().share();
};

}  // namespace

TEST_CASE("operations on one variable run in the order of their submission", "[schedule]") {
  task_schedule schedule;
  variable v;
  std::vector<int> order;
  for (int i = 0; i < 1000; ++i)
    submit(schedule, {.writes = {&v}, .priority = i % 7, .is_small = i % 3 == 0}, [&order, i] { order.push_back(i); });
  schedule.wait();
  REQUIRE(order.size() == 1000);
  REQUIRE(std::is_sorted(order.begin(), order.end()));
}

TEST_CASE("a writer runs after the readers before it, readers after the writer before them", "[schedule]") {
  task_schedule schedule;
  variable v;
  gate readers_may_end;
  int value = 1;
  std::atomic<int> seen{0};
  std::atomic<bool> passed{true};
  for (int i = 0; i < 2; ++i)
    submit(schedule, {.reads = {&v}}, [&] {
      if (!readers_may_end.pass()) passed = false;
      seen += value;
    });
  auto const written = submit(schedule, {.writes = {&v}}, [&] { value = 10; });
  auto const read = submit(schedule, {.reads = {&v}}, [&] { seen += value; });
  REQUIRE_FALSE(written.ready());
  REQUIRE_FALSE(read.ready());
  readers_may_end.open();
  read.wait();
  REQUIRE(passed);
  REQUIRE(written.ready());
  REQUIRE(seen == 12);
}

TEST_CASE("readers of one variable run at the same time", "[schedule]") {
  task_schedule schedule;
  variable v;
  gate first_here, second_here;
  std::atomic<bool> met{true};
  submit(schedule, {.reads = {&v}}, [&] {
    first_here.open();
    if (!second_here.pass()) met = false;
  });
  auto const second = submit(schedule, {.reads = {&v}}, [&] {
    second_here.open();
    if (!first_here.pass()) met = false;
  });
  second.wait();
  schedule.wait(v);
  REQUIRE(met);
}

TEST_CASE("an operation that waits does not hold up those on other variables", "[schedule]") {
  task_schedule schedule;
  variable a, b;
  gate begun, may_end;
  std::atomic<bool> passed{true};
  auto const slow = submit(schedule, {.writes = {&a}}, [&] {
    begun.open();
    if (!may_end.pass()) passed = false;
  });
  REQUIRE(begun.pass());
  bool done = false;
  submit(schedule, {.writes = {&b}}, [&] { done = true; });
  schedule.wait(b);
  REQUIRE(done);
  REQUIRE_FALSE(slow.ready());
  may_end.open();
  slow.wait();
  REQUIRE(passed);
}

TEST_CASE("of what is ready the highest priority runs first, and equals in the order of submission", "[schedule]") {
  tbb::global_control const one_thread(tbb::global_control::max_allowed_parallelism, 1);
  task_schedule schedule;
  variable v;
  gate begun, may_end, finished;
  std::vector<int> order;
  std::mutex mutex;
  submit(schedule, {.writes = {&v}}, [&] {
    begun.open();
    may_end.pass();
  });
  REQUIRE(begun.pass());
  for (int const priority : {0, -3, 5, 0, 7, 5})
    submit(schedule, {.reads = {&v}, .priority = priority}, [&order, &mutex, &finished, priority] {
      std::lock_guard const lock(mutex);
      order.push_back(priority);
      if (order.size() == 6) finished.open();
    });
  may_end.open();
  REQUIRE(finished.pass());  // this thread does not help: one thread runs all
  schedule.wait();
  REQUIRE(order == std::vector{7, 5, 5, 0, 0, -3});
}

TEST_CASE("a small operation with nothing to wait for is done when its call returns", "[schedule]") {
  task_schedule schedule;
  variable v;
  std::thread::id thread;
  auto const handle =
      submit(schedule, {.writes = {&v}, .is_small = true}, [&] { thread = std::this_thread::get_id(); });
  REQUIRE(handle.ready());
  REQUIRE(thread == std::this_thread::get_id());
}

TEST_CASE("an error goes to its handle as often as it is asked, and else to who waits first", "[schedule]") {
  task_schedule schedule;
  variable v, w;
  auto const fails = [] { throw std::runtime_error("broken"); };
  auto const handle = submit(schedule, {.writes = {&v}}, fails);
  REQUIRE_THROWS_WITH(handle.wait(), "broken");
  REQUIRE_THROWS_WITH(handle.wait(), "broken");
  REQUIRE(handle.ready());
  REQUIRE_NOTHROW(schedule.wait(v));
  REQUIRE_NOTHROW(schedule.wait());

  submit(schedule, {.writes = {&v, &w}}, fails);
  REQUIRE_THROWS_WITH(schedule.wait(w), "broken");
  REQUIRE_NOTHROW(schedule.wait(v));
  REQUIRE_NOTHROW(schedule.wait());

  submit(schedule, {.writes = {&v}}, fails);
  submit(schedule, {.writes = {&w}}, fails);
  REQUIRE_THROWS_WITH(schedule.wait(), "broken");  // one error per call
  REQUIRE_THROWS_WITH(schedule.wait(), "broken");
  REQUIRE_NOTHROW(schedule.wait());

  bool ran = false;
  submit(schedule, {.writes = {&v}}, fails);
  auto const later = submit(schedule, {.writes = {&v}}, [&] { ran = true; });
  later.wait();  // what comes after a failure runs
  REQUIRE(ran);
  REQUIRE_THROWS_WITH(schedule.wait(), "broken");
}

TEST_CASE("a handle may outlive its schedule", "[schedule]") {
  pp::completion good, bad, none;
  {
    variable v;
    task_schedule schedule;
    good = submit(schedule, {.writes = {&v}}, [] {});
    bad = submit(schedule, {.writes = {&v}}, [] { throw std::runtime_error("broken"); });
  }
  auto const copy = bad;
  REQUIRE(good.ready());
  good.wait();
  REQUIRE_THROWS_WITH(copy.wait(), "broken");
  REQUIRE(none.ready());
  none.wait();
}

TEST_CASE("an operation that calls its own schedule is refused", "[schedule]") {
  task_schedule schedule, other;
  variable v, w;
  auto const handle = submit(schedule, {.writes = {&v}}, [&] { schedule.wait(w); });
  REQUIRE_THROWS_AS(handle.wait(), pp::invalid_argument);
  bool ran = false;
  submit(schedule, {.writes = {&v}}, [&] { submit(other, {.writes = {&w}}, [&] { ran = true; }).wait(); }).wait();
  REQUIRE(ran);
}

TEST_CASE("threads submit and wait at the same time", "[schedule]") {
  task_schedule schedule;
  std::vector<variable> variables(5);
  std::vector<long> sums(5);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (unsigned i = 0; i < 2000; ++i) {
        std::size_t const k = (i * 7 + t) % 5, j = (k + 1 + i % 4) % 5;
        auto const handle =
            submit(schedule, {.writes = {&variables[k], &variables[j]}, .is_small = i % 2 == 0}, [&, k, j] {
              ++sums[k];
              --sums[j];
            });
        if (i % 97 == 0) handle.wait();
        if (i % 331 == 0) schedule.wait(variables[k]);
      }
    });
  for (auto& thread : threads) thread.join();
  schedule.wait();
  long total = 0;
  for (long const sum : sums) total += sum;
  REQUIRE(total == 0);
}
