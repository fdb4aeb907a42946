// A file of its own: CLI11 takes longer to compile than what the options are for.
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <limits>
#include <optional>
#include <string>

#include "choices.hpp"
#include "input_error.hpp"

namespace train_classifier {

namespace {

/// Rates with which each rule trains both datasets well at the default batch.
double default_learning_rate(updater_name updater) {
  switch (updater) {
    case updater_name::sgd: return 0.2;
    case updater_name::momentum: return 0.02;
    default: return 1e-3;
  }
}

int default_epochs(dataset_name dataset) { return dataset == dataset_name::digits ? 20 : 10; }

}  // namespace

std::optional<options> parse(int argc, char const* const* argv, options chosen) {
  std::optional<double> learning_rate;
  std::optional<int> epochs;
  CLI::App app{"Trains a two-layer perceptron on several devices through a pushpull parameter store.",
               "train_classifier"};
  detail::add_choice<dataset_name>(app, "--dataset", chosen.dataset,
                                   {{"digits", dataset_name::digits}, {"fashion-mnist", dataset_name::fashion_mnist}},
                                   "images to learn (default digits)");
  app.add_option("--data-dir", chosen.data_dir, "folder of the dataset's files");
  detail::add_choice<device_kind>(app, "--device", chosen.device,
                                  {{"cpu", device_kind::cpu}, {"cuda", device_kind::cuda}},
                                  "kind of device (default cpu)");
  app.add_option("--devices", chosen.devices,
                 "number of devices of a process (default " + std::to_string(chosen.devices) + ")")
      ->check(CLI::Range(1, 256));
  detail::add_choice<updater_name>(
      app, "--updater", chosen.updater,
      {{"sgd", updater_name::sgd},
       {"momentum", updater_name::momentum},
       {"adam", updater_name::adam},
       {"adamw", updater_name::adamw},
       {"adam8", updater_name::adam8}},
      "rule that applies the gradients (default adam); adam8: with states of 8 bits, on CPUs");
  app.add_option("--learning-rate", learning_rate, "default 0.2 for sgd, 0.02 for momentum, 0.001 for the others");
  app.add_option("--epochs", epochs, "passes over the training images (default 20 for digits, 10 for fashion-mnist)")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--batch", chosen.batch, "images per step, over all devices (default 64)")
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--hidden", chosen.hidden, "width of the hidden layer (default 128)")->check(CLI::Range(1, 16'384));
  app.add_option("--seed", chosen.seed, "decides the initial weights and the order of the images (default 1)")
      ->check(CLI::Range(std::int64_t{0}, std::numeric_limits<std::int64_t>::max()));
  app.add_option("--save-weights", chosen.save_weights, "write the final weights here, as little-endian float32");
  app.add_option("--checkpoints", chosen.checkpoints,
                 "after each epoch write weights and states to PREFIX-<epoch>.params, .states")
      ->type_name("PREFIX");
  app.add_flag("--resume", chosen.resume,
               "continue from the newest of the --checkpoints, with the other options of that run");
  app.add_option("--history", chosen.history,
                 "write the figures of each epoch here: .csv or .jsonl, for examples/plot_history.py");
  app.add_option("--trace", chosen.trace,
                 "write the operations of the store here, for https://ui.perfetto.dev; of rank n > 0 to FILE.n")
      ->type_name("FILE");
  app.add_flag("--quiet", chosen.quiet, "print the final accuracy only");
  try {
    app.parse(argc, argv);
  } catch (CLI::CallForHelp const&) {
    std::cout << app.help();
    return std::nullopt;
  } catch (CLI::ParseError const& error) {
    throw input_error{detail::one_line(error.what())};
  }

  auto const devices = static_cast<std::size_t>(chosen.devices) * static_cast<std::size_t>(chosen.ranks);
  if (chosen.batch < devices)
    throw input_error{"--batch: " + std::to_string(chosen.batch) + " images cannot be split over " +
                      std::to_string(devices) + " devices"};
  if (chosen.resume && !chosen.checkpoints) throw input_error{"--resume: --checkpoints has to name the checkpoints"};
  if (learning_rate && !(std::isfinite(*learning_rate) && *learning_rate > 0))
    throw input_error{"--learning-rate: has to be a positive number"};
  chosen.learning_rate = learning_rate.value_or(default_learning_rate(chosen.updater));
  chosen.epochs = epochs.value_or(default_epochs(chosen.dataset));
  return chosen;
}

}  // namespace train_classifier
