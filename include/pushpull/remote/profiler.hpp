/// @file
/// The profiler of a server, with MXNet's commands.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/answers.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// The number of the profiler's command, as in MXNet: its text goes to no handler.
inline constexpr std::int64_t profiler_command = 5;

namespace detail {

/// In the order of message_kind, from 1 on.
inline constexpr std::array<char const*, last_message_kind> kind_names{
    "hello",        "welcome",    "goodbye",        "heartbeat",
    "register_key", "key_ready",  "init",           "assign",
    "push",         "pull",       "pushpull",       "push_rows",
    "pull_rows",    "find_piece", "barrier",        "hyperparameters",
    "multipliers",  "optimizer",  "command",        "snapshot",
    "status",       "new_server", "server_address", "list_servers",
    "acknowledge",  "error"};
static_assert(kind_names.back() != nullptr, "kind_names: a name for each message_kind expected");

/// Counts as JSON: {"push": {"messages": 3, "payload_bytes": 24, "seconds": 0.1}, ..., "malformed": 0, ...}.
inline std::string to_json(server_counts const& counts) {
  nlohmann::json all;
  for (std::size_t kind = 1; kind <= last_message_kind; ++kind) {
    kind_counts const& c = counts.kinds[kind];
    if (c.messages > 0)
      all[kind_names[kind - 1]] = {
          {"messages", c.messages}, {"payload_bytes", c.payload_bytes}, {"seconds", c.seconds}};
  }
  all["malformed"] = counts.malformed;
  all["refused"] = counts.refused;
  all["repeated"] = counts.repeated;
  all["unsent"] = counts.unsent;
  all["unsaved"] = counts.unsaved;
  return all.dump(1) + '\n';
}

/// Counts while it runs and is not paused, and writes them to a file.
class server_profiler {
 public:
  explicit server_profiler(std::uint32_t server) : server_(server) {}

  void count(message_kind kind, std::uint64_t bytes, double seconds) {
    if (!runs_ || is_paused_) return;
    kind_counts& c = counts_.kinds[static_cast<std::size_t>(kind)];
    ++c.messages;
    c.payload_bytes += bytes;
    c.seconds += seconds;
  }

  /// The text of a command ends with a digit: 0, before it pairs name:value joined by commas, of which filename counts; 1, before
  /// it 1 or 0: runs or not; 2: paused or not; 3: writes the file. @throws invalid_argument, file_error
  void command(std::string_view text) {
    expect(!text.empty(), "a digit at the end expected, an empty text came");
    char const what = text.back();
    text.remove_suffix(1);
    if (what == '0') return configure(text);
    bool const flag = text.ends_with('1');
    expect(what == '3' || text == "0" || text == "1", "0 or 1 expected before the last digit");
    switch (what) {
      case '1': runs_ = flag; return;
      case '2': is_paused_ = flag; return;
      case '3': return dump();
      default: expect(false, "0, 1, 2 or 3 expected as the last digit");
    }
  }

 private:
  static void expect(bool holds, char const* text) {
    pushpull::detail::expects<invalid_argument>(holds, [&] { return std::string("profiler: ") + text; });
  }
  void configure(std::string_view text) {
    std::string filename = filename_;
    while (!text.empty()) {
      std::string_view const pair = text.substr(0, text.find(','));
      text.remove_prefix(std::min(pair.size() + 1, text.size()));
      std::size_t const colon = pair.find(':');
      expect(colon != pair.npos && colon > 0 && colon + 1 < pair.size(), "pairs name:value expected");
      if (pair.substr(0, colon) == "filename") filename = pair.substr(colon + 1);
    }
    filename_ = std::move(filename);
  }
  void dump() const {
    std::size_t const slash = filename_.rfind('/');
    std::size_t const name = slash == filename_.npos ? 0 : slash + 1;
    std::string const path =
        filename_.substr(0, name) + "rank" + std::to_string(server_) + "_" + filename_.substr(name);
    std::ofstream file(path);
    file << to_json(counts_);
    file.close();
    pushpull::detail::expects<file_error>(!file.fail(), [&] { return path + ": cannot write the profile"; });
  }

  std::uint32_t server_;
  server_counts counts_;
  std::string filename_ = "profile.json";
  bool runs_ = false, is_paused_ = false;
};

}  // namespace detail
}  // namespace pushpull::remote
