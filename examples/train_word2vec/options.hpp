/// @file
/// The command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <text/read_text.hpp>
#include <vector>

namespace train_word2vec {

using example_text::input_error;

/// Options with their defaults. Those of the model are word2vec's.
struct options {
  std::optional<std::filesystem::path> text;
  int devices = 2;
  std::size_t dimension = 100;
  std::size_t window = 5;
  std::size_t negative = 5;
  std::size_t min_count = 5;
  double sample = 1e-3;
  double learning_rate = 0.025;
  double min_learning_rate = 1e-4;
  int epochs = 15;
  std::size_t batch = 10'000;
  std::size_t pool = 1024;
  std::uint64_t seed = 1;
  std::optional<std::filesystem::path> checkpoints;
  bool resume = false;
  std::optional<std::filesystem::path> save_vectors;
  std::vector<std::string> words{"king", "david", "jerusalem", "water", "father", "sword", "love"};
  std::size_t neighbours = 5;
  bool quiet = false;

  /// Where a run that is interrupted saves.
  std::filesystem::path checkpoint_folder() const { return checkpoints.value_or("word2vec-checkpoints"); }
};

/// The options of a command line, or nothing if it asked for help, which is then on stdout. @throws input_error
inline std::optional<options> parse(int argc, char const* const* argv) {
  options chosen;
  CLI::App app{
      "Learns a vector for each word of a text: skip-gram with negative sampling (Mikolov et al. 2013), whose "
      "embeddings are row-sparse keys of a pushpull store.",
      "train_word2vec"};
  app.add_option("--text", chosen.text,
                 "any text file, a sentence per line (default: the King James Bible, as the program `bible` of the "
                 "Debian package bible-kjv prints it)");
  app.add_option("--devices", chosen.devices, "logical devices, each a part of every batch")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  app.add_option("--dimension", chosen.dimension, "elements of a vector")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--window", chosen.window, "words before and after a word that are its contexts, at most")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--negative", chosen.negative, "random words per context")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--min-count", chosen.min_count, "rarer words are left out")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--sample", chosen.sample, "frequency above which words are skipped at random; 0 keeps all")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--learning-rate", chosen.learning_rate, "of the first step; it falls linearly")
      ->check(CLI::Range(1e-9, 10.0))
      ->capture_default_str();
  app.add_option("--epochs", chosen.epochs, "passes over the text")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--batch", chosen.batch, "words per step, over all devices")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app.add_option("--pool", chosen.pool, "random words that a device draws its negatives from in a step")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app.add_option("--seed", chosen.seed, "decides initial vectors and all random words")->capture_default_str();
  app.add_option("--checkpoints", chosen.checkpoints,
                 "folder of checkpoints, written after each epoch and when interrupted");
  app.add_flag("--resume", chosen.resume,
               "continue from the newest checkpoint, with the options of the run that wrote it");
  app.add_option("--save-vectors", chosen.save_vectors, "write the vectors here, in word2vec's text format");
  app.add_option("--words", chosen.words, "print the nearest neighbours of these words")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--neighbours", chosen.neighbours, "how many of them")->capture_default_str();
  app.add_flag("--quiet", chosen.quiet, "no progress");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::cout << app.help();
    return std::nullopt;
  } catch (CLI::ParseError const& error) {
    throw input_error{error.what()};
  }
  if (!std::isfinite(chosen.learning_rate) || !std::isfinite(chosen.sample))  // in no range, nor out of one
    throw input_error{"--learning-rate, --sample: numbers expected"};
  if (chosen.batch < static_cast<std::size_t>(chosen.devices))
    throw input_error{"--batch: " + std::to_string(chosen.batch) + " words cannot be split over " +
                      std::to_string(chosen.devices) + " devices"};
  return chosen;
}

}  // namespace train_word2vec
