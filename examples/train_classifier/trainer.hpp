/// @file
/// Data-parallel training: a module computes the gradients of each device's share of a batch, its store does the rest.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/callbacks/checkpoint_every.hpp>
#include <pushpull/train/callbacks/history.hpp>
#include <pushpull/train/callbacks/progress_bar.hpp>
#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/module.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "executor.hpp"
#include "input_error.hpp"
#include "metric.hpp"
#include "options.hpp"

namespace train_classifier {

/// The classifier on some devices.
template <class Device>
using classifier = pp::train::module<perceptron_factory<Device>>;

using source = pp::train::data::array_source<float, std::uint8_t>;

/// Batches of a dataset, which outlives them.
inline source batches_of(dataset const& data, pp::train::data::array_options const& options) {
  auto const rows = static_cast<std::int64_t>(data.size()), features = static_cast<std::int64_t>(data.features);
  return {{{"image", pp::tensor_view(data.images.data(), pp::shape{rows, features})}},
          {{"label", pp::tensor_view(data.labels.data(), pp::shape{rows})}},
          options};
}

/// Each rank's rows of the batches of all ranks.
class rank_source {
 public:
  rank_source(source all, int rank, int ranks) : all_{std::move(all)} {
    auto const rows = all_.descs().data[0].shape[0];
    rows_ = pp::train::slice_batch(rows, static_cast<std::size_t>(ranks))[static_cast<std::size_t>(rank)];
  }

  auto next() {
    auto taken = all_.next();
    if (taken) {
      auto const features = taken->data[0].shape()[1];
      taken->data[0] = {taken->data[0].data() + rows_.begin * features, pp::shape{rows_.size(), features}};
      taken->labels[0] = {taken->labels[0].data() + rows_.begin, pp::shape{rows_.size()}};
    }
    return taken;
  }
  void reset() { all_.reset(); }
  auto descs() const {
    auto descs = all_.descs();
    for (auto* all : {&descs.data, &descs.labels})
      for (auto& desc : *all) desc.shape = pp::train::with_rows(desc.shape, 0, rows_.size());
    return descs;
  }
  auto batches() const { return all_.batches(); }
  auto position() const { return all_.position(); }
  void seek(pp::train::source_position position) { all_.seek(position); }

 private:
  source all_;
  pp::train::row_range rows_;
};

/// Ends training whose loss is no number any more.
struct divergence {
  void on_epoch_end(pp::train::epoch_end const& e) const {
    if (!std::isfinite(e.training.at(0).value))
      throw std::runtime_error{"training diverged in epoch " + std::to_string(e.epoch + 1) +
                               ": try a smaller --learning-rate"};
  }
};

/// A progress bar that counts the samples of all ranks.
struct progress_of_ranks {
  pp::train::callbacks::progress_bar bar;
  int ranks;

  void on_begin(pp::train::training_begin const& e) { bar.on_begin(e); }
  void on_batch_end(pp::train::batch_end const& e) { bar.on_batch_end(e); }
  void on_epoch_end(pp::train::epoch_end e) {
    e.samples *= ranks;
    bar.on_epoch_end(e);
  }
};

/// Trains the classifier by the rule, from its initial weights or from the newest checkpoint. If there are several ranks, each
/// makes this call, and each of their devices takes its share of every batch.
/// The rows that do not fill a batch sit out the epoch; the order of rows does not depend on the devices.
/// @param policies  Of the rule's store.
/// @returns false if a signal ended it
/// @throws std::runtime_error if the loss stops being a number
template <class Device, class Communicator, class Updater, class... Policies>
bool train(classifier<Device>& net, Communicator const& ranks, Updater const& updater, options const& chosen,
           dataset const& data, Policies const&... policies) {
  namespace callbacks = pp::train::callbacks;
  namespace initializers = pp::train::initializers;
  rank_source batches{batches_of(data, {.batch = static_cast<std::int64_t>(chosen.batch),
                                        .shuffle = chosen.seed,
                                        .last = pp::train::data::last_batch::discard}),
                      ranks.rank(), ranks.size()};
  std::int64_t first_epoch = 0;
  if (chosen.resume) {
    auto const newest = pp::train::newest_checkpoint(*chosen.checkpoints);
    if (!newest) throw input_error{"--resume: there is no checkpoint " + chosen.checkpoints->string() + "-0001.params"};
    first_epoch = *newest;
    net.load_checkpoint(chosen.checkpoints->string(), first_epoch);
    batches.seek({first_epoch, 0});
  }
  net.bind_to(batches);
  // Uniform weights of variance 2 / fan-in, which keep the size of activations behind a ReLU (He et al. 2015).
  if (!net.is_initialized())
    net.init_params(
        initializers::by_suffix{initializers::xavier{initializers::distribution::uniform, initializers::fan::in, 6}});
  net.init_optimizer(updater, {}, ranks, policies...);

  pp::train::callback_list calls;
  bool const speaks = ranks.rank() == 0 && !chosen.quiet;
  auto const style = !speaks            ? callbacks::progress_style::quiet
                     : ranks.size() > 1 ? callbacks::progress_style::lines
                                        : callbacks::progress_style::automatic;
  calls.add(progress_of_ranks{callbacks::progress_bar{{.style = style}}, ranks.size()});
  calls.add(divergence{});
  if (chosen.checkpoints) calls.add(callbacks::save_module_every(net, chosen.checkpoints->string()));
  if (chosen.history && ranks.rank() == 0) calls.add(callbacks::history{*chosen.history});
  std::optional<callbacks::stop_on_signal> interrupt;
  if (ranks.size() == 1) calls.add(std::ref(interrupt.emplace()));

  loss_and_accuracy<Device, Communicator> metric{ranks};
  return net.fit(batches, metric, {.epochs = chosen.epochs, .begin_epoch = first_epoch, .callbacks = calls})
      .stopped.empty();
}

}  // namespace train_classifier
