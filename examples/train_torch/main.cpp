/// @file
/// A trainer in LibTorch whose optimizer is a pushpull store over several replicas, in comparison with torch::optim::AdamW.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <optional>
#include <pushpull/interop/torch_module.hpp>
#include <pushpull/pushpull.hpp>
#include <stdexcept>
#include <vector>

#include "convolutional.hpp"
#include "gpt.hpp"
#include "network.hpp"
#include "options.hpp"

namespace {

using namespace train_torch;
namespace pp = pushpull;

/// AdamW over the sum of the replicas' gradients, by a store: one pass that also writes the weights of all replicas.
class our_optimizer {
 public:
  our_optimizer(options const& chosen, replica_group const& group)
      : store_{pp::cpu_devices(chosen.replicas),
               pp::update::adamw{.learning_rate = chosen.learning_rate, .weight_decay = chosen.weight_decay}},
        parameters_{store_},
        model_{pp::interop::register_module(parameters_, group.replicas())} {}

  void zero_grad() { model_.zero_grad(); }
  void step() { model_.step(); }

 private:
  pp::kv_store<float, pp::cpu_device<>, pp::update::adamw> store_;
  pp::parameter_store<decltype(store_)> parameters_;
  pp::interop::torch_model<decltype(parameters_)> model_;
};

/// The same as a user of LibTorch writes it: the first replica gets the gradients and the step, the others copies.
class their_optimizer {
 public:
  their_optimizer(options const& chosen, replica_group const& group) {
    for (auto const& replica : group.replicas()) weights_.push_back(replica->parameters());
    optimizer_.emplace(weights_[0],
                       torch::optim::AdamWOptions(chosen.learning_rate).weight_decay(chosen.weight_decay).eps(1e-8));
  }

  void zero_grad() {
    for (auto& replica : weights_)
      for (auto& weight : replica) weight.mutable_grad().reset();
  }
  void step() {
    torch::NoGradGuard const silent;
    auto& first = weights_[0];
    for (std::size_t n = 1; n < weights_.size(); ++n)
      for (std::size_t i = 0; i < first.size(); ++i) first[i].mutable_grad().add_(weights_[n][i].grad());
    optimizer_->step();
    for (std::size_t n = 1; n < weights_.size(); ++n)
      for (std::size_t i = 0; i < first.size(); ++i) weights_[n][i].copy_(first[i]);
  }

 private:
  std::vector<std::vector<torch::Tensor>> weights_;
  std::optional<torch::optim::AdamW> optimizer_;
};

/// A group of replicas with its optimizer: losses, and the time of each of the optimizer's steps.
template <class Optimizer>
class trainer {
 public:
  trainer(options const& chosen, task const& learned) : group_{chosen, learned}, optimizer_{chosen, group_} {}

  /// One step. @returns the mean loss of the batch before it @throws std::runtime_error if that is no number
  double step(samples const& batch) {
    optimizer_.zero_grad();
    double const loss = group_.backward(batch);
    if (!std::isfinite(loss)) throw std::runtime_error{"training diverged: try a smaller --learning-rate"};
    auto const begin = std::chrono::steady_clock::now();
    optimizer_.step();
    milliseconds_.push_back(
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    return loss;
  }

  replica_group const& group() const { return group_; }
  /// The median time of the optimizer's part of a step.
  double milliseconds() {
    auto const middle = milliseconds_.begin() + static_cast<std::ptrdiff_t>(milliseconds_.size() / 2);
    std::nth_element(milliseconds_.begin(), middle, milliseconds_.end());
    return *middle;
  }

 private:
  replica_group group_;
  Optimizer optimizer_;
  std::vector<double> milliseconds_;
};

/// The mean loss of the steps since the last call.
class running_mean {
 public:
  void add(double loss) {
    sum_ += loss;
    ++count_;
  }
  double take() {
    double const mean = count_ > 0 ? sum_ / static_cast<double>(count_) : 0;
    *this = {};
    return mean;
  }

 private:
  double sum_ = 0;
  std::int64_t count_ = 0;
};

void run(options const& chosen) {
  if (chosen.threads > 0) torch::set_num_threads(chosen.threads);
  auto const learned = chosen.model == model_name::gpt ? learn_text(chosen) : learn_images(chosen);
  auto const& training = learned.training;
  auto const steps_per_epoch = training.rows() / chosen.batch;
  if (steps_per_epoch == 0)
    throw input_error{"--batch: there are only " + std::to_string(training.rows()) + " rows to train with"};

  trainer<our_optimizer> ours{chosen, learned};
  std::optional<trainer<their_optimizer>> theirs;
  if (chosen.compare) theirs.emplace(chosen, learned);

  auto const all = chosen.steps > 0 ? chosen.steps : chosen.epochs * steps_per_epoch;
  auto const reported = theirs ? 20 : std::min<std::int64_t>(steps_per_epoch, 100);
  running_mean our_mean, their_mean;
  double difference = 0;
  torch::Tensor order;
  for (std::int64_t step = 0; step < all; ++step) {
    auto const place = step % steps_per_epoch;
    if (place == 0) {
      torch::manual_seed(chosen.seed + static_cast<std::uint64_t>(step) + 1);
      order = torch::randperm(training.rows());
    }
    auto const batch = training.select(order.slice(0, place * chosen.batch, (place + 1) * chosen.batch));
    double const loss = ours.step(batch);
    our_mean.add(loss);
    if (theirs) {
      double const their_loss = theirs->step(batch);
      their_mean.add(their_loss);
      difference = std::max(difference, std::abs(loss - their_loss) / std::abs(their_loss));
    }
    if (chosen.quiet || (step + 1 != all && (step + 1) % reported != 0)) continue;
    std::printf("step %lld/%lld  loss %.7f", static_cast<long long>(step + 1), static_cast<long long>(all),
                our_mean.take());
    if (theirs) std::printf("  torch::optim %.7f", their_mean.take());
    std::printf("\n");
    std::fflush(stdout);
  }

  if (theirs) {
    double const our_time = ours.milliseconds(), their_time = theirs->milliseconds();
    std::int64_t elements = 0;
    for (auto const& weight : ours.group().replicas()[0]->parameters()) elements += weight.numel();
    std::printf("largest relative difference of losses %.2e over %lld steps\n", difference,
                static_cast<long long>(all));
    std::printf(
        "optimizer's part of a step, %lld parameters on %d replicas: %.4f ms, torch::optim::AdamW %.4f ms: %.2f\n",
        static_cast<long long>(elements), chosen.replicas, our_time, their_time, our_time / their_time);
  }
  auto const correct = ours.group().correct(learned.test), labels = learned.test.labels.numel();
  std::printf("test accuracy %.4f (%lld of %lld)\n", static_cast<double>(correct) / static_cast<double>(labels),
              static_cast<long long>(correct), static_cast<long long>(labels));
}

}  // namespace

/// Exit code 2 for what the user can mend, 1 for any other failure.
int main(int argc, char** argv) {
  auto const failed = [](std::exception const& error, int code) {
    std::cerr << "train_torch: " << error.what() << std::endl;
    return code;
  };
  try {
    if (auto const chosen = parse(argc, argv)) run(*chosen);
    return std::fflush(stdout) == 0 ? 0 : 1;
  } catch (input_error const& error) {
    return failed(error, 2);
  } catch (std::exception const& error) {
    return failed(error, 1);
  }
}
