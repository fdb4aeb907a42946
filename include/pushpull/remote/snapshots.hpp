/// @file
/// Snapshots of servers: a server that is started again goes on from the newest one.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

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
    std::int64_t restored = 0;
    for (checkpoint::saved_step const& saved : checkpoint::list(folder_)) {
      next_ = std::max(next_, saved.step + 1);
      if (restored == 0 && try_restore(saved, pieces, store)) restored = saved.step;
    }
    journal_.replay(restored, next_, [&](message_header const& h, std::vector<std::byte> const& value) {
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
    json all = json::array(), set = json::array();
    for (server_setting const& s : settings) set.push_back({name_of(s.kind), s.key, s.text});
    for (auto const& [name, piece] : pieces) {
      json applied = json::array();
      for (std::size_t worker = 0; worker < piece.applied.size(); ++worker) {
        applied_updates const& a = piece.applied[worker];
        applied.push_back({a.incarnation, a.sequence, a.clock});
      }
      all.push_back({{"key", name.first},
                     {"piece", name.second},
                     {"elements", piece.elements},
                     {"row_length", piece.row_length},
                     {"version", piece.version},
                     {"directory", piece.directory},
                     {"applied", applied}});
    }
    write(registry(next_), checkpoint::detail::signed_text({{"pieces", std::move(all)}, {"settings", std::move(set)}}));
    checkpoint::save(store_, folder_, {.step = next_, .keep = options_.keep});
    std::error_code ignored;
    if (options_.keep > 0) std::filesystem::remove(registry(next_ - static_cast<std::int64_t>(options_.keep)), ignored);
    journal_.drop(options_.keep > 0 ? next_ + 1 - static_cast<std::int64_t>(options_.keep) : 0);
    ++next_;
  }
  void add_value(message_header const& h, std::span<std::byte const> value) override { journal_.add(next_, h, value); }
  void commit_values() override { journal_.commit(); }
  void save_keys(key_directory const& keys) override {
    json all = json::array();
    for (auto const& entry : keys.entries()) {
      std::vector<int> const name(entry.key.name.begin(), entry.key.name.end());  // any bytes
      all.push_back({{"name", name},
                     {"extents", entry.key.extents},
                     {"row_length", entry.key.row_length},
                     {"element", entry.key.element},
                     {"cut", entry.key.cut},
                     {"ready", entry.is_ready}});
    }
    write(folder_ / "keys.json",
          checkpoint::detail::signed_text({{"keys", std::move(all)}, {"directory", keys.identity}}));
  }
  void save_workers(std::span<known_worker const> workers) override {
    json all = json::array();
    for (known_worker const& worker : workers) all.push_back({state_name(worker.state), worker.incarnation});
    write(folder_ / "workers.json", checkpoint::detail::signed_text({{"workers", std::move(all)}}));
  }

 private:
  std::filesystem::path registry(std::int64_t step) const {
    return folder_ / ("pieces-" + std::to_string(step) + ".json");
  }
  static void write(std::filesystem::path const& path, std::string const& text) {
    checkpoint::detail::replacement_file file(path);
    file.write(std::as_bytes(std::span(text)));
    file.commit();
  }
  /// @throws file_error if the file is damaged
  static json read(std::filesystem::path const& path) {
    return checkpoint::detail::checked_object(path, checkpoint::detail::read_text(path));
  }

  void restore_keys(key_directory& keys) const {
    if (!std::filesystem::exists(folder_ / "keys.json")) return;
    try {
      json const object = read(folder_ / "keys.json");
      keys.identity = object.at("directory");
      for (json const& saved : object.at("keys")) {
        registered_key key;
        for (int const c : saved.at("name")) key.name += static_cast<char>(c);
        key.extents = saved.at("extents").get<std::vector<std::int64_t>>();
        key.row_length = saved.at("row_length");
        key.element = saved.at("element");
        key.cut = saved.at("cut").get<std::string>();
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
      for (json const& a : one.at("applied"))
        piece.applied.push_back(
            {a.at(0).get<std::uint64_t>(), a.at(1).get<std::uint64_t>(), a.at(2).get<std::uint64_t>()});
    }
    return all;
  }
  /// All or nothing. @returns false if the snapshot is damaged
  bool try_restore(checkpoint::saved_step const& at, served_pieces& pieces, served_store& store) {
    saved_registry all;
    try {
      checkpoint::detail::expect_checksum(at.path, checkpoint::detail::manifest_of_whole(at.path), 0);
      all = saved(at.step);
    } catch (file_error const&) {
      return false;
    } catch (json::exception const&) {
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
  std::int64_t next_ = 1;
  value_journal journal_;
};

}  // namespace detail

/// For remote::server. @throws file_error if the folder cannot be made
template <class Store>
std::unique_ptr<detail::snapshot_keeper> keeper_of(Store& store, snapshots const& options, std::uint32_t server) {
  return std::make_unique<detail::kept_snapshots<Store>>(store, options, server);
}

}  // namespace pushpull::remote
