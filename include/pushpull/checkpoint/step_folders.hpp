/// @file
/// The folders of the checkpoints of a run: their names, which of them are whole, and how they come and go.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <pushpull/checkpoint/manifest.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

/// A checkpoint of several files.
struct saved_step {
  std::int64_t step = 0;
  std::filesystem::path path;  ///< Its folder.
};

namespace detail {

inline constexpr std::string_view partial_end = ".partial";    // being written
inline constexpr std::string_view replaced_end = ".replaced";  // a new one is about to take its place

inline std::filesystem::path step_folder(std::filesystem::path const& folder, std::int64_t step,
                                         std::string_view end = "") {
  return folder / ("step-" + std::to_string(step) + std::string(end));
}
/// The step that a folder's name names; none if it ends otherwise.
inline std::optional<std::int64_t> step_in(std::string_view name, std::string_view end) {
  constexpr std::string_view begin = "step-";
  if (!name.starts_with(begin) || !name.ends_with(end) || name.size() < begin.size() + end.size()) return std::nullopt;
  std::string_view const digits = name.substr(begin.size(), name.size() - begin.size() - end.size());
  std::int64_t step = -1;
  auto const [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || last != digits.data() + digits.size() || step < 0) return std::nullopt;
  return step;
}

/// Puts the entries of a folder on the medium. @throws file_error
inline void flush_folder(std::filesystem::path const& folder) {
  descriptor const opened(uninterrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (opened.get() < 0) system_failure(folder, "cannot open the folder", errno);
  // EINVAL: a file system that has nothing to flush for a folder
  if (uninterrupted([&] { return ::fsync(opened.get()); }) != 0 && errno != EINVAL)
    system_failure(folder, "cannot flush the folder", errno);
}
/// @throws file_error
inline void rename_folder(std::filesystem::path const& from, std::filesystem::path const& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) system_failure(from, "cannot rename the folder", errno);
}
/// The manifest goes first: a part of a checkpoint is none. @returns whether all of it is gone
inline bool remove_folder(std::filesystem::path const& folder) noexcept {
  std::error_code error;
  std::filesystem::remove(folder / manifest_name, error);
  std::filesystem::remove_all(folder, error);
  return !error;
}

/// Folders of checkpoints whose names end with `end`, the newest first. @throws file_error
inline std::vector<saved_step> folders_of(std::filesystem::path const& folder, std::string_view end) {
  std::vector<saved_step> result;
  std::error_code error;
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error))
    if (auto const step = step_in(at->path().filename().string(), end)) result.push_back({*step, at->path()});
  if (error && error != std::errc::no_such_file_or_directory)
    system_failure(folder, "cannot list the folder", error.value());
  std::sort(result.begin(), result.end(), [](auto const& a, auto const& b) { return a.step > b.step; });
  return result;
}
/// Folders that may be whole checkpoints, the one to load first comes first. A folder with a manifest is one itself.
inline std::vector<saved_step> candidates(std::filesystem::path const& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder / manifest_name, error)) return {{0, folder}};
  auto result = folders_of(folder, "");
  auto const replaced = folders_of(folder, replaced_end);
  result.insert(result.end(), replaced.begin(), replaced.end());
  std::stable_sort(result.begin(), result.end(), [](auto const& a, auto const& b) { return a.step > b.step; });
  return result;
}

/// The manifest of a folder with all files, of the sizes that it names. @throws file_error
inline manifest manifest_of_whole(std::filesystem::path const& folder) {
  manifest result = read_manifest(folder);
  for (std::size_t rank = 0; rank < result.files.size(); ++rank) {
    input_file const file(folder / rank_file_name(rank));
    pushpull::detail::expects<file_error>(file.size() == result.files[rank].bytes, [&] {
      return file.path().string() + ": " + std::to_string(result.files[rank].bytes) + " bytes expected, got " +
             std::to_string(file.size());
    });
  }
  return result;
}
/// False also if there is no such folder.
inline bool is_whole(std::filesystem::path const& folder) {
  try {
    manifest_of_whole(folder);
    return true;
  } catch (file_error const&) {
    return false;
  }
}
/// @throws file_error if a rank's file is not the one that was written
inline void expect_checksum(std::filesystem::path const& folder, manifest const& m, std::size_t rank) {
  input_file file(folder / rank_file_name(rank));
  std::vector<std::byte> block(std::min<std::uint64_t>(file.size(), std::uint64_t{1} << 20));
  crc32 sum;
  for (std::uint64_t left = file.size(); left > 0;) {
    std::span const bytes(block.data(), std::min<std::uint64_t>(left, block.size()));
    file.read(bytes);
    sum.add(bytes);
    left -= bytes.size();
  }
  pushpull::detail::expects<file_error>(sum.text() == m.files[rank].crc32, [&] {
    return file.path().string() + ": the checksum " + m.files[rank].crc32 + " expected, got " + sum.text();
  });
}

}  // namespace detail

/// The whole checkpoints in a folder, the newest first: those whose manifest is good and whose files have the sizes that
/// it names. Checksums are compared by `load`. @throws file_error if the folder cannot be read; none if there is none
inline std::vector<saved_step> list(std::filesystem::path const& folder) {
  std::vector<saved_step> result;
  for (saved_step const& each : detail::candidates(folder)) {
    try {
      auto const m = detail::manifest_of_whole(each.path);
      if (result.empty() || result.back().step != m.step) result.push_back({m.step, each.path});
    } catch (file_error const&) {  // a part of one, or a damaged one
    }
  }
  return result;
}

namespace detail {

/// `keep`, but the checkpoint of the step `spared` stays too, however old its step is.
inline void keep_newest(std::filesystem::path const& folder, std::size_t count,
                        std::optional<std::int64_t> spared = {}) {
  auto const whole = list(folder);
  if (whole.size() < count) return;
  std::int64_t const oldest = whole[count - 1].step;
  for (std::string_view const end : {std::string_view(), partial_end, replaced_end})
    for (saved_step const& each : folders_of(folder, end))
      if (each.step < oldest && each.step != spared) remove_folder(each.path);
}

}  // namespace detail

/// Removes what is older than the `count` newest whole checkpoints: checkpoints, and parts of such that a save left which
/// did not come to its end. Nothing where there are fewer. One process calls it, no save running in the folder.
/// @throws file_error as `list`; invalid_argument on a count of 0
inline void keep(std::filesystem::path const& folder, std::size_t count) {
  pushpull::detail::expects<invalid_argument>(count > 0,
                                              [] { return std::string("keep: at least 1 expected, got 0"); });
  detail::keep_newest(folder, count);
}

}  // namespace pushpull::checkpoint
