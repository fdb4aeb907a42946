/// @file
/// Operations that wait for something outside, between stages: on both schedules, in both lanes.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include <oneapi/tbb/task_arena.h>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
using pp::detail::announced_event;
using pp::detail::immediate_schedule;
using pp::detail::lane;
using pp::detail::progress;

using pp::detail::task_schedule;
using pp::detail::variable;

/// Calls a function with the number of the stage until it waits no longer; ends with its last reference.
class staged final : public pp::detail::operation {
 public:
  staged(lane where, std::function<progress(int)> f) : lane_(where), function_(std::move(f)) {}
  progress run() override { return function_(stage_++); }
  lane runs_in() const override { return lane_; }

 private:
  void recycle() noexcept override { delete this; }

  lane lane_;
  std::function<progress(int)> function_;
  int stage_ = 0;
};

struct call {
  std::vector<variable*> writes = {};
  int priority = 0;
  bool is_small = false;
  lane where = lane::compute;
};

template <class Schedule>
pp::completion submit(Schedule& schedule, call const& c, std::function<progress(int)> f) {
  auto* const op = new staged(c.where, std::move(f));
  op->acquire();
  pp::completion handle(*op);
  for (variable* const v : c.writes) op->writes(*v);
  schedule.submit(*op, c.priority, c.is_small);
  return handle;
}

/// A stage that waits for `event`, and one that calls `f`.
auto wait_then(pp::detail::awaited& event, std::function<void()> f) {
  return [&event, f = std::move(f)](int stage) {
    if (stage == 0) return progress::waiting_for(event);
    f();
    return progress::done();
  };
}
auto at_once(std::function<void()> f) {
  return [f = std::move(f)](int) {
    f();
    return progress::done();
  };
}

/// An event that tells nobody: it has to be asked.
class polled final : public pp::detail::awaited {
 public:
  std::atomic<bool> has_happened{false};
  std::atomic<bool> fails{false};
  std::atomic<int> asked{0};

  bool ready() override {
    ++asked;
    if (fails) throw std::runtime_error("lost");
    return has_happened;
  }
};

/// Whether the condition holds within a time that no working schedule needs.
bool comes_true(std::function<bool()> const& condition) {
  for (int i = 0; i < 20000 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return condition();
}

}  // namespace

TEST_CASE("more operations wait than there are threads, and others run meanwhile", "[schedule]") {
  constexpr std::size_t count = 300;
  std::deque<announced_event> told(count);
  std::deque<polled> asked(count);
  std::atomic<int> begun{0}, ended{0};
  std::vector<variable> variables(2 * count + 1);
  task_schedule schedule;
  auto const wait_for = [&](pp::detail::awaited& event) {
    return [&](int stage) {
      if (stage == 0) {
        ++begun;
        return progress::waiting_for(event);
      }
      ++ended;
      return progress::done();
    };
  };
  for (std::size_t i = 0; i < count; ++i) {
    submit(schedule, {.writes = {&variables[2 * i]}, .is_small = i % 3 == 0}, wait_for(told[i]));
    submit(schedule, {.writes = {&variables[2 * i + 1]}, .priority = 1}, wait_for(asked[i]));
  }
  std::atomic<bool> ran{false};
  submit(schedule, {.writes = {&variables.back()}, .priority = -1}, at_once([&] { ran = true; }));
  REQUIRE(comes_true([&] { return ran && begun == 2 * count; }));  // this thread does not help
  REQUIRE(ended == 0);
  for (auto& event : told) event.set();
  REQUIRE(comes_true([&] { return ended == count; }));
  for (auto& event : asked) event.has_happened = true;
  schedule.wait();
  REQUIRE(ended == 2 * count);
}

TEST_CASE("an operation keeps its variables from stage to stage", "[schedule]") {
  announced_event event;
  variable v;
  task_schedule schedule;
  std::vector<int> order;
  auto const waiting = submit(schedule, {.writes = {&v}}, wait_then(event, [&] { order.push_back(1); }));
  auto const later = submit(schedule, {.writes = {&v}, .priority = 9}, at_once([&] { order.push_back(2); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  REQUIRE_FALSE(waiting.ready());
  REQUIRE_FALSE(later.ready());
  event.set();
  later.wait();
  REQUIRE(order == std::vector{1, 2});
}

TEST_CASE("an operation may wait several times, also for what has happened before", "[schedule]") {
  std::deque<announced_event> events(50);
  for (std::size_t i = 0; i < events.size(); i += 2) events[i].set();
  variable v;
  task_schedule schedule;
  std::atomic<int> stages{0};
  auto const handle = submit(schedule, {.writes = {&v}}, [&](int stage) {
    ++stages;
    auto const i = static_cast<std::size_t>(stage);
    return i < events.size() ? progress::waiting_for(events[i]) : progress::done();
  });
  std::thread others([&] {
    for (std::size_t i = 1; i < events.size(); i += 2) events[i].set();
  });
  handle.wait();
  others.join();
  REQUIRE(stages == 51);
}

TEST_CASE("an error while an operation waits goes to its handle, else to who waits first", "[schedule]") {
  announced_event told;
  polled asked;
  variable v, w, x;
  task_schedule schedule;
  bool went_on = false;
  auto const handle = submit(schedule, {.writes = {&v}}, wait_then(told, [&] { went_on = true; }));
  told.fail(std::make_exception_ptr(std::runtime_error("cut")));
  REQUIRE_THROWS_WITH(handle.wait(), "cut");
  REQUIRE_THROWS_WITH(handle.wait(), "cut");
  REQUIRE_NOTHROW(schedule.wait(v));

  submit(schedule, {.writes = {&w}}, wait_then(asked, [&] { went_on = true; }));
  bool ran = false;
  auto const later = submit(schedule, {.writes = {&w}}, at_once([&] { ran = true; }));
  asked.fails = true;
  later.wait();
  REQUIRE(ran);
  REQUIRE_THROWS_WITH(schedule.wait(w), "lost");
  REQUIRE_NOTHROW(schedule.wait());
  REQUIRE_FALSE(went_on);

  announced_event good;
  good.set();
  submit(schedule, {.writes = {&x}}, wait_then(good, [] { throw std::runtime_error("second stage"); }));
  REQUIRE_THROWS_WITH(schedule.wait(), "second stage");
}

TEST_CASE("a schedule that ends waits for what its operations wait for", "[schedule]") {
  announced_event told;
  polled asked;
  std::atomic<int> ended{0};
  std::thread outside;
  {
    variable v, w, x;
    task_schedule schedule;
    submit(schedule, {.writes = {&v}}, wait_then(told, [&] { ++ended; }));
    submit(schedule, {.writes = {&w}}, wait_then(asked, [&] { ++ended; }));
    submit(schedule, {.writes = {&x}, .where = lane::communication}, at_once([&] { ++ended; }));
    outside = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      told.set();
      asked.has_happened = true;
    });
  }
  REQUIRE(ended == 3);
  outside.join();
}

TEST_CASE("the communication lane is one thread that runs what is ready in the order of submission", "[schedule]") {
  std::promise<void> blocked, released;
  variable first;
  std::vector<variable> variables(100);
  task_schedule schedule;
  std::vector<int> order;
  std::set<std::thread::id> threads;
  bool in_arena = false;
  submit(schedule, {.writes = {&first}, .where = lane::communication}, at_once([&] {
           blocked.set_value();
           released.get_future().wait();
         }));
  blocked.get_future().wait();
  for (int i = 0; i < 100; ++i)
    submit(schedule,
           {.writes = {&variables[static_cast<std::size_t>(i)]},
            .priority = i % 7,
            .is_small = i % 2 == 0,
            .where = lane::communication},
           at_once([&, i] {
             order.push_back(i);
             threads.insert(std::this_thread::get_id());
             in_arena = in_arena || tbb::this_task_arena::current_thread_index() > 0;
           }));
  released.set_value();
  schedule.wait();
  REQUIRE(order.size() == 100);
  REQUIRE(std::is_sorted(order.begin(), order.end()));
  REQUIRE(threads.size() == 1);
  REQUIRE(threads.count(std::this_thread::get_id()) == 0);
  REQUIRE_FALSE(in_arena);
}

TEST_CASE("both stages of an operation run in its lane", "[schedule]") {
  announced_event event;
  variable v;
  task_schedule schedule;
  std::array<std::thread::id, 2> threads;
  auto const handle = submit(schedule, {.writes = {&v}, .where = lane::communication}, [&](int stage) {
    threads[static_cast<std::size_t>(stage)] = std::this_thread::get_id();
    return stage == 0 ? progress::waiting_for(event) : progress::done();
  });
  event.set();
  handle.wait();
  REQUIRE(threads[0] == threads[1]);
  REQUIRE(threads[0] != std::this_thread::get_id());
}

TEST_CASE("operations of all processes begin in the order of their submission, whatever their keys", "[schedule]") {
  announced_event key_is_free, exchanged;
  variable slow_key, fast_key;
  task_schedule schedule;
  std::vector<int> order;
  submit(schedule, {.writes = {&slow_key}}, wait_then(key_is_free, [] {}));
  call first{.writes = {&slow_key, &schedule.collectives}, .where = lane::communication};
  call second{.writes = {&fast_key, &schedule.collectives}, .priority = 9, .where = lane::communication};
  submit(schedule, first, [&](int stage) {
    order.push_back(10 + stage);
    return stage == 0 ? progress::waiting_for(exchanged) : progress::done();
  });
  auto const last = submit(schedule, second, at_once([&] { order.push_back(20); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  REQUIRE_FALSE(last.ready());
  key_is_free.set();
  exchanged.set();
  schedule.wait();
  REQUIRE(order == std::vector{10, 11, 20});
}

TEST_CASE("who waits long holds no core", "[schedule]") {
  polled event;
  variable v, w;
  announced_event told;
  task_schedule schedule;
  auto const asked = submit(schedule, {.writes = {&v}}, wait_then(event, [] {}));
  auto const sleeping = submit(schedule, {.writes = {&w}}, wait_then(told, [] {}));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::clock_t const before = std::clock();  // of all threads of the process
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  double const seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  REQUIRE(event.asked > 0);
  event.has_happened = true;
  told.set();
  asked.wait();
  sleeping.wait();
  REQUIRE(seconds < 0.25);
}

TEST_CASE("an operation of several others waits for each, in one place", "[schedule]") {
  std::deque<announced_event> events(3);
  variable v;
  task_schedule schedule;
  std::vector<int> order;
  auto* const joint = new pp::detail::joint_operation(3);
  joint->acquire();
  pp::completion const handle(*joint);
  for (int i = 0; i < 3; ++i) {
    auto* const part =
        new staged(lane::compute, wait_then(events[static_cast<std::size_t>(i)], [&order, i] { order.push_back(i); }));
    part->acquire();
    part->writes(v);
    joint->add(*part);
    part->release();
  }
  schedule.submit(*joint, 0, true);
  REQUIRE_FALSE(handle.ready());
  for (auto event = events.rbegin(); event != events.rend(); ++event) event->set();
  handle.wait();
  REQUIRE(order == std::vector{0, 1, 2});
}

TEST_CASE("where operations run in their call, the call waits", "[schedule]") {
  announced_event told, cut;
  polled asked, lost;
  variable v;
  immediate_schedule schedule;
  std::thread outside([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    told.set();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    asked.has_happened = true;
  });
  std::vector<int> order;
  submit(schedule, {.writes = {&v}}, wait_then(told, [&] { order.push_back(1); }));
  REQUIRE(order.size() == 1);
  submit(schedule, {.writes = {&v}, .where = lane::communication}, wait_then(asked, [&] { order.push_back(2); }));
  REQUIRE(order.size() == 2);
  outside.join();
  cut.fail(std::make_exception_ptr(std::runtime_error("cut")));
  lost.fails = true;
  REQUIRE_THROWS_WITH(submit(schedule, {.writes = {&v}}, wait_then(cut, [] {})), "cut");
  REQUIRE_THROWS_WITH(submit(schedule, {.writes = {&v}}, wait_then(lost, [] {})), "lost");
  submit(schedule, {.writes = {&v}}, at_once([&] { order.push_back(3); }));
  REQUIRE(order == std::vector{1, 2, 3});
}

TEST_CASE("operations that wait are submitted, resumed and waited for by many threads", "[schedule]") {
  constexpr std::size_t count = 800;
  std::vector<variable> variables(4);
  std::vector<long> sums(4);
  std::deque<announced_event> told(count);
  std::deque<polled> asked(count);
  task_schedule schedule;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::size_t i = t; i < count; i += 4) {
        std::size_t const k = i % 3;
        auto const where = i % 5 == 0 ? lane::communication : lane::compute;
        auto const add = [&sums, k] { ++sums[k]; };
        if (i % 2 == 0) {
          submit(schedule, {.writes = {&variables[k]}, .is_small = i % 4 == 0, .where = where},
                 wait_then(told[i], add));
        } else {
          submit(schedule, {.writes = {&variables[k]}, .where = where}, wait_then(asked[i], add));
        }
      }
    });
  threads.emplace_back([&] {
    for (std::size_t i = 0; i < count; ++i) {
      told[i].set();
      asked[i].has_happened = true;
    }
  });
  for (auto& thread : threads) thread.join();
  schedule.wait();
  REQUIRE(sums[0] + sums[1] + sums[2] == static_cast<long>(count));
}
