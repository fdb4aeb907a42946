/// @file
/// The manifest of a checkpoint of several files: what is in which. Needs nlohmann-json.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/crc32.hpp>
#include <pushpull/checkpoint/posix_file.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

inline constexpr char const* manifest_name = "manifest.json";
inline constexpr std::string_view manifest_format = "pushpull.checkpoint";
inline constexpr int manifest_version = 1;

/// A rank's file.
struct rank_file {
  std::uint64_t bytes = 0;
  std::string crc32;
};
inline std::string rank_file_name(std::size_t rank) { return "rank-" + std::to_string(rank) + ".safetensors"; }

/// The content of manifest.json.
struct manifest {
  std::string save;              ///< A name of this save alone.
  std::int64_t step = 0;         ///< Of the folder's name.
  std::vector<rank_file> files;  ///< One for each rank that wrote.
  metadata_map metadata;         ///< That of the file that save_optimizer_states writes.
  /// Whole arrays, without bytes: "key", "key/state", "key/gradient.sum". A rank's file has elements of such an array as
  /// "array@first".
  std::vector<entry> tensors;
};

/// A JSON object with the checksum of its text without it. @throws invalid_argument unless all text is UTF-8
inline std::string signed_text(nlohmann::json object) {
  try {
    object["crc32"] = crc32_of(object.dump());
    return object.dump(1) + "\n";
  } catch (nlohmann::json::type_error const& error) {
    throw invalid_argument("save: text in UTF-8 expected: " + std::string(error.what()));
  }
}
/// The object without its checksum. @throws file_error if it has another
inline nlohmann::json checked_object(std::filesystem::path const& path, std::string const& text) {
  auto object = nlohmann::json::parse(text, nullptr, false);
  auto const sum = object.is_object() ? object.find("crc32") : object.end();
  bool good = object.is_object() && sum != object.end() && sum->is_string();
  if (good) {
    std::string const expected = sum->get<std::string>();
    object.erase(sum);
    good = crc32_of(object.dump()) == expected;
  }
  pushpull::detail::expects<file_error>(good, [&] {
    return path.string() + ": a JSON object with its checksum expected, the file is damaged or foreign";
  });
  return object;
}

inline std::string text_of(manifest const& m) {
  nlohmann::json object{{"format", manifest_format}, {"version", manifest_version}, {"save", m.save}, {"step", m.step},
                        {"ranks", m.files.size()},   {"metadata", m.metadata}};
  for (std::size_t rank = 0; rank < m.files.size(); ++rank)
    object["files"].push_back(
        {{"name", rank_file_name(rank)}, {"bytes", m.files[rank].bytes}, {"crc32", m.files[rank].crc32}});
  object["tensors"] = nlohmann::json::object();
  for (entry const& e : m.tensors)
    object["tensors"][e.name] = {{"dtype", e.dtype},
                                 {"shape", std::vector<std::int64_t>(e.shape.begin(), e.shape.end())}};
  return signed_text(std::move(object));
}

/// Reads a whole file of at most `max_header_bytes`. @throws file_error
inline std::string read_text(std::filesystem::path const& path) {
  input_file file(path);
  pushpull::detail::expects<file_error>(file.size() <= max_header_bytes, [&] {
    return path.string() + ": at most " + std::to_string(max_header_bytes) + " bytes expected, got " +
           std::to_string(file.size());
  });
  std::string text(file.size(), ' ');
  file.read(std::as_writable_bytes(std::span(text)));
  return text;
}

/// @throws file_error if it is damaged or foreign
inline manifest read_manifest(std::filesystem::path const& folder) {
  using pushpull::detail::expects;
  std::filesystem::path const path = folder / manifest_name;
  auto const object = checked_object(path, read_text(path));
  auto const refuse = [&](std::string const& why) { throw file_error(path.string() + ": " + why); };
  manifest m;
  try {
    if (object.at("format") != manifest_format) refuse("a checkpoint of pushpull expected");
    if (object.at("version") != manifest_version)
      refuse("version " + std::to_string(manifest_version) + " expected, got " + object.at("version").dump());
    m.save = object.at("save").get<std::string>();
    m.step = object.at("step").get<std::int64_t>();
    m.metadata = object.at("metadata").get<metadata_map>();
    for (auto const& file : object.at("files")) {  // names are not paths: a file lies in the folder, under its own name
      if (file.at("name") != rank_file_name(m.files.size())) refuse("the name of a rank's file expected");
      m.files.push_back({file.at("bytes").get<std::uint64_t>(), file.at("crc32").get<std::string>()});
    }
    if (object.at("ranks") != m.files.size()) refuse("a file of each rank expected");
    for (auto const& [name, tensor] : object.at("tensors").items()) {  // sorted by name
      auto const extents = tensor.at("shape").get<std::vector<std::int64_t>>();
      entry e{name, tensor.at("dtype").get<std::string>(), shape(std::span<std::int64_t const>(extents)), {}};
      bytes_of<file_error>(e.dtype, e.shape, [&] { return path.string() + ": tensor " + in_quotes(e.name) + ": "; });
      m.tensors.push_back(std::move(e));
    }
  } catch (nlohmann::json::exception const& error) {
    refuse(error.what());
  } catch (invalid_argument const& error) {  // extents
    refuse(error.what());
  }
  return m;
}

}  // namespace pushpull::checkpoint::detail
