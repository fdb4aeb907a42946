/// @file
/// The files of a module's checkpoints: their names, and the parameters in them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/train/module/module_options.hpp>

namespace pushpull::inline PUSHPULL_ABI {
namespace detail {

/// `<prefix>-0042.<ending>`.
inline std::filesystem::path checkpoint_file(std::string const& prefix, std::int64_t epoch, char const* ending) {
  std::string const digits = std::to_string(epoch);
  return prefix + "-" + std::string(digits.size() < 4 ? 4 - digits.size() : 0, '0') + digits + "." + ending;
}

/// Writes parameters as "arg:<name>" and auxiliary states as "aux:<name>".
template <class P>
void write_params(std::filesystem::path const& path, train::model_params<P> const& values) {
  std::vector<checkpoint::entry> entries;
  for (auto const& [name, value] : values.args) entries.push_back(checkpoint::entry_of("arg:" + name, value));
  for (auto const& [name, value] : values.aux) entries.push_back(checkpoint::entry_of("aux:" + name, value));
  checkpoint::write_safetensors(path, entries);
}
/// @throws file_error, also on a tensor whose name begins otherwise
template <class P>
train::model_params<P> read_params(std::filesystem::path const& path) {
  checkpoint::safetensors_file const file(path);
  train::model_params<P> result;
  for (auto const& entry : file.entries()) {
    bool const is_arg = entry.name.starts_with("arg:");
    expects<file_error>(is_arg || entry.name.starts_with("aux:"), [&] {
      return path.string() + ": names \"arg:...\" or \"aux:...\" expected, got \"" + entry.name + "\"";
    });
    tensor<P> value(cpu_device<>(), entry.shape);
    auto const view = value.view();
    checkpoint::copy(entry, view);
    (is_arg ? result.args : result.aux).emplace(entry.name.substr(4), std::move(value));
  }
  return result;
}

}  // namespace detail

namespace train {

/// The largest epoch of the checkpoints `<prefix>-0012.params` that save_checkpoint wrote; none if there are none, or the folder
/// cannot be read. Parameters are a checkpoint's last file, so one that an interruption cut short does not count.
inline std::optional<std::int64_t> newest_checkpoint(std::filesystem::path const& prefix) {
  std::optional<std::int64_t> newest;
  std::string const begin = prefix.filename().string() + "-", end = ".params";
  std::error_code failed;
  auto const folder = prefix.has_parent_path() ? prefix.parent_path() : std::filesystem::path(".");
  for (std::filesystem::directory_iterator entry(folder, failed), last; !failed && entry != last;
       entry.increment(failed)) {
    std::string const name = entry->path().filename().string();
    if (name.size() < begin.size() + end.size() || !name.starts_with(begin) || !name.ends_with(end)) continue;
    std::string const digits = name.substr(begin.size(), name.size() - begin.size() - end.size());
    if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) continue;
    newest = std::max<std::int64_t>(newest.value_or(0), std::stoll(digits));
  }
  return newest;
}

}  // namespace train
}  // namespace pushpull
