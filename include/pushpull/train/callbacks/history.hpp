/// @file
/// The figures of each epoch, in memory and in a file of CSV or JSON lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/callbacks/callback.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::callbacks {

/// The figures of an epoch.
struct epoch_record {
  std::int64_t epoch;
  double seconds, samples_per_second;
  std::optional<double> learning_rate;
  std::vector<metric_value> training, validation;
};

/// Keeps a record per epoch, and writes it at the end of the epoch to a file: one JSON object per line, or CSV if the name ends
/// in ".csv". Columns are epoch, seconds, samples_per_second, learning_rate, the metrics, and "validation " metrics; an absent
/// value is null, or an empty field, and so is NaN. A run that resumes keeps the lines of the epochs before its first.
class history {
 public:
  history() = default;
  explicit history(std::filesystem::path path) : path_(std::move(path)) {}

  std::vector<epoch_record> const& records() const { return records_; }

  /// @throws file_error
  void on_begin(training_begin const& e) {
    std::erase_if(records_, [&](epoch_record const& r) { return r.epoch >= e.first_epoch; });
    if (path_.empty()) return;
    std::string const kept = e.first_epoch > 0 ? lines_before(e.first_epoch) : std::string();
    std::ofstream file(path_, std::ios::trunc);
    file << kept << std::flush;
    has_header_ = !kept.empty();
    expect(file.good());
  }

  /// @throws file_error
  void on_epoch_end(epoch_end const& e) {
    records_.push_back(
        {e.epoch, e.seconds, static_cast<double>(e.samples) / e.seconds, e.learning_rate, e.training, e.validation});
    if (path_.empty()) return;
    std::ofstream file(path_, std::ios::app);
    nlohmann::ordered_json const line = json_of(records_.back());
    if (!is_csv()) {
      file << line.dump() << '\n';
    } else {
      if (!has_header_) file << joined(line, [](auto const& item) { return quoted(item.key()); });
      file << joined(line, [](auto const& item) { return item.value().is_null() ? "" : item.value().dump(); });
    }
    file.flush();
    has_header_ = true;
    expect(file.good());
  }

 private:
  bool is_csv() const { return path_.extension() == ".csv"; }
  void expect(bool written) const {
    pushpull::detail::expects<file_error>(written, [&] { return "history: " + path_.string() + " cannot be written"; });
  }

  static nlohmann::ordered_json json_of(epoch_record const& r) {
    nlohmann::ordered_json line;  // which writes NaN as null
    line["epoch"] = r.epoch;
    line["seconds"] = r.seconds;
    line["samples_per_second"] = r.samples_per_second;
    line["learning_rate"] = r.learning_rate ? nlohmann::ordered_json(*r.learning_rate) : nlohmann::ordered_json();
    for (auto const& [name, value] : r.training) line[name] = value;
    for (auto const& [name, value] : r.validation) line["validation " + name] = value;
    return nlohmann::ordered_json::parse(line.dump());
  }
  static std::string quoted(std::string const& name) {
    return name.find_first_of(",\"") == name.npos ? name : nlohmann::json(name).dump();
  }
  template <class F>
  static std::string joined(nlohmann::ordered_json const& line, F const& field) {
    std::string text;
    for (auto const& item : line.items()) text += (text.empty() ? "" : ",") + field(item);
    return text + '\n';
  }

  /// The header, and the lines of earlier epochs.
  std::string lines_before(std::int64_t first) const {
    std::ifstream file(path_);
    std::string kept, line;
    for (bool header = is_csv(); std::getline(file, line); header = false) {
      if (file.eof()) break;  // the last line was cut off
      if (header || epoch_of(line) < first) kept += line + '\n';
    }
    return kept;
  }
  std::int64_t epoch_of(std::string const& line) const {
    auto const parsed = nlohmann::json::parse(is_csv() ? line.substr(0, line.find(',')) : line, nullptr, false);
    auto const epoch = parsed.is_object() ? parsed.value("epoch", nlohmann::json()) : parsed;
    pushpull::detail::expects<file_error>(epoch.is_number_integer(), [&] {
      return "history: " + path_.string() + " is no history: \"" + line.substr(0, 80) + "\"";
    });
    return epoch.template get<std::int64_t>();
  }

  std::filesystem::path path_;
  std::vector<epoch_record> records_;
  bool has_header_ = false;
};

static_assert(Callback<history>);

}  // namespace pushpull::train::callbacks
