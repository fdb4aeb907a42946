/// @file
/// Word vectors by skip-gram with negative sampling: two tables in a store, of which each step pulls and pushes the rows of its
/// words only.
#include <tbb/parallel_for.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <pushpull/checkpoint/sharded.hpp>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/callbacks/checkpoint_every.hpp>
#include <pushpull/train/callbacks/progress_bar.hpp>
#include <pushpull/train/initializers/distributions.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "corpus.hpp"
#include "neighbours.hpp"
#include "options.hpp"
#include "share.hpp"

namespace {

using namespace train_word2vec;
namespace callbacks = pp::train::callbacks;

/// The mean loss per word and random word, as a metric: of the epoch.
struct mean_loss {
  loss_sum sum;
  std::vector<pp::train::metric_value> values() const {
    return {{"loss", sum.loss / static_cast<double>(std::max<std::int64_t>(sum.terms, 1))}};
  }
  std::vector<pp::train::metric_value> global_values() const { return values(); }
  void reset_local() {}
};

/// Steps, checkpoints and progress. A step's number determines its words and its random numbers, so a run that is resumed
/// makes the steps that it would have made.
class run {
 public:
  run(options const& chosen, corpus const& text)
      : chosen_{chosen},
        text_{text},
        negatives_{text.counts},
        devices_{pp::cpu_devices(chosen.devices)},
        store_{devices_, pp::update::sgd{.learning_rate = 1}} {
    auto const words = static_cast<std::int64_t>(text.words.size());
    pp::shape const table{words, static_cast<std::int64_t>(chosen.dimension)};
    std::vector<float> vectors(table.size());
    pp::train::initializers::uniform const initial{0.5 / static_cast<double>(chosen.dimension)};
    initial({"input", table, chosen.seed}, vectors);
    store_.init("input", pp::tensor_view(vectors.data(), table));
    std::fill(vectors.begin(), vectors.end(), 0.0F);
    store_.init("output", pp::tensor_view(vectors.data(), table));
    for (auto const& device : devices_) shares_.emplace_back(chosen, text, negatives_, device);
    results_.resize(devices_.size());
    steps_per_epoch_ = static_cast<std::int64_t>((text.tokens.size() + chosen.batch - 1) / chosen.batch);
    if (chosen.resume) pp::checkpoint::load(store_, chosen.checkpoint_folder());
  }

  /// @returns false if a signal ended it
  bool train() {
    callbacks::stop_on_signal const interrupt;
    callbacks::progress_bar bar{
        {.style = chosen_.quiet ? callbacks::progress_style::quiet : callbacks::progress_style::automatic}};
    pp::train::training_control control;
    mean_loss metric;
    pp::train::metric_reader const reader{metric};
    auto const begin = std::chrono::steady_clock::now();
    auto epoch_begin = begin;
    std::int64_t words_of_epoch = 0;
    std::int64_t step = store_.steps("input");
    bar.on_begin({step / steps_per_epoch_, chosen_.epochs});
    for (; step < steps_per_epoch_ * chosen_.epochs && !control.stopped(); ++step) {
      auto const epoch = step / steps_per_epoch_, number = step % steps_per_epoch_;
      auto const words = make_step(step, metric.sum);
      words_ += words;
      words_of_epoch += words;
      pp::train::batch_end const event{epoch, chosen_.epochs, number, steps_per_epoch_, words, reader, control};
      bar.on_batch_end(event);
      interrupt.on_batch_end(event);
      if (number + 1 < steps_per_epoch_) continue;
      if (chosen_.checkpoints) save();
      auto const now = std::chrono::steady_clock::now();
      auto const values = metric.values();
      bar.on_epoch_end({epoch,
                        chosen_.epochs,
                        words_of_epoch,
                        std::chrono::duration<double>(now - epoch_begin).count(),
                        values,
                        {},
                        std::nullopt,
                        control});
      epoch_begin = now;
      metric.sum = {};
      words_of_epoch = 0;
    }
    store_.wait();
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    if (control.stopped()) save();
    return !control.stopped();
  }

  std::vector<float> vectors() {
    std::vector<float> all(text_.words.size() * chosen_.dimension);
    store_.pull("input", pp::tensor_view(all.data(), store_.shape("input"))).wait();
    return all;
  }

  void print_figures() const {
    double const mib = 1024 * 1024;
    double const row_bytes = static_cast<double>(chosen_.dimension * sizeof(float) + sizeof(std::int64_t));
    double const moved = 2 * static_cast<double>(rows_) * row_bytes;  // pulled and pushed
    double const dense = 2 * 2 * static_cast<double>(text_.words.size() * chosen_.dimension * sizeof(float)) *
                         static_cast<double>(devices_.size()) * static_cast<double>(steps_);
    std::printf("%lld words in %.1f s: %.0f words/s\n", static_cast<long long>(words_), seconds_,
                static_cast<double>(words_) / seconds_);
    std::printf("rows moved: %.0f MiB, of %.0f MiB that pulls and pushes of whole tables would move (%.1f%%)\n",
                moved / mib, dense / mib, dense > 0 ? 100 * moved / dense : 0);
    std::fflush(stdout);
  }

 private:
  /// @returns its words
  std::int64_t make_step(std::int64_t step, loss_sum& sum) {
    auto const first = static_cast<std::size_t>(step % steps_per_epoch_) * chosen_.batch;
    auto const words = std::min(chosen_.batch, text_.tokens.size() - first);
    auto const parts = devices_.size();
    tbb::parallel_for(std::size_t{0}, parts, [&](std::size_t k) {
      std::seed_seq seeds{static_cast<std::uint32_t>(chosen_.seed), static_cast<std::uint32_t>(chosen_.seed >> 32),
                          static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(step >> 32),
                          static_cast<std::uint32_t>(k)};
      shares_[k].begin(first + words * k / parts, first + words * (k + 1) / parts, seeds);
    });
    for (auto& part : shares_)
      for (std::size_t key : {share::input, share::output})
        store_.row_sparse_pull(names[key], part.rows(key), part.ids(key));
    store_.wait();
    double const all = static_cast<double>(steps_per_epoch_) * chosen_.epochs;
    double const rate =
        chosen_.learning_rate - (chosen_.learning_rate - chosen_.min_learning_rate) * static_cast<double>(step) / all;
    tbb::parallel_for(std::size_t{0}, parts,
                      [&](std::size_t k) { results_[k] = shares_[k].train(static_cast<float>(rate), table_); });
    keys_.clear();
    gradients_.clear();
    for (std::size_t k = 0; k < parts; ++k) {
      sum.loss += results_[k].loss;
      sum.terms += results_[k].terms;
      for (std::size_t key : {share::input, share::output}) {
        keys_.emplace_back(names[key]);
        gradients_.emplace_back(shares_[k].rows(key));
        rows_ += shares_[k].rows(key).rows();
      }
    }
    store_.push(keys_, gradients_).wait();
    ++steps_;
    return static_cast<std::int64_t>(words);
  }

  void save() { pp::checkpoint::save(store_, chosen_.checkpoint_folder(), {.keep = 2}); }

  static constexpr char const* names[] = {"input", "output"};
  options const& chosen_;
  corpus const& text_;
  noise negatives_;
  sigmoid_table table_;
  std::vector<pp::cpu_device<>> devices_;
  std::vector<share> shares_;
  std::vector<loss_sum> results_;
  std::vector<std::string> keys_;
  std::vector<pp::row_sparse_view<float>> gradients_;
  pp::kv_store<float, pp::cpu_device<>, pp::update::sgd> store_;
  std::int64_t steps_per_epoch_ = 0, words_ = 0, rows_ = 0, steps_ = 0;
  double seconds_ = 0;
};

int program(options const& chosen) {
  if (chosen.save_vectors &&
      !std::ofstream(*chosen.save_vectors, std::ios::app))  // hours of training are not lost to it
    throw input_error{"--save-vectors: " + chosen.save_vectors->string() + " cannot be written"};
  auto const text = read_corpus(chosen);
  if (!chosen.quiet)
    std::cout << text.tokens.size() << " words of " << text.words.size() << " different ones in "
              << text.sentence_begins.size() << " lines" << std::endl;
  run training{chosen, text};
  bool const complete = training.train();
  training.print_figures();
  if (!complete) {
    std::cout << "interrupted: saved in " << chosen.checkpoint_folder().string()
              << "; the same command with --resume --checkpoints " << chosen.checkpoint_folder().string()
              << " continues" << std::endl;
    return 130;
  }
  auto const vectors = training.vectors();
  if (!std::ranges::all_of(vectors, [](float x) { return std::isfinite(x); }))
    throw std::runtime_error("training diverged: try a smaller --learning-rate");
  if (chosen.save_vectors) save_vectors(*chosen.save_vectors, text, vectors, chosen.dimension);
  print_neighbours(chosen, text, vectors);
  return std::cout ? 0 : 1;
}

}  // namespace

/// Exit code 2 for what the user can mend, 130 after Ctrl-C, 1 for any other failure.
int main(int argc, char** argv) {
  auto const failed = [](std::exception const& error, int code) {
    std::cerr << "train_word2vec: " << error.what() << std::endl;
    return code;
  };
  try {
    auto const chosen = parse(argc, argv);
    return chosen ? program(*chosen) : 0;
  } catch (input_error const& error) {
    return failed(error, 2);
  } catch (std::exception const& error) {
    return failed(error, 1);
  }
}
