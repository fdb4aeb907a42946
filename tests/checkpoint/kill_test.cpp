/// @file
/// A program that is killed while it saves leaves a checkpoint that can be loaded.
#include <pushpull/checkpoint/save_async.hpp>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
namespace fs = std::filesystem;

constexpr char const* folder_variable = "PUSHPULL_TEST_SAVES_IN";
constexpr int ready_file = 9;  // where the writer says that it begins

auto make_store() {
  pp::kv_store store{pp::cpu_devices(1), pp::update::sgd{.learning_rate = 1}, pp::synchronous{}};
  store.init("w", std::vector<float>(50000, 0));
  return store;
}

/// This program, with the test case below: it is no copy of a process with threads.
pid_t start_writer(fs::path const& folder, int ready) {
  pid_t const child = ::fork();
  if (child != 0) return child;
  ::dup2(ready, ready_file);
  ::setenv(folder_variable, folder.c_str(), 1);
  ::execl("/proc/self/exe", "writer", "[writer]", nullptr);
  ::_exit(127);
}

}  // namespace

TEST_CASE("saves for ever, each of these ways in turn", "[.][writer]") {
  char const* const folder = std::getenv(folder_variable);
  if (folder == nullptr) return;
  auto store = make_store();
  if (!cp::list(folder).empty()) cp::load(store, folder);
  std::vector<float> const ones(50000, 1);
  REQUIRE(::write(ready_file, "x", 1) == 1);
  for (;;) {
    store.push("w", ones);
    cp::save(store, folder, {.keep = 2});
    cp::save(store, folder, {.keep = 1});  // in the place of that one
    store.push("w", ones);
    cp::save_async(store, folder).wait();
  }
}

TEST_CASE("a program that is killed while it saves leaves the newest whole checkpoint", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  fs::create_directory(run);
  std::mt19937 random(1);
  std::uniform_int_distribution<int> pause(0, 40000);
  std::int64_t newest = 0;
  int partial = 0;
  for (int kill = 0; kill < 100; ++kill) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid_t const child = start_writer(run, ends[1]);
    REQUIRE(child > 0);
    ::close(ends[1]);
    char ready = 0;
    REQUIRE(::read(ends[0], &ready, 1) == 1);
    std::this_thread::sleep_for(std::chrono::microseconds(pause(random)));
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    ::close(ends[0]);
    for (auto const& each : fs::directory_iterator(run))
      partial += each.path().extension() == ".partial" || each.path().extension() == ".replaced";
    if (newest == 0 && cp::list(run).empty()) continue;  // killed before its first one
    auto store = make_store();
    cp::load(store, run);
    std::vector<float> weights(50000);
    store.pull("w", weights);
    std::int64_t const t = store.steps("w");
    REQUIRE(t >= newest);
    REQUIRE(weights == std::vector<float>(50000, -static_cast<float>(t)));
    newest = t;
  }
  REQUIRE(newest > 1);
  REQUIRE(partial > 10);  // many were killed amid a save
}
