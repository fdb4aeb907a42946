/// @file
/// A character-level recurrent network over buckets of lengths: each batch has lines of one bucket, whose executors unroll the
/// network over that many places. All buckets share the parameters.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <pushpull/pushpull.hpp>
#include <pushpull/train/bucketing_module.hpp>
#include <pushpull/train/callbacks/checkpoint_every.hpp>
#include <pushpull/train/callbacks/early_stopping.hpp>
#include <pushpull/train/callbacks/progress_bar.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/initializers/xavier.hpp>
#include <pushpull/train/metrics/classification.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "executor.hpp"
#include "lines.hpp"
#include "options.hpp"

namespace {

using namespace train_bucketing;
namespace callbacks = pp::train::callbacks;
using network = pp::train::bucketing_module<gru_factory>;

/// Saves after each epoch, and where a signal ends the run, under the number of steps that were made.
struct save_steps {
  network& net;
  std::string prefix;
  std::int64_t steps_before = 0;  // of the epoch in which the run was resumed
  std::int64_t resumed_epoch = 0;

  void on_batch_end(pp::train::batch_end const& e) const {
    if (e.control.stopped()) save(e.epoch * *e.batches + (e.epoch == resumed_epoch ? steps_before : 0) + e.batch + 1);
  }
  void save(std::int64_t steps) const { net.save_checkpoint(prefix, steps); }
};

/// A text that the network writes: each character drawn by its probability, sharpened by the temperature.
std::string written_by(network const& net, gru_shape shape, alphabet const& symbols, options const& chosen) {
  auto const trained = net.params();
  std::vector<std::vector<float>> values;
  for (auto const& name : gru_factory{shape}.param_names())
    values.push_back(pp::to_vector(trained.args.find(name)->second));
  gru<float> one{shape};
  std::mt19937_64 random{chosen.seed};
  std::string text;
  std::vector<std::uint8_t> line{alphabet::end};
  auto const longest = static_cast<std::size_t>(chosen.buckets.back());
  while (text.size() < chosen.sample) {
    std::vector<float> probability(line.size() * shape.symbols);
    one.forward(pointers_to<float const>(values), line, 1, probability.data());
    std::vector<double> weights(probability.end() - static_cast<std::ptrdiff_t>(shape.symbols), probability.end());
    for (double& w : weights) w = std::pow(w, 1 / chosen.temperature);
    weights[alphabet::padding] = 0;
    auto const drawn = std::discrete_distribution<std::size_t>(weights.begin(), weights.end())(random);
    text += symbols.character(drawn);
    line.push_back(static_cast<std::uint8_t>(drawn));
    if (drawn == alphabet::end || line.size() == longest) line = {alphabet::end};
  }
  return text;
}

int program(options chosen) {
  auto text = example_text::read_text(chosen.text);
  if (chosen.characters > 0) text.resize(std::min(text.size(), chosen.characters));
  std::sort(chosen.buckets.begin(), chosen.buckets.end());
  auto const lines = parts_of(text, static_cast<std::size_t>(chosen.buckets.back()) - 1, !chosen.text);
  if (lines.size() < 20) throw input_error{"--text: at least 20 lines expected, got " + std::to_string(lines.size())};
  alphabet const symbols{text};
  std::vector<std::string_view> held_out, learned;  // every twentieth line is held out
  for (std::size_t i = 0; i < lines.size(); ++i) (i % 20 == 19 ? held_out : learned).push_back(lines[i]);
  bucketed_lines source{learned, symbols, chosen.buckets, chosen.batch, chosen.seed};
  bucketed_lines validation{held_out, symbols, chosen.buckets, chosen.batch, chosen.seed};
  if (!chosen.quiet)
    std::cout << lines.size() << " lines of " << symbols.size() - 2 << " different characters, " << source.batches()
              << " batches per epoch" << std::endl;

  gru_shape const shape{symbols.size(), chosen.hidden};
  network net{[&](pp::train::bucket_key) { return gru_factory{shape}; },
              chosen.buckets.back(),
              pp::cpu_devices(chosen.devices),
              {.allow_idle = true, .seed = chosen.seed}};
  std::int64_t first_epoch = 0, steps_before = 0;
  if (chosen.resume) {
    auto const steps = pp::train::newest_checkpoint(chosen.prefix());
    if (!steps) throw input_error{"--resume: there is no checkpoint " + chosen.prefix() + "-0001.params or later"};
    net.load_checkpoint(chosen.prefix(), *steps);
    first_epoch = *steps / source.batches();
    steps_before = *steps % source.batches();
    source.seek({first_epoch, steps_before});
  }
  net.bind_to(source);
  if (!net.is_initialized()) net.init_params(pp::train::initializers::by_suffix{pp::train::initializers::xavier{}});
  net.init_optimizer(pp::update::clip_global_norm{chosen.max_norm} |
                     pp::update::adam{.learning_rate = chosen.learning_rate});

  save_steps const saver{net, chosen.prefix(), steps_before, first_epoch};
  callbacks::stop_on_signal const interrupt;
  pp::train::callback_list calls;
  calls.add(callbacks::progress_bar{
      {.style = chosen.quiet ? callbacks::progress_style::quiet : callbacks::progress_style::automatic}});
  calls.add(callbacks::divergence{"perplexity"});
  calls.add(std::ref(interrupt));
  calls.add(std::ref(saver));
  if (chosen.checkpoints)
    calls.add(callbacks::checkpoint_every{1, [&](std::int64_t epochs) { saver.save(epochs * source.batches()); }});
  pp::train::metrics::perplexity<> metric{alphabet::padding};
  auto const result =
      net.fit(source, metric, {.epochs = chosen.epochs, .begin_epoch = first_epoch, .callbacks = calls}, &validation);
  if (!result.stopped.empty()) {
    std::cout << "interrupted: saved as " << chosen.prefix() << "-*; the same command with --resume --checkpoints "
              << chosen.prefix() << " continues" << std::endl;
    return 130;
  }
  std::cout << "perplexity " << net.score(validation, metric).at(0).value << " on " << held_out.size()
            << " lines that were held out" << std::endl;
  if (chosen.sample > 0) std::cout << '\n' << written_by(net, shape, symbols, chosen) << std::endl;
  return std::cout ? 0 : 1;
}

}  // namespace

/// Exit code 2 for what the user can mend, 130 after Ctrl-C, 1 for any other failure.
int main(int argc, char** argv) {
  auto const failed = [](std::exception const& error, int code) {
    std::cerr << "train_bucketing: " << error.what() << std::endl;
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
