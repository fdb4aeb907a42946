// The processes and the failing allocations behind harness.hpp.
#include "faults/harness.hpp"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <thread>

#include <pushpull/error.hpp>

#include "support/catch.hpp"

namespace {

std::atomic<long> left{0};          // allocations up to the one that fails; 0: none does
std::atomic<bool> for_good{false};  // all later ones fail too
std::atomic<bool> struck{false};

/// Whether this allocation fails.
bool fails() noexcept {
  long now = left.load(std::memory_order_relaxed);
  if (now == 0) return false;
  while (now > 0 && !left.compare_exchange_weak(now, now == 1 ? -1 : now - 1)) {
  }
  if (now == 1) {
    struck = true;
    return true;
  }
  return now < 0 && for_good;
}

void* get(std::size_t size, std::size_t alignment = 0) noexcept {
  if (fails()) return nullptr;
  if (alignment == 0) return std::malloc(size == 0 ? 1 : size);
  return std::aligned_alloc(alignment, (size + alignment) / alignment * alignment);
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
  if (void* const p = get(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
  if (void* const p = get(size, static_cast<std::size_t>(alignment))) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return get(size); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  return get(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace pushpull::test::faults {

namespace {

using numbers = std::vector<double>;

/// What both processes see.
struct report {
  std::atomic<int> mode, n;  // the point in hand
  std::atomic<bool> finished;
  int points, failed;
  char text[1 << 14];

  void add(char const* what) {
    ++failed;
    std::size_t const used = std::strlen(text);
    std::snprintf(text + used, sizeof(text) - used, "  %s allocation %d: %s\n", mode == 0 ? "once," : "from", n.load(),
                  what);
  }
};

void arm(int n, bool and_later) {
  struck = false;
  for_good = and_later;
  left = n;
}
bool disarm() {
  left = 0;
  return struck;
}

std::string difference(numbers const& expected, numbers const& got) {
  if (expected.size() != got.size())
    return std::to_string(expected.size()) + " numbers expected, got " + std::to_string(got.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    if (std::memcmp(&expected[i], &got[i], sizeof(double)) != 0)
      return "number " + std::to_string(i) + ": " + std::to_string(expected[i]) + " expected, got " +
             std::to_string(got[i]);
  return {};
}

/// The call's effects where nothing fails.
struct effects {
  numbers before, after, later;

  effects(maker const& make, action const& call) {
    auto const s = make();
    before = s->held();
    call(*s);
    s->wait();
    after = s->held();
    s->work_on();
    later = s->held();
  }
};

/// What is wrong behind a call whose allocation number n failed; empty if nothing is. @param done  No allocation was left.
std::string try_point(maker const& make, action const& call, effects const& right, int n, bool and_later, bool& done) {
  auto const s = make();
  std::string thrown, unexpected;
  arm(n, and_later);
  try {
    call(*s);
    s->wait();
  } catch (std::bad_alloc const&) {
    disarm();
    thrown = "bad_alloc";
  } catch (out_of_memory const&) {
    disarm();
    thrown = "out_of_memory";
  } catch (std::exception const& e) {
    disarm();
    unexpected = e.what();
    thrown = "unexpected";
  }
  done = !disarm();
  if (!unexpected.empty()) return "threw: " + unexpected;
  if (done && !thrown.empty()) return "threw without a failure";
  try {
    s->wait();  // the error of what was accepted, where the call did not tell it
  } catch (std::bad_alloc const&) {
  } catch (out_of_memory const&) {
  }
  if (!thrown.empty()) {
    if (auto const d = difference(right.before, s->held()); !d.empty()) return "after " + thrown + ": " + d;
    call(*s);
    s->wait();
  }
  if (auto const d = difference(right.after, s->held()); !d.empty())
    return (thrown.empty() ? "no error, but: " : "made again: ") + d;
  s->work_on();
  if (auto const d = difference(right.later, s->held()); !d.empty()) return "in further steps: " + d;
  return {};
}

/// In a process of its own: all points from the report's on.
[[noreturn]] void run_points(report& r, maker const& make, action const& call) {
  try {
    effects const right(make, call);
    for (; r.mode < 2; ++r.mode, r.n = 1)
      for (bool done = false; !done; ++r.n) {
        auto const wrong = [&]() -> std::string {
          try {
            return try_point(make, call, right, r.n, r.mode == 1, done);
          } catch (std::exception const& e) {
            disarm();
            return std::string("the object is broken: ") + e.what();
          }
        }();
        if (!done) ++r.points;
        if (!wrong.empty()) r.add(wrong.c_str());
      }
  } catch (std::exception const& e) {
    r.add((std::string("the call without failures threw: ") + e.what()).c_str());
  }
  r.finished = true;
  ::_exit(0);
}

/// Waits for the process. @returns whether it ended, by itself or by a signal, and did not hang at one point
bool ended(pid_t child, report const& r, int& status) {
  int mode = -1, n = -1;
  auto since = std::chrono::steady_clock::now();
  auto const limit = std::chrono::seconds(
      std::getenv("PUSHPULL_HANG_SECONDS") != nullptr ? std::atoi(std::getenv("PUSHPULL_HANG_SECONDS")) : 30);
  for (;;) {
    if (::waitpid(child, &status, WNOHANG) == child) return true;
    auto const now = std::chrono::steady_clock::now();
    if (mode != r.mode || n != r.n) {
      mode = r.mode;
      n = r.n;
      since = now;
    } else if (now - since > limit) {
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

void point() {
  if (fails()) throw out_of_memory("device: no room");
}

bool is_long() { return std::getenv("PUSHPULL_LONG_TESTS") != nullptr; }

void check_call(std::string const& kind, std::string const& name, maker const& make, action const& call) {
  void* const memory = ::mmap(nullptr, sizeof(report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  auto& r = *new (memory) report{};
  r.n = 1;
  constexpr int most_failures = 400;
  while (!r.finished && r.failed < most_failures) {
    std::fflush(stdout);
    pid_t const child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::signal(SIGABRT, SIG_DFL);
      ::signal(SIGSEGV, SIG_DFL);
      run_points(r, make, call);
    }
    int status = 0;
    bool const hung = !ended(child, r, status);
    if (r.finished) break;
    ++r.points;
    r.add(hung ? "hang" : WIFSIGNALED(status) ? ::strsignal(WTERMSIG(status)) : "the process ended");
    ++r.n;
  }
  if (std::getenv("PUSHPULL_FAULTS_REPORT") != nullptr)
    std::printf("%-28s %-32s %5d points, %4d failed\n", kind.c_str(), name.c_str(), r.points, r.failed);
  INFO(kind << ": " << name << ": " << r.points << " points, " << r.failed << " failed:\n" << r.text);
  CHECK(r.failed == 0);
  CHECK(r.finished);
  ::munmap(memory, sizeof(report));
}

}  // namespace pushpull::test::faults
