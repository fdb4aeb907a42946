/// @file
/// The command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <text/read_text.hpp>
#include <vector>

namespace train_bucketing {

using example_text::input_error;

/// Options with their defaults.
struct options {
  std::optional<std::filesystem::path> text;
  std::size_t characters = 600'000;
  int devices = 2;
  std::size_t hidden = 96;
  std::vector<std::int64_t> buckets{64, 96, 128, 160, 224};
  std::int64_t batch = 32;
  double learning_rate = 0.004;
  double max_norm = 1;
  int epochs = 6;
  std::uint64_t seed = 1;
  std::optional<std::string> checkpoints;
  bool resume = false;
  std::size_t sample = 300;
  double temperature = 0.7;
  bool quiet = false;

  /// Of checkpoints; where a run that is interrupted saves.
  std::string prefix() const { return checkpoints.value_or("train_bucketing"); }
};

/// The options of a command line, or nothing if it asked for help, which is then on stdout. @throws input_error
inline std::optional<options> parse(int argc, char const* const* argv) {
  options chosen;
  CLI::App app{
      "Learns to write a text character by character: a recurrent network (GRU) over lines of several lengths, each "
      "length a "
      "bucket of a pushpull bucketing_module.",
      "train_bucketing"};
  app.add_option("--text", chosen.text,
                 "any text file (default: the King James Bible, as the program `bible` of the Debian package bible-kjv "
                 "prints it)");
  app.add_option("--characters", chosen.characters, "of the text, from its beginning; 0 takes all")
      ->capture_default_str();
  app.add_option("--devices", chosen.devices, "logical devices, each a part of every batch")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--hidden", chosen.hidden, "units of the recurrent layer")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--buckets", chosen.buckets, "lengths of sequences; longer lines are cut")
      ->delimiter(',')
      ->check(CLI::Range(2, 10'000))
      ->capture_default_str();
  app.add_option("--batch", chosen.batch, "lines per step, over all devices")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--learning-rate", chosen.learning_rate, "of Adam")
      ->check(CLI::Range(1e-9, 10.0))
      ->capture_default_str();
  app.add_option("--max-norm", chosen.max_norm, "gradients are shortened to this norm")
      ->check(CLI::Range(1e-9, 1e9))
      ->capture_default_str();
  app.add_option("--epochs", chosen.epochs, "passes over the text")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--seed", chosen.seed, "decides initial weights, the order of lines and the sample")
      ->capture_default_str();
  app.add_option("--checkpoints", chosen.checkpoints,
                 "prefix of checkpoints, written after each epoch and when interrupted, with the number of steps");
  app.add_flag("--resume", chosen.resume,
               "continue from the newest checkpoint, with the options of the run that wrote it");
  app.add_option("--sample", chosen.sample, "characters to write at the end")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  app.add_option("--temperature", chosen.temperature, "of the sample: lower is more careful")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  app.add_flag("--quiet", chosen.quiet, "no progress");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::cout << app.help();
    return std::nullopt;
  } catch (CLI::ParseError const& error) {
    throw input_error{error.what()};
  }
  return chosen;
}

}  // namespace train_bucketing
