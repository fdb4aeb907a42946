/// @file
/// Traces for chrome://tracing and ui.perfetto.dev: a function for `tracing` that keeps events, and writes them as JSON. Opt-in:
/// pushpull::profile.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/tracing.hpp>

namespace pushpull::inline PUSHPULL_ABI::profile {

/// Keeps all events, about 150 bytes for each. The tracks of a rank are its threads, in the order of their first events.
/// Messages, which begin and end on any thread, have a track of their own.
class chrome_trace {
 public:
  /// @param rank  The number of the process in the trace: traces of several ranks can be read as one.
  explicit chrome_trace(int rank = 0) : state_(std::make_unique<state>()) { state_->rank = rank; }

  /// Keeps an event. For `tracing`.
  void operator()(event const& e) const {
    std::lock_guard const lock(state_->mutex);
    auto const time = std::chrono::steady_clock::now().time_since_epoch();  // events are in the order of their times
    auto const [thread, is_new] = state_->threads.try_emplace(std::this_thread::get_id(), state_->threads.size());
    state_->events.push_back({std::string(e.name), std::string(e.keys), e.what, e.phase, e.bytes, e.device, e.number,
                              thread->second, std::chrono::duration<double, std::micro>(time).count()});
  }

  /// Events so far.
  std::size_t size() const {
    std::lock_guard const lock(state_->mutex);
    return state_->events.size();
  }

  /// The trace in the format "JSON Object" of Chrome: times in microseconds of the machine's steady clock, so that traces of
  /// ranks of one machine lie side by side.
  std::string json() const {
    std::ostringstream text;
    print(text);
    return text.str();
  }

  /// The same, to a file, event by event. @throws file_error
  void write(std::string const& path) const {
    std::ofstream file(path);
    print(file);
    file.close();
    pushpull::detail::expects<file_error>(!file.fail(), [&] { return path + ": cannot write the trace"; });
  }

 private:
  struct kept_event {
    std::string name, keys;
    activity what;
    profile::phase phase;
    std::int64_t bytes;
    int device;
    std::uint64_t number;
    std::size_t thread;
    double time;
  };
  /// Elsewhere, so that the writer can be moved into a `tracing`.
  struct state {
    int rank = 0;
    std::mutex mutex;
    std::map<std::thread::id, std::size_t> threads;
    std::vector<kept_event> events;
  };

  void print(std::ostream& to) const {
    std::lock_guard const lock(state_->mutex);
    char const* separator = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[";
    auto const add = [&](nlohmann::json const& e) {
      to << std::exchange(separator, ",\n") << e.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    };  // keys are any bytes
    add(metadata("process_name", 0, "pushpull, rank " + std::to_string(state_->rank)));
    for (auto const& [id, number] : state_->threads)
      add(metadata("thread_name", number, "thread " + std::to_string(number)));
    for (kept_event const& e : state_->events) add(entry(e));
    to << "]}";
  }
  static char const* category(activity what) {
    switch (what) {
      case activity::operation: return "operation";
      case activity::pass: return "pass";
      case activity::copy: return "copy";
      default: return "message";
    }
  }
  nlohmann::json metadata(char const* kind, std::size_t thread, std::string const& name) const {
    return {{"ph", "M"}, {"name", kind}, {"pid", state_->rank}, {"tid", thread}, {"args", {{"name", name}}}};
  }
  nlohmann::json entry(kept_event const& e) const {
    bool const begins = e.phase == phase::begin, is_message = e.what == activity::message;
    nlohmann::json result{{"name", e.name},      {"cat", category(e.what)},
                          {"pid", state_->rank}, {"tid", e.thread},
                          {"ts", e.time},        {"ph", is_message ? (begins ? "b" : "e") : (begins ? "B" : "E")}};
    if (is_message) result["id2"] = {{"local", e.number}};  // other ranks have the same numbers
    if (!begins) return result;
    nlohmann::json& args = result["args"] = nlohmann::json::object();
    if (!e.keys.empty()) args["keys"] = e.keys;
    if (e.what != activity::operation) args["bytes"] = e.bytes;
    if (e.device >= 0) args["device"] = e.device;
    return result;
  }

  std::unique_ptr<state> state_;
};

}  // namespace pushpull::profile
