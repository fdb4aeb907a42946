/// @file
/// Data-parallel training: every device computes the gradients of its share of each batch, the store does the rest.
#pragma once

#include <tbb/parallel_for.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <pushpull/pushpull.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "model.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "random.hpp"
#include "replica.hpp"
#include "updaters.hpp"

namespace train_classifier {

/// Part `part` of `parts` of `rows`; parts differ by at most one row.
inline std::span<std::uint32_t const> share(std::span<std::uint32_t const> rows, std::size_t part, std::size_t parts) {
  auto const first = rows.size() * part / parts;
  return rows.subspan(first, rows.size() * (part + 1) / parts - first);
}

/// The results of all ranks' devices together, added in their order, so that every rank gets the same bits.
template <class Communicator>
batch_result sum_over_ranks(Communicator const& ranks, std::vector<batch_result> const& own) {
  if constexpr (pushpull::GathersBytes<Communicator>) {
    std::vector<batch_result> all;
    for (auto const& of_rank : ranks.gather_all(std::as_bytes(std::span{own}))) {
      all.resize(all.size() + own.size());
      std::memcpy(&all[all.size() - own.size()], of_rank.data(), of_rank.size());
    }
    return std::accumulate(all.begin(), all.end(), batch_result{});
  } else {
    return std::accumulate(own.begin(), own.end(), batch_result{});
  }
}

/// Trains `weights` on `devices` with `updater`, and leaves the result in them. If there are several ranks, each makes this
/// call, and each of their devices takes its share of every batch.
/// The rows that do not fill a batch sit out the epoch; the order of rows does not depend on the devices.
/// @throws std::runtime_error if the loss stops being a number.
template <class Device, class Communicator, class Updater>
void train(std::vector<Device> const& devices, Communicator const& ranks, Updater const& updater, options const& chosen,
           dataset const& data, generator& random, progress& report, model& weights) {
  namespace pp = pushpull;
  auto const rows_and_columns = [](std::size_t rows, std::size_t columns) {
    return pp::shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
  };
  auto const [inputs, hidden, outputs] = weights.shape;
  pp::kv_store store{devices, updater, ranks};
  pp::parameter_store parameters{store};
  parameters.add(parameter_names[0], pp::tensor_view(weights.hidden_weight.data(), rows_and_columns(hidden, inputs)));
  parameters.add(parameter_names[1], weights.hidden_bias);
  parameters.add(parameter_names[2], pp::tensor_view(weights.output_weight.data(), rows_and_columns(outputs, hidden)));
  parameters.add(parameter_names[3], weights.output_bias);

  std::vector<replica<decltype(parameters)>> replicas;
  for (auto const& device : devices) replicas.emplace_back(weights.shape, parameters, device);
  std::vector<batch_result> results(devices.size());
  auto const first = static_cast<std::size_t>(ranks.rank()) * devices.size();  // of the devices of all ranks
  auto const all = static_cast<std::size_t>(ranks.size()) * devices.size();

  auto const steps = data.size() / chosen.batch;
  for (int epoch = 1; epoch <= chosen.epochs; ++epoch) {
    auto const order = shuffled_indices(data.size(), random);
    report.begin_epoch(steps);
    for (std::size_t step = 0; step < steps; ++step) {
      auto const batch = std::span{order}.subspan(step * chosen.batch, chosen.batch);
      tbb::parallel_for(std::size_t{0}, devices.size(),
                        [&](std::size_t k) { results[k] = replicas[k].backward(data, share(batch, first + k, all)); });
      parameters.update_all();
      store.wait();  // the next forward reads the mirrors
      report.step_done(sum_over_ranks(ranks, results));
    }
    report.end_epoch();
    if (!std::isfinite(report.loss()))
      throw std::runtime_error{"training diverged in epoch " + std::to_string(epoch) +
                               ": try a smaller --learning-rate"};
  }
  parameters.sync_master();
}

}  // namespace train_classifier
