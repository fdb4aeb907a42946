/// @file
/// What can be chosen on the command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>

namespace train_classifier {

enum class dataset_name { digits, fashion_mnist };
enum class device_kind { cpu, cuda };
enum class updater_name { sgd, momentum, adam, adamw, adam8 };

/// Options with their defaults; those that depend on other options are filled in by `parse`.
struct options {
  dataset_name dataset = dataset_name::digits;
  std::optional<std::filesystem::path> data_dir;
  device_kind device = device_kind::cpu;
  int devices = 4;
  updater_name updater = updater_name::adam;
  double learning_rate = 0;
  int epochs = 0;
  std::size_t batch = 64;
  std::size_t hidden = 128;
  std::uint64_t seed = 1;
  std::optional<std::filesystem::path> save_weights;
  std::optional<std::filesystem::path> checkpoints;
  bool resume = false;
  std::optional<std::filesystem::path> history;
  std::optional<std::filesystem::path> trace;
  bool quiet = false;
  int ranks = 1;  ///< processes that train together: what started the program decides
};

/// The options of a command line, or nothing if it asked for help, which is then on stdout.
/// @param chosen  The defaults.
/// @throws input_error for unknown options and for values that cannot be used.
std::optional<options> parse(int argc, char const* const* argv, options chosen = {});

}  // namespace train_classifier
