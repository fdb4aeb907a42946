/// @file
/// A rank's part of a checkpoint of several files: a copy of what it holds, its file, and the end of the save.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/manifest.hpp>
#include <pushpull/checkpoint/safetensors_writer.hpp>
#include <pushpull/checkpoint/states_format.hpp>
#include <pushpull/checkpoint/step_folders.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/saved_values.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// The content of a rank's file, in host memory.
struct rank_copy {
  manifest whole;              ///< Without files. The same on all ranks.
  std::vector<entry> entries;  ///< The parts of its tensors that this rank holds.
  metadata_map ranges;         ///< "first:end" of each.
  std::deque<std::vector<std::byte>> bytes;

  void add(std::string name, shape const& extents, pushpull::detail::array_part part) {
    std::string const dtype = dtype_name(part.dtype);
    if (!part.bytes.empty()) {
      std::string const own = name + "@" + std::to_string(part.begin);
      bytes.push_back(std::move(part.bytes));
      entries.push_back({own, dtype, {part.end - part.begin}, bytes.back()});
      ranges[own] = std::to_string(part.begin) + ":" + std::to_string(part.end);
    }
    whole.tensors.push_back({std::move(name), dtype, extents, {}});
  }
};

/// Copies to host memory what this process holds of the keys. Waits for the store. Waits for other ranks only where keys have
/// sums of micro-batches, which the ranks add up.
/// @param untrained  Keys whose values are in the mirrors only.
template <class S>
rank_copy copy_of(S& store, char const* call, std::set<std::string, std::less<>> const& untrained) {
  using pushpull::detail::saved_array;
  rank_copy result;
  metadata_map& metadata = result.whole.metadata;
  metadata = {{"format", std::string(states_format)}, {"version", std::string(states_version)}};
  auto const keys = store.keys();
  key_names const name_of(keys);
  update::rule_description rule;
  if constexpr (!has_rules_of_keys<S>) add_rule(metadata, "", rule = rule_of(store, 0));
  for (auto const& key : keys) {
    expect_weights_in_place(call, store, key);
    std::string const text = name_of(key);
    if constexpr (has_rules_of_keys<S>) add_rule(metadata, text + "/", rule = rule_of(store, key));
    auto const value = untrained.contains(text) ? saved_array::untrained_value : saved_array::value;
    result.add(text, store.shape(key), store.local_part(key, value, "", true));
    for (std::string const& name : names_of_states(store, key))
      result.add(text + "/" + name, store.state_shape(key, name),
                 store.local_part(key, saved_array::state, name, true));
    std::int64_t const steps = steps_of(store, key);
    metadata[text + "/steps"] = std::to_string(steps);
    result.whole.step = std::max(result.whole.step, steps);
    if constexpr (Accumulating<S>)
      if (std::int64_t const count = store.micro_batches(key); count > 0) {
        std::string const sum = text + std::string(sum_entry);
        result.add(sum, store.shape(key), store.local_part(key, saved_array::sum, "", true));
        metadata[sum] = std::to_string(count);
      }
  }
  add_carried(metadata, store.carried_numbers(), rule);
  return result;
}

/// A save of one rank, of which nothing depends on the store any more.
struct rank_save {
  std::filesystem::path folder;
  std::size_t rank = 0, ranks = 1;
  std::size_t keep = 0;  // of options
  rank_copy copy;

  std::filesystem::path partial() const { return step_folder(folder, copy.whole.step, partial_end); }
  std::filesystem::path complete() const { return step_folder(folder, copy.whole.step); }
};

/// The saves of this process in the background: one at a time for a rank and a folder.
class background_saves {
 public:
  static background_saves& instance() {
    static background_saves all;
    return all;
  }
  /// Returns when the last one is done. Its error is for its handle.
  void wait(std::filesystem::path const& folder, std::size_t rank) {
    std::shared_future<void> last;
    {
      std::lock_guard const lock(mutex_);
      auto const found = saves_.find({name_of(folder), rank});
      if (found == saves_.end()) return;
      last = found->second;
    }
    last.wait();
  }
  void add(std::filesystem::path const& folder, std::size_t rank, std::shared_future<void> save) {
    std::lock_guard const lock(mutex_);
    saves_[{name_of(folder), rank}] = std::move(save);
  }

 private:
  static std::string name_of(std::filesystem::path const& folder) {
    return std::filesystem::absolute(folder).lexically_normal().string();
  }

  std::mutex mutex_;
  std::map<std::pair<std::string, std::size_t>, std::shared_future<void>> saves_;
};

/// A text that no other save has.
inline std::string new_save_name() {
  static std::atomic<std::uint64_t> saves = 0;
  return std::to_string(std::chrono::system_clock::now().time_since_epoch().count()) + "-" +
         std::to_string(::getpid()) + "-" + std::to_string(saves++);
}

/// Rank 0, before the ranks write: an empty folder. @throws file_error
inline void make_partial(rank_save const& save) {
  std::error_code error;
  std::filesystem::create_directories(save.folder, error);
  if (error) system_failure(save.folder, "cannot create the folder", error.value());
  remove_folder(save.partial());  // of a save that did not come to its end
  if (!std::filesystem::create_directory(save.partial(), error) || error)
    system_failure(save.partial(), "cannot create the folder", error ? error.value() : EEXIST);
}

/// Writes this rank's file to the medium. @throws file_error
inline rank_file write_file(rank_save const& save) {
  rank_file result;
  crc32 sum;
  write_observed(save.partial() / rank_file_name(save.rank), save.copy.entries, save.copy.ranges,
                 [&](std::span<std::byte const> bytes) {
                   result.bytes += bytes.size();
                   sum.add(bytes);
                 });
  result.crc32 = sum.text();
  return result;
}

/// Rank 0, when all files are there: makes the folder a checkpoint. @throws file_error
inline void complete(rank_save& save, std::vector<rank_file> files) {
  save.copy.whole.files = std::move(files);
  std::string const text = text_of(save.copy.whole);
  replacement_file file(save.partial() / manifest_name);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
  auto const old = step_folder(save.folder, save.copy.whole.step, replaced_end);
  if (is_whole(save.complete())) {
    remove_folder(old);
    rename_folder(save.complete(), old);  // where a reader still finds it
  } else {                                // then one that was set aside may be whole
    remove_folder(save.complete());
  }
  rename_folder(save.partial(), save.complete());
  flush_folder(save.folder);
  remove_folder(old);
  if (save.keep > 0) keep_newest(save.folder, save.keep, save.copy.whole.step);
}

}  // namespace pushpull::checkpoint::detail
