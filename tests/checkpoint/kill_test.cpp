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
constexpr int progress_file = 9;  // gets 0 before the first save, and the step of each that has returned

auto make_store() {
  pp::kv_store store{pp::cpu_devices(1), pp::update::sgd{.learning_rate = 1}, pp::synchronous{}};
  store.init("w", std::vector<float>(50000, 0));
  return store;
}

/// This program, with the test case below: it is no copy of a process with threads.
pid_t start_writer(fs::path const& folder, int progress) {
  pid_t const child = ::fork();
  if (child != 0) return child;
  ::dup2(progress, progress_file);
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
  auto const tell = [&] {
    std::int64_t const t = store.steps("w");
    REQUIRE(::write(progress_file, &t, sizeof(t)) == sizeof(t));
  };
  tell();
  for (;;) {
    store.push("w", ones);
    cp::save(store, folder, {.keep = 2});
    tell();
    cp::save(store, folder, {.keep = 1});  // in the place of that one
    tell();
    store.push("w", ones);
    cp::save_async(store, folder).wait();
    tell();
  }
}

TEST_CASE("a program that is killed while it saves leaves the newest whole checkpoint", "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const run = folder.file("run");
  fs::create_directory(run);
  std::mt19937 random(1);
  std::uniform_int_distribution<int> saves(1, 3);
  std::uniform_real_distribution<double> part(0, 1.2);
  std::chrono::duration<double> of_a_save{0};
  std::int64_t told = 0;  // the last step whose save has returned
  int partial = 0;
  for (int kill = 0; kill < 100; ++kill) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid_t const child = start_writer(run, ends[1]);
    REQUIRE(child > 0);
    ::close(ends[1]);
    for (int save = kill == 0 ? 3 : saves(random); save >= 0; --save) {
      auto const begin = std::chrono::steady_clock::now();
      REQUIRE(::read(ends[0], &told, sizeof(told)) == sizeof(told));
      if (save == 0) of_a_save = std::chrono::steady_clock::now() - begin;
    }
    std::this_thread::sleep_for(part(random) * of_a_save);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    while (::read(ends[0], &told, sizeof(told)) > 0) continue;
    ::close(ends[0]);
    for (auto const& each : fs::directory_iterator(run))
      partial += each.path().extension() == ".partial" || each.path().extension() == ".replaced";
    auto store = make_store();
    cp::load(store, run);
    std::vector<float> weights(50000);
    store.pull("w", weights);
    std::int64_t const t = store.steps("w");
    REQUIRE(t >= told);
    REQUIRE(weights == std::vector<float>(50000, -static_cast<float>(t)));
  }
  REQUIRE(told > 100);
  REQUIRE(partial > 10);  // many were killed amid a save
}
