/// @file
/// The whole program but for its devices: each main file makes those that its compiler can use.
#pragma once

#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <pushpull/profile/chrome_trace.hpp>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "executor.hpp"
#include "input_error.hpp"
#include "load.hpp"
#include "metric.hpp"
#include "model.hpp"
#include "options.hpp"
#include "perceptron.hpp"
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

template <class Params>
void save_weights(options const& chosen, std::ofstream& file, Params const& trained) {
  if (!chosen.save_weights) return;
  write_weights(trained, file);
  file.close();
  if (!file) throw std::runtime_error{chosen.save_weights->string() + " could not be written completely"};
}

/// f(), whose failure all ranks get to know, so that none waits for this one.
template <class Communicator, class F>
void in_step([[maybe_unused]] Communicator const& ranks, F const& f) {
  try {
    f();
  } catch (std::exception const& error) {
    if constexpr (pushpull::GroupsCalls<Communicator>) ranks.fail(error.what());
    throw;
  }
}

/// train(), with a trace of it where the options ask for one. The file is opened before.
template <class Train>
void traced(options const& chosen, int rank, Train const& train) {
  if (!chosen.trace) return train();
  auto const path = chosen.trace->string() + (rank == 0 ? "" : "." + std::to_string(rank));
  if (!std::ofstream{path}) throw input_error{"--trace: " + path + " cannot be written"};
  pushpull::profile::tracing trace{pushpull::profile::chrome_trace{rank}};
  train();
  trace.function().write(path);
}

inline void print_how_to_resume(options const& chosen) {
  std::cout << "interrupted; "
            << (chosen.checkpoints ? "the same command with --resume continues after the last whole epoch"
                                   : "a run with --checkpoints PREFIX can be resumed")
            << std::endl;
}

}  // namespace detail

/// Loads, trains and tests, over the ranks of the communicator that connect() returns.
template <class Device, class Connect>
void train_and_test(options const& chosen, std::vector<Device> const& devices, Connect const& connect) {
  auto const data = load(chosen);
  if (chosen.batch > data.training.size())
    throw input_error{"--batch: there are only " + std::to_string(data.training.size()) + " training images"};
  auto const ranks = connect();
  bool const speaks = ranks.rank() == 0;
  detail::in_step(ranks, [&] {
    auto weights_file = speaks ? detail::open_weights(chosen) : std::ofstream{};
    perceptron_shape const shape{data.training.features, chosen.hidden, classes};
    classifier<Device> net{perceptron_factory<Device>{shape}, devices, {.seed = chosen.seed}};
    bool complete = true;
    with_updater(chosen, [&](auto const& updater, auto const&... policies) {
      if constexpr (sizeof...(policies) == 0 || pushpull::HostDevice<Device>) {
        detail::traced(chosen, ranks.rank(),
                       [&] { complete = train(net, ranks, updater, chosen, data.training, policies...); });
      } else {
        throw input_error{"--updater adam8: this program is compiled with it for CPU devices"};
      }
    });
    if (!speaks) return;
    if (!complete) return detail::print_how_to_resume(chosen);
    detail::save_weights(chosen, weights_file, net.params());

    auto test = batches_of(data.test, {.batch = 1024, .last = pushpull::train::data::last_batch::partial});
    auto const alone = pushpull::comm::single{};
    loss_and_accuracy<Device, pushpull::comm::single> metric{alone};
    net.score(test, metric);
    auto const sums = metric.sums();
    std::cout << "test accuracy " << std::fixed << std::setprecision(4) << sums.correct / sums.rows << " ("
              << static_cast<std::int64_t>(sums.correct) << " of " << static_cast<std::int64_t>(sums.rows) << ")"
              << std::endl;
    if (!std::cout) throw std::runtime_error{"the accuracy could not be written"};
  });
}

/// This process alone: the `connect` of programs without ranks.
inline pushpull::comm::single alone() { return {}; }

/// Parses, trains, tests. Exit code 2 for what the user can mend, 1 for any other failure, each with a line on stderr.
/// @param defaults      Of the options.
/// @param with_devices  with_devices(options, use) calls use(std::vector<Device>, connect) with the devices that were
///                      chosen, where connect() returns a communicator.
template <class WithDevices>
int program(int argc, char const* const* argv, WithDevices with_devices, options const& defaults = {}) {
  auto const failed = [](std::exception const& error, int code) {
    std::cerr << "train_classifier: " + std::string{error.what()} + "\n";  // as one, since other ranks write too
    return code;
  };
  try {
    if (auto const chosen = parse(argc, argv, defaults))
      with_devices(*chosen,
                   [&](auto const& devices, auto const& connect) { train_and_test(*chosen, devices, connect); });
    return 0;
  } catch (input_error const& error) {
    return failed(error, 2);
  } catch (std::exception const& error) {
    return failed(error, 1);
  }
}

}  // namespace train_classifier
