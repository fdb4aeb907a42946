/// @file
/// Checkpoints that are written while training goes on.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <future>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/sharded.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

namespace detail {
class background_save;
}

/// A save in the background. Move-only; empty without one.
class async_save {
 public:
  async_save() = default;
  async_save(async_save&&) noexcept = default;
  async_save& operator=(async_save&& other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  /// Waits. An error that nobody has waited for is lost.
  ~async_save() {
    if (state_.valid()) state_.wait();
  }

  /// Whether it has ended, well or not.
  bool done() const { return !state_.valid() || state_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
  /// Returns when the checkpoint is complete. Not collective. @throws each time what the save failed with: file_error
  void wait() const {
    if (state_.valid()) state_.get();
  }

 private:
  friend detail::background_save;
  explicit async_save(std::shared_future<void> state) : state_(std::move(state)) {}

  std::shared_future<void> state_;
};

namespace detail {

/// In the background ranks tell one another by files: a communicator is for the thread that trains.
class background_save {
 public:
  background_save(rank_save&& save, std::chrono::milliseconds deadline)
      : save_(std::move(save)), end_(std::chrono::steady_clock::now() + deadline) {}

  /// Runs a save on a thread of its own. @throws std::system_error if there is none
  static async_save start(rank_save&& save, std::chrono::milliseconds deadline) {
    auto const folder = save.folder;
    std::size_t const rank = save.rank;
    auto running = std::async(std::launch::async, [job = background_save(std::move(save), deadline)]() mutable {
                     background_save(std::move(job)).run();  // the future outlives the copy of the store
                   }).share();
    background_saves::instance().add(folder, rank, running);
    return async_save(std::move(running));
  }

  /// @throws file_error
  void run() {
    rank_file own;
    std::exception_ptr failed;
    std::string report;
    try {
      report = report_of(own = write_file(save_));
    } catch (std::exception const& error) {
      failed = std::current_exception();
      report = signed_text({{"error", error.what()}});
    }
    if (save_.rank == 0) {
      lead(own, failed);
    } else {
      follow(report, failed);
    }
  }

 private:
  void lead(rank_file const& own, std::exception_ptr const& failed) {
    try {
      std::vector<rank_file> files{own};
      std::string problem;
      for (std::size_t rank = 1; rank < save_.ranks; ++rank) {  // until nobody writes any more
        auto const path = report_path(rank);
        wait_until([&] { return exists(path); }, [&] { return "the file of rank " + std::to_string(rank); });
        std::string const text = read_text(path);
        auto const object = checked_object(path, text);
        if (object.contains("error"))
          problem = "save_async: rank " + std::to_string(rank) + ": " + object.at("error").get<std::string>();
        else
          files.push_back(file_in_report(text));
      }
      if (failed) std::rethrow_exception(failed);
      pushpull::detail::expects<file_error>(problem.empty(), [&] { return problem; });
      std::error_code ignored;
      for (std::size_t rank = 1; rank < save_.ranks; ++rank) std::filesystem::remove(report_path(rank), ignored);
      complete(save_, std::move(files));
    } catch (...) {
      remove_folder(save_.partial());
      throw;
    }
  }
  void follow(std::string const& report, std::exception_ptr const& failed) {
    replacement_file file(report_path(save_.rank));
    file.write(std::as_bytes(std::span(report)));
    file.commit();
    if (failed) std::rethrow_exception(failed);
    wait_until([&] { return !exists(save_.partial()); },
               [] { return std::string("rank 0 to complete the checkpoint"); });
    pushpull::detail::expects<file_error>(is_complete(), [&] {
      return "save_async: rank 0 did not complete the checkpoint " + save_.complete().string();
    });
  }

  std::filesystem::path report_path(std::size_t rank) const {
    return save_.partial() / ("rank-" + std::to_string(rank) + ".json");
  }
  static bool exists(std::filesystem::path const& path) {
    std::error_code error;
    return std::filesystem::exists(path, error);
  }
  bool is_complete() const {
    try {
      return read_manifest(save_.complete()).save == save_.copy.whole.save;
    } catch (file_error const&) {
      return false;
    }
  }
  template <class Condition, class What>
  void wait_until(Condition const& condition, What const& what) const {
    for (auto pause = std::chrono::milliseconds(1); !condition(); pause = std::min(2 * pause, longest_pause)) {
      pushpull::detail::expects<file_error>(std::chrono::steady_clock::now() < end_, [&] {
        return "save_async: " + save_.partial().string() + ": waited in vain for " + what();
      });
      std::this_thread::sleep_for(pause);
    }
  }

  static constexpr std::chrono::milliseconds longest_pause{100};

  rank_save save_;
  std::chrono::steady_clock::time_point end_;
};

}  // namespace detail

/// As `save`, but returns when this process's part is copied to host memory; a thread in the background writes it. All ranks
/// call it; they hear of one another by files in the folder. One save at a time: a second one, and `save`, to the same folder
/// first waits for the one that is running. The checkpoint is complete when `wait` of the handle returns; nobody need call it.
/// @throws as `save`, but for errors of writing, which the handle's `wait` throws
template <class S>
  requires(WholeStore<S> || WholeModel<S>)
[[nodiscard]] async_save save_async(S& store, std::filesystem::path const& folder, save_options const& options = {}) {
  static constexpr char const* call = "save_async";
  return detail::with_store(store, [&](auto& whole, auto const& untrained) {
    auto const ranks = whole.owning_ranks();
    detail::rank_save job = detail::begin_save(whole, call, untrained, folder, options);
    async_save result;
    detail::all_or_none(ranks, call,
                        [&] { result = detail::background_save::start(std::move(job), options.deadline); });
    return result;
  });
}

}  // namespace pushpull::checkpoint
