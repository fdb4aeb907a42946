/// @file
/// Snapshots of servers: a server that is started again goes on from the newest one.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <pushpull/checkpoint/crc32.hpp>
#include <pushpull/checkpoint/manifest.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/sharded.hpp>
#include <pushpull/checkpoint/step_folders.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/piece_checks.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/remote/served_pieces.hpp>
#include <pushpull/remote/served_store.hpp>
#include <pushpull/remote/snapshot_keeper.hpp>
#include <pushpull/remote/value_journal.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

/// Where and when a server writes snapshots: values, states, step counts, and which updates of which worker they have. Each is a
/// checkpoint of the server's store, `<folder>/server-<n>/step-<i>`. A server that starts with the folder of an earlier one of the
/// same number, rule and types goes on from the newest whole snapshot.
struct snapshots {
  std::filesystem::path folder = {};        ///< Of all servers of the job; made if there is none.
  std::chrono::milliseconds every{60'000};  ///< if anything has changed; and when a worker chooses a rule
  /// An update is acknowledged after a snapshot has it: none that was acknowledged is ever lost. Each answer waits for the disk.
  bool durable = false;
  std::size_t keep = 2;  ///< The newest so many stay; 0: all.
};

namespace detail {

/// The snapshots of a server whose store is a `Store`.
template <class Store>
class kept_snapshots final : public snapshot_keeper {
  using T = typename Store::value_type;
  using json = nlohmann::json;

 public:
  kept_snapshots(Store& store, snapshots const& options, std::uint32_t server)
      : store_(store),
        options_(options),
        folder_(options.folder / ("server-" + std::to_string(server))),
        journal_(folder_) {
    std::error_code failed;
    std::filesystem::create_directories(folder_, failed);
    pushpull::detail::expects<file_error>(
        !failed, [&] { return folder_.string() + ": cannot make the folder: " + failed.message(); });
  }

  bool is_durable() const override { return options_.durable; }
  std::chrono::milliseconds every() const override { return options_.every; }

  void restore(served_pieces& pieces, key_directory& keys, std::vector<known_worker>& workers,
               served_store& store) override {
    restore_keys(keys);
    restore_workers(workers);
    std::int64_t const first = find_numbers();
    std::string why;
    for (checkpoint::saved_step const& saved : checkpoint::list(folder_))
      if (!kept_.empty() || try_restore(saved, pieces, store, why)) kept_.push_front(saved.step);
    pushpull::detail::expects<file_error>(!kept_.empty() || checkpoint::detail::candidates(folder_).empty(), [&] {
      return folder_.string() + ": none of the snapshots can be used: " + (why.empty() ? "they are damaged" : why);
    });
    std::int64_t const restored = kept_.empty() ? 0 : kept_.back();
    journal_.replay(restored, first, next_ - 1, [&](message_header const& h, std::vector<std::byte> const& value) {
      try {
        expect_element(h, store.element());
        expect_init(h, value.size(), sizeof(T), store.whole_keys());
      } catch (invalid_argument const& refused) {
        throw file_error(folder_.string() + ": the server cannot go on from its initial values: " + refused.what());
      }
      served_piece* piece = pieces.find(h.key, h.piece);
      if (piece == nullptr) {
        piece = &pieces.add(h, sizeof(T));
        store.init(piece->number, piece->shape, value.data());
      } else if (piece->version == 0 && piece->bytes == value.size()) {
        store.assign(piece->number, piece->shape, value.data(), rule_states::keep);
      } else {
        return;
      }
      piece->note(h, false);
    });
  }
  void save(served_pieces const& pieces, std::span<server_setting const> settings) override {
    std::int64_t const step = next_++;  // never again, also if this fails: newer values are not in it
    write(registry(step), registry_text(pieces, settings));
    try {
      checkpoint::save(store_, folder_, {.step = step, .keep = options_.keep});
    } catch (...) {
      checkpoint::detail::remove_folder(
          checkpoint::detail::step_folder(folder_, step, checkpoint::detail::partial_end));
      std::error_code ignored;
      if (!std::filesystem::exists(checkpoint::detail::step_folder(folder_, step), ignored))
        std::filesystem::remove(registry(step), ignored);
      throw;
    }
    kept_.push_back(step);
    remove_old();
  }
  void add_value(message_header const& h, std::span<std::byte const> value) override { journal_.add(next_, h, value); }
  void commit_values() override { journal_.commit(); }
  void save_keys(key_directory const& keys) override {
    json all = json::array();
    for (auto const& entry : keys.entries())
      all.push_back({{"name", hexadecimal(entry.key.name)},
                     {"extents", entry.key.extents},
                     {"row_length", entry.key.row_length},
                     {"element", entry.key.element},
                     {"cut", hexadecimal(entry.key.cut)},
                     {"ready", entry.is_ready || entry.had_value}});
    write(folder_ / "keys.json", text_of({{"keys", std::move(all)}, {"directory", keys.identity}}));
  }
  void save_workers(std::span<known_worker const> workers) override {
    json all = json::array();
    for (known_worker const& worker : workers) all.push_back({state_name(worker.state), worker.incarnation});
    write(folder_ / "workers.json", text_of({{"workers", std::move(all)}}));
  }

 private:
  static constexpr int format = 2;

  static std::string registry_text(served_pieces const& pieces, std::span<server_setting const> settings) {
    json all = json::array(), set = json::array();
    for (server_setting const& s : settings) set.push_back({name_of(s.kind), s.key, s.text});
    for (auto const& [name, piece] : pieces) {
      json applied = json::array();
      for (std::size_t worker = 0; worker < piece.applied.size(); ++worker) {
        applied_updates const& a = piece.applied[worker];
        if (a.incarnation != 0) applied.push_back({worker, a.incarnation, a.sequence, a.clock, a.is_late});
      }
      all.push_back({{"key", name.first},
                     {"piece", name.second},
                     {"elements", piece.elements},
                     {"row_length", piece.row_length},
                     {"version", piece.version},
                     {"directory", piece.directory},
                     {"applied", applied}});
    }
    return text_of({{"pieces", std::move(all)}, {"settings", std::move(set)}});
  }
  /// What no kept snapshot needs.
  void remove_old() {
    if (options_.keep == 0 || kept_.size() < options_.keep) return journal_.drop(0);
    while (kept_.size() > options_.keep) kept_.pop_front();
    std::error_code ignored;
    for (; first_registry_ < kept_.front(); ++first_registry_)
      std::filesystem::remove(registry(first_registry_), ignored);
    journal_.drop(kept_.front());
  }
  /// Snapshots and their files take numbers that no file has. @returns the least number of a file
  std::int64_t find_numbers() {
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    std::error_code failed;
    std::filesystem::directory_iterator at(folder_, failed);
    for (; !failed && at != std::filesystem::directory_iterator(); at.increment(failed)) {
      std::string const name = at->path().filename().string();
      for (std::string_view const begin : {"step-", "pieces-", "values-"}) {
        std::int64_t n = 0;
        if (!name.starts_with(begin)) continue;
        std::from_chars(name.data() + begin.size(), name.data() + name.size(), n);
        if (n < 1 || n > most_snapshots) continue;
        first = std::min(first, n);
        next_ = std::max(next_, n + 1);
      }
    }
    pushpull::detail::expects<file_error>(
        !failed, [&] { return folder_.string() + ": cannot list the folder: " + failed.message(); });
    return first_registry_ = std::min(first, next_);
  }
  static constexpr std::int64_t most_snapshots = std::int64_t{1} << 60;

  std::filesystem::path registry(std::int64_t step) const {
    return folder_ / ("pieces-" + std::to_string(step) + ".json");
  }
  static void write(std::filesystem::path const& path, std::string const& text) {
    checkpoint::detail::replacement_file file(path);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }
  /// With the format and a checksum.
  static std::string text_of(json object) {
    object["format"] = format;
    object["crc32"] = checkpoint::detail::crc32_of(object.dump());
    return object.dump() + "\n";
  }
  /// @throws file_error if the file is damaged or of another format
  static json read(std::filesystem::path const& path) {
    checkpoint::detail::input_file file(path);
    std::string text(file.size(), ' ');
    file.read(std::as_writable_bytes(std::span(text)));
    json object = checkpoint::detail::checked_object(path, text);
    auto const found = object.find("format");
    pushpull::detail::expects<file_error>(found != object.end() && *found == format, [&] {
      return path.string() + ": format " + std::to_string(format) + " expected, got " +
             (found == object.end() ? "none" : found->dump());
    });
    return object;
  }
  /// Names may have any bytes, which JSON has not.
  static std::string hexadecimal(std::string_view bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (char const c : bytes) {
      auto const byte = static_cast<unsigned char>(c);
      text += {digits[byte >> 4], digits[byte & 15]};
    }
    return text;
  }
  /// @throws file_error
  static std::string bytes_in(std::string const& text) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
      unsigned byte = 0;
      auto const [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, byte, 16);
      if (error != std::errc() || end != text.data() + i + 2)
        throw file_error("bytes in hexadecimal expected, " + text);
      bytes += static_cast<char>(byte);
    }
    return bytes;
  }

  void restore_keys(key_directory& keys) const {
    if (!std::filesystem::exists(folder_ / "keys.json")) return;
    try {
      json const object = read(folder_ / "keys.json");
      keys.identity = object.at("directory");
      for (json const& saved : object.at("keys")) {
        registered_key key;
        key.name = bytes_in(saved.at("name").get<std::string>());
        key.extents = saved.at("extents").get<std::vector<std::int64_t>>();
        key.row_length = saved.at("row_length");
        key.element = saved.at("element");
        key.cut = bytes_in(saved.at("cut").get<std::string>());
        if (key.element != element_code<T>)
          throw file_error((folder_ / "keys.json").string() + ": keys of elements of type " +
                           std::string(element_name(element_code<T>)) + " expected, got " +
                           std::string(element_name(key.element)));
        keys.find(keys.number_of(key))->is_ready = saved.at("ready");
      }
    } catch (json::exception const& damaged) {
      throw file_error((folder_ / "keys.json").string() + ": " + damaged.what());
    }
  }
  /// A damaged file is passed over: workers then come anew.
  void restore_workers(std::vector<known_worker>& workers) const {
    if (!std::filesystem::exists(folder_ / "workers.json")) return;
    try {
      json const object = read(folder_ / "workers.json");
      for (json const& saved : object.at("workers"))
        workers.push_back({state_of(saved.at(0).get<std::string>()), saved.at(1).get<std::uint64_t>()});
    } catch (file_error const&) {
      workers.clear();
    } catch (json::exception const&) {
      workers.clear();
    }
  }
  static char const* state_name(worker_state state) {
    return state == worker_state::alive  ? "alive"
           : state == worker_state::left ? "left"
           : state == worker_state::dead ? "dead"
                                         : "absent";
  }
  /// @throws file_error
  static worker_state state_of(std::string const& name) {
    for (auto const state : {worker_state::absent, worker_state::alive, worker_state::left, worker_state::dead})
      if (name == state_name(state)) return state;
    throw file_error("a state of a worker expected, " + name + " came");
  }
  /// In files kinds have names: their numbers are those of a version of the protocol.
  static char const* name_of(message_kind kind) {
    return kind == message_kind::optimizer         ? "optimizer"
           : kind == message_kind::hyperparameters ? "hyperparameters"
                                                   : "multipliers";
  }
  /// @throws file_error
  static message_kind kind_of(std::string const& name) {
    for (auto const kind : {message_kind::optimizer, message_kind::hyperparameters, message_kind::multipliers})
      if (name == name_of(kind)) return kind;
    throw file_error("a setting of servers expected, " + name + " came");
  }
  struct saved_piece {
    message_header name;
    std::uint64_t version, directory;
    std::vector<applied_updates> applied;
  };
  struct saved_registry {
    std::vector<saved_piece> pieces;
    std::vector<server_setting> settings;
  };
  /// @throws file_error if the file is damaged, json::exception if it is foreign
  saved_registry saved(std::int64_t step) const {
    saved_registry all;
    json const object = read(registry(step));
    for (json const& s : object.value("settings", json::array()))
      all.settings.push_back(
          {kind_of(s.at(0).get<std::string>()), s.at(1).get<std::int64_t>(), s.at(2).get<std::string>()});
    for (json const& one : object.at("pieces")) {
      saved_piece& piece = all.pieces.emplace_back();
      piece.name.key = one.at("key");
      piece.name.piece = one.at("piece");
      piece.name.elements = one.at("elements");
      piece.name.row_length = one.at("row_length");
      piece.version = one.at("version");
      piece.directory = one.at("directory");
      for (json const& a : one.at("applied")) {
        auto const worker = a.at(0).get<std::uint32_t>();
        if (worker >= most_workers) throw file_error("rank " + std::to_string(worker) + " of a worker");
        if (piece.applied.size() <= worker) piece.applied.resize(worker + std::size_t{1});
        piece.applied[worker] = {a.at(1).get<std::uint64_t>(), a.at(2).get<std::uint64_t>(),
                                 a.at(3).get<std::uint64_t>(), a.at(4).get<bool>()};
      }
    }
    return all;
  }
  /// All or nothing. @param why  Is told if the snapshot is damaged. @returns false then
  bool try_restore(checkpoint::saved_step const& at, served_pieces& pieces, served_store& store, std::string& why) {
    saved_registry all;
    try {
      checkpoint::detail::expect_checksum(at.path, checkpoint::detail::manifest_of_whole(at.path), 0);
      all = saved(at.step);
    } catch (file_error const& damaged) {
      why = damaged.what();
      return false;
    } catch (json::exception const& damaged) {
      why = registry(at.step).string() + ": " + damaged.what();
      return false;
    }
    try {
      for (server_setting const& s : all.settings) store.set(s.kind, s.key, s.text);
    } catch (invalid_argument const& refused) {
      throw file_error(at.path.string() + ": the server cannot go on from it: " + refused.what());
    }
    for (saved_piece& one : all.pieces) {
      served_piece& piece = pieces.add(one.name, sizeof(T));
      piece.version = one.version;
      piece.directory = one.directory;
      piece.applied = std::move(one.applied);
      std::vector<T> const zeros(static_cast<std::size_t>(piece.elements));
      store_.init(piece.number, tensor_view<T const>(zeros.data(), piece.shape));
    }
    if (pieces.size() > 0) checkpoint::load(store_, at.path);
    return true;
  }

  Store& store_;
  snapshots options_;
  std::filesystem::path folder_;
  std::int64_t next_ = 1;  // the number of the next snapshot
  std::int64_t first_registry_ = 1;
  std::deque<std::int64_t> kept_;  // snapshots that can be used, the oldest first
  value_journal journal_;
};

}  // namespace detail

/// For remote::server. @throws file_error if the folder cannot be made
template <class Store>
std::unique_ptr<detail::snapshot_keeper> keeper_of(Store& store, snapshots const& options, std::uint32_t server) {
  return std::make_unique<detail::kept_snapshots<Store>>(store, options, server);
}

}  // namespace pushpull::remote
