/// @file
/// Loss and accuracy, of all ranks together.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/metrics/classification.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <span>
#include <string>
#include <vector>

namespace train_classifier {

/// A Metric over the outputs of perceptron_executor. `values` are those of this rank; all ranks call `global_values`, which
/// adds their sums in their order, so that every rank gets the same bits.
template <class Device, class Communicator>
class loss_and_accuracy {
 public:
  explicit loss_and_accuracy(Communicator const& ranks) : ranks_{&ranks} {}

  template <class Labels, class Outputs>
  void update(Labels const& labels, Outputs const& outputs, pushpull::train::counted_rows counted = {}) {
    accuracy_.update(labels, std::span{&outputs[0], 1}, counted);
    loss_.update(labels, std::span{&outputs[1], 1}, counted);
  }
  void reset() {
    accuracy_.reset();
    loss_.reset();
  }
  void reset_local() {
    accuracy_.reset_local();
    loss_.reset_local();
  }
  std::vector<pushpull::train::metric_value> values() const {
    return {{"loss", loss_.values()[0].value}, {"accuracy", accuracy_.values()[0].value}};
  }
  std::vector<pushpull::train::metric_value> global_values() const {
    auto const sum = sums();
    return {{"loss", sum.loss / sum.rows}, {"accuracy", sum.correct / sum.rows}};
  }

  struct rank_sums {
    double loss = 0, correct = 0, rows = 0;
  };
  /// Of all ranks, which all make this call.
  rank_sums sums() const {
    auto const loss = loss_.global_sums(), accuracy = accuracy_.global_sums();
    rank_sums const own{loss[0], accuracy[0], accuracy[1]};
    if constexpr (pushpull::GathersBytes<Communicator>) {
      rank_sums all;
      for (auto const& of_rank : ranks_->gather_all(std::as_bytes(std::span{&own, 1}))) {
        rank_sums one;
        std::memcpy(&one, of_rank.data(), sizeof one);
        all = {all.loss + one.loss, all.correct + one.correct, all.rows + one.rows};
      }
      return all;
    } else {
      return own;
    }
  }

 private:
  Communicator const* ranks_;
  pushpull::train::metrics::accuracy<Device> accuracy_;
  pushpull::train::metrics::loss<Device> loss_;
};

}  // namespace train_classifier
