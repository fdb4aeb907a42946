/// @file
/// Checkpoints of whole stores in a folder: each rank writes and reads its part.
///
/// Needs what safetensors.hpp needs, and a folder that all ranks see. No umbrella includes it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/load_options.hpp>
#include <pushpull/checkpoint/rank_agreement.hpp>
#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/checkpoint/sharded_reader.hpp>
#include <pushpull/checkpoint/sharded_writer.hpp>
#include <pushpull/checkpoint/states_loader.hpp>
#include <pushpull/checkpoint/step_folders.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/saved_values.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// A store that can be saved as a whole. Models: every kv_store, any_store.
template <class S>
concept WholeStore = requires(S& store, typename S::key_type const& key, pushpull::detail::prepared_changes& changes) {
  store.keys();
  store.shape(key);
  store.owning_ranks();
  store.local_part(key, pushpull::detail::saved_array::value, "", true);
  store.prepare_values(changes, key, pushpull::detail::saved_values());
};

/// A parameter_store over one.
template <class P>
concept WholeModel = requires(P& parameters) {
  requires WholeStore<std::remove_reference_t<decltype(parameters.store())>>;
  { parameters.untrained() } -> std::same_as<std::vector<std::string>>;
  parameters.materialize();
};

/// How `save` and `save_async` work.
struct save_options {
  /// The number in the folder's name; none: the largest step count of the keys.
  std::optional<std::int64_t> step = {};
  /// Checkpoints that stay when this one is complete: the newest, and this one; 0: all. See `keep`.
  std::size_t keep = 0;
  /// save_async of several ranks: how long one waits for the files of the others.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
};

namespace detail {

/// The keys and the store of a store, or of a parameter_store.
template <class S, class F>
decltype(auto) with_store(S& s, F const& f) {
  if constexpr (WholeStore<S>) {
    return f(s, std::set<std::string, std::less<>>());
  } else {
    s.materialize();
    auto const names = s.untrained();
    return f(s.store(), std::set<std::string, std::less<>>(names.begin(), names.end()));
  }
}

/// Copies what this rank holds, and agrees with the other ranks on what is written where.
template <class S>
rank_save begin_save(S& store, char const* call, std::set<std::string, std::less<>> const& untrained,
                     std::filesystem::path const& folder, save_options const& options) {
  auto const ranks = store.owning_ranks();
  if (ranks.group != nullptr) ranks.group->expect_in_step(call);
  background_saves::instance().wait(folder, ranks.rank);
  rank_save result{folder, ranks.rank, ranks.size, options.keep, {}};
  all_or_none(ranks, call, [&] {
    result.copy = copy_of(store, call, untrained);
    if (!options.step) return;
    pushpull::detail::expects<invalid_argument>(*options.step >= 0, [&] {
      return std::string(call) + ": a step of at least 0 expected, got " + std::to_string(*options.step);
    });
    result.copy.whole.step = *options.step;
  });
  manifest& whole = result.copy.whole;
  if (ranks.group != nullptr)
    pushpull::detail::expect_agreement(*ranks.group, call, whole.tensors.size() + 1, [&](std::size_t i) {
      if (i == 0) return "step " + std::to_string(whole.step) + " for the folder " + in_quotes(folder.string());
      entry const& e = whole.tensors[i - 1];
      return "tensor " + in_quotes(e.name) + ", " + e.dtype + " of shape " + to_string(e.shape);
    });
  whole.save = gather_texts(ranks, new_save_name()).front();
  all_or_none(ranks, call, [&] {
    if (ranks.rank == 0) make_partial(result);
  });
  return result;
}

/// The report of a rank, or of its failure.
inline std::string report_of(rank_file const& file) {
  return signed_text({{"bytes", file.bytes}, {"crc32_of_file", file.crc32}});
}
inline rank_file file_in_report(std::string const& text) {
  auto const object = checked_object("a rank's report", text);
  return {object.at("bytes").get<std::uint64_t>(), object.at("crc32_of_file").get<std::string>()};
}

}  // namespace detail

/// Writes a checkpoint of all that steps change: `<folder>/step-<t>/` with a safetensors file of each rank, "rank-<n>", which has
/// what the rank's devices hold of weights (in the masters' type), states and sums of micro-batches, as parts
/// "key@first", "key/state@first", "key/gradient.sum@first"; and "manifest.json", which names files, sizes, checksums, tensors
/// and what save_optimizer_states writes as metadata. Not written are hyperparameters, schedules and parameter groups, and
/// residuals of compressed gradients.
/// The folder is "step-<t>.partial" until all files and the manifest are on the medium; then it is renamed. A program that is
/// killed at any time leaves the checkpoints that were whole. An older checkpoint of the same step is replaced.
/// All ranks of the store call it, at the same place between two steps, with the same arguments; all return or all throw.
/// No other thread may use the store meanwhile. Memory: a copy of what the process holds.
/// @throws file_error; invalid_argument on all ranks if they disagree, and where a swap has put a state in the place of a
/// key's weights; comm_error if an earlier call to other ranks failed
template <class S>
  requires(WholeStore<S> || WholeModel<S>)
void save(S& store, std::filesystem::path const& folder, save_options const& options = {}) {
  static constexpr char const* call = "save";
  detail::with_store(store, [&](auto& whole, auto const& untrained) {
    auto const ranks = whole.owning_ranks();
    detail::rank_save job = detail::begin_save(whole, call, untrained, folder, options);
    try {
      detail::rank_file own;
      detail::all_or_none(ranks, call, [&] { own = detail::write_file(job); });
      std::vector<detail::rank_file> files;
      for (std::string const& report : detail::gather_texts(ranks, detail::report_of(own)))
        files.push_back(detail::file_in_report(report));
      detail::all_or_none(ranks, call, [&] {
        if (ranks.rank == 0) detail::complete(job, files);
      });
    } catch (comm_error const&) {  // other ranks may be writing
      throw;
    } catch (...) {
      if (ranks.rank == 0) detail::remove_folder(job.partial());
      throw;
    }
  });
}

namespace detail {

/// The newest whole checkpoint in a folder, on all ranks the one that rank 0 finds. All ranks call it.
/// @throws file_error if there is none, with the reason for the newest folder
inline std::pair<std::filesystem::path, manifest> newest_whole(pushpull::detail::owning_ranks const& ranks,
                                                               char const* call, std::filesystem::path const& folder) {
  std::vector<saved_step> found;
  all_or_none(ranks, call, [&] { found = candidates(folder); });
  std::string names;
  for (saved_step const& each : found) names += each.path == folder ? "." : each.path.filename().string() + "/";
  names = gather_texts(ranks, names).front();  // those of rank 0: names without '/', each followed by one
  std::string reason;
  while (!names.empty()) {
    std::string const name = names.substr(0, names.find('/'));
    names.erase(0, name.size() + 1);
    auto const path = name == "." ? folder : folder / name;
    manifest m;
    std::string own;  // the manifest's save, or '!' and an error
    try {
      m = manifest_of_whole(path);
      for (std::size_t rank = ranks.rank; rank < m.files.size(); rank += ranks.size) expect_checksum(path, m, rank);
      own = m.save;
    } catch (file_error const& error) {
      own = std::string("!") + error.what();
    }
    auto const all = gather_texts(ranks, own);
    std::string failed;
    for (std::size_t rank = 0; rank < all.size() && failed.empty(); ++rank) {
      if (all[rank].starts_with('!')) failed = all[rank].substr(1);
      if (all[rank] != all[0]) failed = path.string() + ": ranks see different checkpoints there";
    }
    if (failed.empty()) return {path, std::move(m)};
    if (reason.empty()) reason = "; the newest: " + failed;
  }
  throw file_error(std::string(call) + ": " + folder.string() + ": a whole checkpoint expected, found none" + reason);
}

}  // namespace detail

/// Reads the newest whole checkpoint of a folder, or, if `folder` has a manifest, that one; a damaged one is passed over for
/// the one before. Into any number of ranks and devices, any placement and any store with the same keys, shapes, rule
/// and types of masters and states: its next step is the one that the saved store would have made, given the same
/// hyperparameters. A rank reads the values of all keys that have mirrors; of others, and of states, what its devices hold. What may differ see
/// load_options.
/// Keys come first: `init`, or parameter_store::materialize. All ranks of the store call it; all load the same checkpoint or
/// all throw. No other thread may use the store meanwhile.
/// @returns as load_optimizer_states
/// @throws file_error if there is no whole checkpoint, and if the newest does not fit the store; as load_optimizer_states; the
/// store then holds what it held. comm_error if an earlier call to other ranks failed
template <class S>
  requires(WholeStore<S> || WholeModel<S>)
load_report load(S& store, std::filesystem::path const& folder, load_options const& options = {}) {
  static constexpr char const* call = "load";
  return detail::with_store(store, [&](auto& whole, auto const&) {
    auto const ranks = whole.owning_ranks();
    if (ranks.group != nullptr) {
      ranks.group->expect_in_step(call);
      pushpull::detail::expect_agreement(
          *ranks.group, call, 1, [&](std::size_t) { return "the folder " + detail::in_quotes(folder.string()); });
    }
    auto [path, m] = detail::newest_whole(ranks, call, folder);
    using store_type = std::remove_reference_t<decltype(whole)>;
    std::optional<detail::sharded_tensors> tensors;
    std::optional<detail::states_loader<store_type, detail::sharded_tensors>> loader;
    std::deque<std::vector<std::byte>> values;
    pushpull::detail::prepared_changes changes;
    detail::all_or_none(ranks, call, [&, &from = path, &content = m] {
      tensors.emplace(from, std::move(content));
      detail::expect_states_format(*tensors);
      loader.emplace(whole, *tensors, options, detail::loaded_arrays::values_and_states);
      loader->check();
      loader->read([&](entry const& e, auto const& part_of) {
        auto const part = part_of();
        return pushpull::detail::saved_range{values.emplace_back(tensors->read(e, part.begin, part.end)), part.begin};
      });
      loader->prepare(changes);
    });
    changes.commit();
    detail::gather_texts(ranks, "");  // the next step of another rank may write mirrors of this one
    return loader->report();
  });
}

/// Writes the newest whole checkpoint of a folder, or the one that `folder` is, as one safetensors file: weights under the
/// keys' names, which any reader understands, and what load_optimizer_states reads. Memory: all of it.
/// @throws file_error; invalid_argument if a key has the name of another's state
inline void consolidate(std::filesystem::path const& folder, std::filesystem::path const& file) {
  auto [path, m] = detail::newest_whole({}, "consolidate", folder);
  detail::sharded_tensors tensors(path, std::move(m));
  std::vector<entry> entries(tensors.entries().begin(), tensors.entries().end());
  std::deque<std::vector<std::byte>> values;
  for (entry& e : entries) e.bytes = values.emplace_back(tensors.read(e, 0, static_cast<std::int64_t>(e.shape.size())));
  write_safetensors(file, entries, tensors.metadata());
}

}  // namespace pushpull::checkpoint
