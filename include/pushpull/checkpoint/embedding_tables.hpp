/// @file
/// Embedding tables to a file and back.
///
/// Needs what safetensors.hpp needs. No umbrella includes it.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/checkpoint/states_format.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/table/embedding_table.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint {

namespace detail {

inline constexpr std::string_view table_format = "pushpull.embedding_table";
inline constexpr std::string_view table_version = "1";

/// f(name, list) for each list of numbers.
template <class Rows, class F>
void for_each_number_list(Rows& rows, F const& f) {
  f("ids", rows.ids);
  f("slots", rows.slots);
  f("last_used", rows.last_used);
  f("seen", rows.seen);
  f("candidates/ids", rows.waiting.ids);
  f("candidates/last_used", rows.waiting.last_used);
  f("candidates/seen", rows.waiting.seen);
  f("candidates/newer", rows.waiting.newer);
}

/// Copies a tensor of the file. @throws file_error if it has another type
template <class E>
std::vector<E> elements_of(safetensors_file const& file, std::string const& name) {
  entry const& found = file.find(name);
  pushpull::detail::expects<file_error>(found.dtype == safetensors_dtype<E>::name, [&] {
    return file.path().string() + ": tensor " + in_quotes(name) + " of type " +
           std::string(safetensors_dtype<E>::name) + " expected, got " + in_quotes(found.dtype);
  });
  std::vector<E> elements(found.bytes.size() / sizeof(E));
  if (!elements.empty()) std::memcpy(elements.data(), found.bytes.data(), found.bytes.size());
  return elements;
}

/// @throws file_error unless the metadata has the value
inline void expect_metadata(safetensors_file const& file, std::string_view name, std::string_view value) {
  std::string const* const found = find_metadata(file, name);
  pushpull::detail::expects<file_error>(found != nullptr && *found == value, [&] {
    return file.path().string() + ": metadata " + in_quotes(name) + " " + in_quotes(value) + " expected, got " +
           in_quotes(found == nullptr ? "" : *found);
  });
}

}  // namespace detail

/// Writes all that the table holds: ids, slots, weights in the masters' type, states, counts, candidates and t, as tensors "ids",
/// "slots", "values" of shape (ids, row length), "states/<name>", "last_used", "seen" and "candidates/...", and the
/// rule's name as metadata. Not written are options, the initializer and the rule's hyperparameters. Finishes work under way.
/// A file of that name is replaced when the new one is complete and on disk.
/// Memory: as much as rows and states take.
/// @throws file_error
template <class S, class Map>
void save_embedding_table(embedding_table<S, Map> const& table, std::filesystem::path const& path) {
  auto const rows = table.export_rows();
  auto const count = static_cast<std::int64_t>(rows.ids.size());
  std::vector<entry> entries;
  auto const add = [&](std::string name, auto const& list, shape const& extents) {
    using element = typename std::remove_cvref_t<decltype(list)>::value_type;
    entries.push_back(
        {std::move(name), std::string(safetensors_dtype<element>::name), extents, std::as_bytes(std::span(list))});
  };
  detail::for_each_number_list(rows, [&](char const* name, auto const& list) { add(name, list, {std::ssize(list)}); });
  add("values", rows.values, {count, table.row_length()});
  for (auto const& state : rows.states)
    add("states/" + state.name, state.elements, {count, count == 0 ? 0 : std::ssize(state.elements) / count});
  metadata_map metadata{
      {"format", std::string(detail::table_format)},      {"version", std::string(detail::table_version)},
      {"row_length", std::to_string(table.row_length())}, {"calls", std::to_string(rows.calls)},
      {"step_began", std::to_string(rows.step_began)},    {"steps", std::to_string(rows.steps)}};
  detail::add_rule(metadata, "", table.store().describe_rule());
  write_safetensors(path, entries, metadata);
}

/// Replaces all that the table holds by what save_embedding_table wrote of a table with the same row length, rule and types. Its next
/// calls give what those of the saved table would have given, on any number of devices.
/// @throws file_error if the file is damaged or foreign, or of another rule, row length or type; table_full if the table's capacity
/// is less than the number of ids; out_of_memory. The table then holds what it held
template <class S, class Map>
void load_embedding_table(embedding_table<S, Map>& table, std::filesystem::path const& path) {
  using table_type = embedding_table<S, Map>;
  safetensors_file const file(path);
  detail::expect_metadata(file, "format", detail::table_format);
  detail::expect_metadata(file, "version", detail::table_version);
  detail::expect_metadata(file, "row_length", std::to_string(table.row_length()));
  detail::expect_metadata(file, detail::rule_entry, table.store().describe_rule().name);
  typename table_type::rows_type rows;
  detail::for_each_number_list(
      rows, [&](char const* name, auto& list) { list = detail::elements_of<std::int64_t>(file, name); });
  rows.values = detail::elements_of<typename table_type::master_type>(file, "values");
  for (std::string const& name : table.state_names())
    rows.states.push_back({name, detail::elements_of<typename table_type::state_type>(file, "states/" + name)});
  rows.calls = detail::count_in(file, "calls", 0, "calls");
  rows.step_began = detail::count_in(file, "step_began", 1, "calls");
  rows.steps = detail::count_in(file, "steps", 0, "steps");
  try {
    table.import_rows(rows);
  } catch (invalid_argument const& error) {
    throw file_error(path.string() + ": " + error.what());
  }
}

}  // namespace pushpull::checkpoint
