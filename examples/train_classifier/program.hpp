/// @file
/// The whole program but for its devices: each main file makes those that its compiler can use.
#pragma once

#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "input_error.hpp"
#include "load.hpp"
#include "model.hpp"
#include "options.hpp"
#include "perceptron.hpp"
#include "progress.hpp"
#include "random.hpp"
#include "trainer.hpp"
#include "updaters.hpp"

namespace train_classifier {

namespace detail {

/// Opened before training, so that hours of it are not lost to a mistyped path.
inline std::ofstream open_weights(options const& chosen) {
  std::ofstream file;
  if (!chosen.save_weights) return file;
  file.open(*chosen.save_weights, std::ios::binary);
  if (!file) throw input_error{"--save-weights: " + chosen.save_weights->string() + " cannot be written"};
  return file;
}

inline void save_weights(options const& chosen, std::ofstream& file, model const& trained) {
  if (!chosen.save_weights) return;
  write_weights(trained, file);
  file.close();
  if (!file) throw std::runtime_error{chosen.save_weights->string() + " could not be written completely"};
}

template <class Device>
void run(options const& chosen, std::vector<Device> const& devices) {
  auto const data = load(chosen);
  if (chosen.batch > data.training.size())
    throw input_error{"--batch: there are only " + std::to_string(data.training.size()) + " training images"};
  auto weights_file = open_weights(chosen);

  generator random{chosen.seed};
  model weights = initial_model({data.training.features, chosen.hidden, classes}, random);
  with_updater(chosen, [&](auto const& updater) {
    progress report{progress::style_for_stdout(chosen.quiet), chosen.epochs};
    train(devices, updater, chosen, data.training, random, report, weights);
  });
  save_weights(chosen, weights_file, weights);

  auto const test = perceptron{weights.shape}.forward(weights.pointers(), data.test.images.data(), data.test.labels);
  std::cout << "test accuracy " << std::fixed << std::setprecision(4)
            << static_cast<double>(test.correct) / static_cast<double>(test.rows) << " (" << test.correct << " of "
            << test.rows << ")" << std::endl;
  if (!std::cout) throw std::runtime_error{"the accuracy could not be written"};
}

}  // namespace detail

/// Parses, trains, tests. Exit code 2 for what the user can mend, 1 for any other failure, each with a line on stderr.
/// @param with_devices  with_devices(options, use) calls use(std::vector<Device>) with the devices that were chosen.
template <class WithDevices>
int program(int argc, char const* const* argv, WithDevices with_devices) {
  try {
    if (auto const chosen = parse(argc, argv))
      with_devices(*chosen, [&](auto const& devices) { detail::run(*chosen, devices); });
    return 0;
  } catch (input_error const& error) {
    std::cerr << "train_classifier: " << error.what() << std::endl;
    return 2;
  } catch (std::exception const& error) {
    std::cerr << "train_classifier: " << error.what() << std::endl;
    return 1;
  }
}

}  // namespace train_classifier
