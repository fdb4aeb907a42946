/// @file
/// Callbacks, told of the events of runs that are made up.
#include <cmath>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <pushpull/train/callbacks/checkpoint_every.hpp>
#include <pushpull/train/callbacks/early_stopping.hpp>
#include <pushpull/train/callbacks/history.hpp>
#include <pushpull/train/callbacks/progress_bar.hpp>
#include <pushpull/train/callbacks/speedometer.hpp>
#include <pushpull/train/monitor.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using namespace pushpull;
using namespace pushpull::train;
using namespace pushpull::train::callbacks;

namespace {

/// A metric whose value says how often it was read and reset.
struct fake_metric {
  std::vector<metric_value> now = {{"loss", 0.5}};
  mutable int reads = 0;
  int resets = 0;
  std::vector<metric_value> values() const {
    ++reads;
    return now;
  }
  std::vector<metric_value> global_values() const { return now; }
  void reset_local() { ++resets; }
};

/// Tells a callback of a run, batch by batch; its clock is set by hand.
struct fake_run {
  std::int64_t epochs = 3, batches = 4, samples = 10;
  fake_metric metric{};
  training_control control{};
  double time = 0;
  std::optional<double> learning_rate{};

  clock_function clock() {
    return [this] { return time; };
  }
  template <class C>
  void batch(C& callback, std::int64_t epoch, std::int64_t number) {
    metric_reader const reader(metric);
    callback.on_batch_end(batch_end{epoch, epochs, number, batches, samples, reader, control});
  }
  template <class C>
  void end_epoch(C& callback, std::int64_t epoch, std::vector<metric_value> const& training,
                 std::vector<metric_value> const& validation = {}) {
    callback.on_epoch_end(epoch_end{epoch, epochs, batches * samples, 2, training, validation, learning_rate, control});
  }
};

}  // namespace

TEST_CASE("C11.1: a speedometer starts its clock at the first batch and writes at multiples of `frequent`",
          "[train][callbacks]") {
  fake_run run;
  std::ostringstream out;
  speedometer speed({.frequent = 2, .out = &out, .clock = run.clock()});
  for (std::int64_t batch = 0; batch < 5; ++batch) {
    run.batch(speed, 0, batch);
    run.time += 0.5;
  }
  CHECK(out.str() ==
        "epoch 0  batches 0-2  20.0 samples/s  loss 0.500000\nepoch 0  batches 2-4  20.0 samples/s  loss 0.500000\n");
  CHECK(run.metric.resets == 2);
  CHECK(run.metric.reads == 2);
  out.str("");
  run.time += 100;
  run.batch(speed, 1, 0);  // the counter went backwards
  CHECK(out.str().empty());
  run.batch(speed, 1, 1);
  run.batch(speed, 1, 2);
  CHECK(out.str() == "epoch 1  batches 0-2  inf samples/s  loss 0.500000\n");
  speedometer whole({.frequent = 2, .auto_reset = false, .out = &out, .clock = run.clock()});
  out.str("");
  run.metric.resets = 0;
  for (std::int64_t batch = 0; batch < 5; ++batch, ++run.time) run.batch(whole, 0, batch);
  CHECK(out.str() ==
        "epoch 0  batches 0-2  10.0 samples/s  loss 0.500000\nepoch 0  batches 0-4  10.0 samples/s  loss 0.500000\n");
  CHECK(run.metric.resets == 0);
  CHECK_THROWS_AS(speedometer({.frequent = 0}), invalid_argument);
}

TEST_CASE("C11.2: a progress bar counts batches from 1, so it reaches 100%", "[train][callbacks]") {
  fake_run run;
  std::ostringstream out;
  progress_bar bar({.style = progress_style::bar, .length = 10, .interval = 0, .out = &out, .clock = run.clock()});
  bar.on_begin({0, 3});
  std::vector<std::string> drawn;
  for (std::int64_t batch = 0; batch < 4; ++batch) {
    run.time += 1;
    out.str("");
    run.batch(bar, 0, batch);
    drawn.push_back(out.str());
  }
  CHECK(drawn[0] == "\repoch 1/3  [===       ]  25%  loss 0.5000  10 samples/s  ETA 0:11\x1b[K");
  CHECK(drawn[1] == "\repoch 1/3  [=====     ]  50%  loss 0.5000  10 samples/s  ETA 0:10\x1b[K");
  CHECK(drawn[3] == "\repoch 1/3  [==========] 100%  loss 0.5000  10 samples/s  ETA 0:08\x1b[K");
  CHECK(percent_of(1, 3) == 34);
  CHECK(clock_text(59.6) == "1:00");
  CHECK(clock_text(3 * 3600 + 5 * 60 + 7) == "3:05:07");
  CHECK(clock_text(std::numeric_limits<double>::infinity()) == "?");
}

TEST_CASE("C11.2: where there is no terminal a progress bar writes a line per epoch, and reads no metric",
          "[train][callbacks]") {
  fake_run run{.epochs = 12};
  std::ostringstream out;
  progress_bar bar({.out = &out, .clock = run.clock()});  // automatic
  bar.on_begin({0, 12});
  for (std::int64_t batch = 0; batch < 4; ++batch) run.batch(bar, 0, batch);
  CHECK(run.metric.reads == 0);
  CHECK(out.str().empty());
  run.end_epoch(bar, 0, {{"loss", 0.25}, {"accuracy", 0.5}}, {{"accuracy", 0.75}});
  CHECK(out.str() == "epoch  1/12  loss 0.2500  accuracy 0.5000  20 samples/s  validation accuracy 0.7500\n");
  progress_bar quiet({.style = progress_style::quiet, .out = &out});
  run.end_epoch(quiet, 1, {{"loss", 1}});
  CHECK(out.str().find("epoch  2") == std::string::npos);
}

TEST_CASE("A6.9, C11.3: checkpoints are saved every period of epochs, and at the end if the last was not",
          "[train][callbacks]") {
  fake_run run{.epochs = 5};
  auto const saved_of = [&](std::int64_t period, std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> saved;
    checkpoint_every callback(period, [&](std::int64_t epochs) { saved.push_back(epochs); });
    callback.on_begin({first, last});
    for (std::int64_t epoch = first; epoch < last; ++epoch) run.end_epoch(callback, epoch, {});
    callback.on_end({last, last, run.control});
    return saved;
  };
  using numbers = std::vector<std::int64_t>;
  CHECK(saved_of(2, 0, 5) == numbers{2, 4, 5});
  CHECK(saved_of(2, 0, 4) == numbers{2, 4});
  CHECK(saved_of(1, 0, 3) == numbers{1, 2, 3});
  CHECK(saved_of(0, 0, 2) == numbers{1, 2});  // as a period of 1
  CHECK(saved_of(-1, 0, 5) == numbers{5});
  CHECK(saved_of(3, 2, 5) == numbers{3, 5});
  CHECK(saved_of(3, 4, 4).empty());
  std::vector<std::int64_t> stopped;
  checkpoint_every amid(2, [&](std::int64_t epochs) { stopped.push_back(epochs); });
  amid.on_begin({0, 5});
  run.batch(amid, 0, 0);
  run.end_epoch(amid, 0, {});
  run.batch(amid, 1, 0);
  amid.on_end({1, 5, run.control});  // amid epoch 1
  CHECK(stopped.empty());
  struct {
    std::vector<std::string> calls;
    void save_checkpoint(std::string const& prefix, std::int64_t epochs) {
      calls.push_back(prefix + std::to_string(epochs));
    }
  } module;
  auto each = save_module_every(module, "run", 2);
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) run.end_epoch(each, epoch, {});
  CHECK(module.calls == std::vector<std::string>{"run2", "run4"});
}

TEST_CASE("C11.3: a logger of the metric includes batch 0", "[train][callbacks]") {
  fake_run run;
  std::ostringstream out;
  log_train_metric const log(2, true, out);
  for (std::int64_t batch = 0; batch < 4; ++batch) run.batch(log, 1, batch);
  CHECK(out.str() == "epoch 1  batch 0  loss 0.5\nepoch 1  batch 2  loss 0.5\n");
  CHECK(run.metric.resets == 2);
  std::ostringstream rates;
  log_learning_rate const rate(rates);
  run.end_epoch(rate, 0, {});
  run.learning_rate = 0.01;
  run.end_epoch(rate, 1, {});
  CHECK(rates.str() == "epoch 1  learning rate 0.01\n");
}

TEST_CASE("A6.8: early stopping waits for `patience` epochs without improvement", "[train][callbacks]") {
  auto const stopped_after = [](early_stopping_options options, std::vector<double> const& losses, double seconds = 0) {
    fake_run run;
    options.clock = run.clock();
    early_stopping stop(options);
    stop.on_begin({0, 100});
    for (std::size_t epoch = 0; epoch < losses.size(); ++epoch) {
      run.time += seconds;
      std::vector<metric_value> const values{{"other", 1}, {"loss", losses[epoch]}};
      run.end_epoch(stop, static_cast<std::int64_t>(epoch), options.validation ? std::vector<metric_value>{} : values,
                    options.validation ? values : std::vector<metric_value>{});
      if (run.control.stopped()) return static_cast<int>(epoch);
    }
    return -1;
  };
  std::vector<double> const rising_and_falling{10, 12, 11, 13, 12, 14, 13};
  auto const previous = improvement_over::previous;
  CHECK(stopped_after({.patience = 3}, rising_and_falling) == 3);  // none is better than 10
  CHECK(stopped_after({.reference = previous, .patience = 2}, rising_and_falling) == -1);
  CHECK(stopped_after({.reference = previous, .patience = 1}, rising_and_falling) == 1);
  CHECK(stopped_after({.reference = previous, .patience = 2}, {10, 9, 9, 9}) == 3);
  CHECK(stopped_after({.percent = 10, .patience = 2}, {10, 8.9, 8.1, 8, 7}) == 3);  // 8.1 is 9% better than 8.9
  CHECK(stopped_after({.patience = 2, .min_epochs = 6}, {1, 1, 1, 1, 1, 1, 1}) == 5);
  CHECK(stopped_after({.objective = 0.5}, {3, 2, 1, 0.4, 0.3}) == 3);
  CHECK(stopped_after({.larger_is_better = true, .patience = 2}, {1, 2, 3, 3, 2.5}) == 4);
  CHECK(stopped_after({.max_seconds = 5}, {6, 5, 4, 3, 2, 1}, 2) == 2);
  CHECK(stopped_after({.validation = false, .patience = 2}, {std::nan(""), std::nan(""), 1}) == 1);
  CHECK_THROWS_AS(early_stopping({.patience = 0}), invalid_argument);
  fake_run run;
  early_stopping stop;
  CHECK(test::message_of([&] { run.end_epoch(stop, 0, {{"loss", 1}}); }) ==
        "early_stopping: no validation value \"loss\"");
  run.control.stop("one");
  run.control.stop("two");
  CHECK(run.control.reason() == "one");
}

TEST_CASE("A6.9: a loss that is no number is an error that names the epoch", "[train][callbacks]") {
  fake_run run;
  divergence const watch("loss", 2);
  run.end_epoch(watch, 0, {{"loss", 1e30}});
  CHECK(test::message_of<diverged>([&] { run.end_epoch(watch, 3, {{"loss", std::nan("")}}); }) ==
        "training diverged in epoch 3: loss is nan");
  CHECK_THROWS_AS(run.end_epoch(watch, 0, {{"loss", std::numeric_limits<double>::infinity()}}), diverged);
  run.metric.now = {{"loss", std::nan("")}};
  run.batch(watch, 0, 0);
  CHECK_THROWS_AS(run.batch(watch, 0, 1), diverged);
}

TEST_CASE("a history writes CSV and JSON lines, epoch by epoch, and goes on where a run resumes",
          "[train][callbacks]") {
  test::temporary_folder const folder;
  fake_run run{.learning_rate = 0.5};
  for (std::string const name : {"run.jsonl", "run.csv"}) {
    auto const path = folder.file(name);
    bool const csv = name == "run.csv";
    std::string const header = csv ? "epoch,seconds,samples_per_second,learning_rate,loss,validation loss\n" : "";
    auto const line = [&](int epoch, std::string const& loss) {
      auto const number = std::to_string(epoch);
      return csv ? number + ",2.0,20.0,0.5," + loss + ",0.25\n"
                 : "{\"epoch\":" + number +
                       ",\"seconds\":2.0,\"samples_per_second\":20.0,\"learning_rate\":0.5,\"loss\":" +
                       (loss.empty() ? "null" : loss) + ",\"validation loss\":0.25}\n";
    };
    history figures(path);
    figures.on_begin({0, 3});
    CHECK(test::read_file(path).empty());
    run.end_epoch(figures, 0, {{"loss", 1.5}}, {{"loss", 0.25}});
    run.end_epoch(figures, 1, {{"loss", std::nan("")}}, {{"loss", 0.25}});
    CHECK(test::read_file(path) == header + line(0, "1.5") + line(1, ""));
    CHECK(figures.records().size() == 2);
    std::ofstream(path, std::ios::app) << "{\"epo";  // the process was killed
    history resumed(path);
    resumed.on_begin({1, 3});
    run.end_epoch(resumed, 1, {{"loss", 3.0}}, {{"loss", 0.25}});
    CHECK(test::read_file(path) == header + line(0, "1.5") + line(1, "3.0"));
    history again(path);
    again.on_begin({0, 3});
    CHECK(test::read_file(path).empty());
  }
  test::write_file(folder.file("other.txt"), "not a history\n");
  CHECK_THROWS_AS(history(folder.file("other.txt")).on_begin({1, 2}), file_error);
  CHECK_THROWS_AS(history("/nowhere/run.csv").on_begin({0, 2}), file_error);
}

TEST_CASE("A6.7: a list calls each callback's events in order, and borrows those in std::ref", "[train][callbacks]") {
  std::string told;
  struct told_of_batches {
    std::string& to;
    void on_batch_end(batch_end const& e) { to += 'b' + std::to_string(e.batch); }
  };
  struct told_of_all {
    std::string& to;
    void on_begin(training_begin const&) { to += "begin"; }
    void on_batch_end(batch_end const&) { to += 'B'; }
    void on_validation_batch_end(batch_end const&) { to += 'v'; }
    void on_epoch_end(epoch_end const&) { to += 'e'; }
    void on_end(training_end const&) { to += "end"; }
  };
  fake_run run;
  history borrowed;
  callback_list const list{told_of_batches{told}, std::ref(borrowed), told_of_all{told}};
  list.on_begin({0, 1});
  run.batch(list, 0, 3);
  metric_reader const reader(run.metric);
  list.on_validation_batch_end(batch_end{0, 1, 0, std::nullopt, 1, reader, run.control});
  run.end_epoch(list, 0, {});
  list.on_end({1, 1, run.control});
  CHECK(told == "beginb3Bveend");
  CHECK(borrowed.records().size() == 1);
  static_assert(!Callback<int> && Callback<told_of_batches>);
  auto const copy = list;
  run.batch(copy, 0, 5);
  CHECK(told == "beginb3Bveendb5B");
}

TEST_CASE("Ctrl-C ends a run after its batch, and the former action comes back", "[train][callbacks]") {
  fake_run run;
  auto const before = std::signal(SIGINT, SIG_IGN);
  {
    stop_on_signal const interrupt;
    run.batch(interrupt, 0, 0);
    CHECK(!run.control.stopped());
    std::raise(SIGINT);
    CHECK(interrupt.stopped());
    run.batch(interrupt, 0, 1);
    CHECK(run.control.reason() == "interrupted");
  }
  CHECK(std::signal(SIGINT, before) == SIG_IGN);
  CHECK(!stop_on_signal().stopped());
}

TEST_CASE("C12: a monitor observes every interval of passes, the names of its pattern", "[train][monitor]") {
  std::vector<float> const values{3, 4, 0, 0};
  tensor_view const a(values.data(), shape{2, 2});
  monitor watch({.interval = 2, .pattern = "fc", .sort = true});
  CHECK(watch.toc().empty());
  for (std::int64_t step = 1; step <= 4; ++step) {
    watch.tic();
    CHECK(watch.active() == (step % 2 == 1));
    watch.tap("fc2", a);
    watch.tap("a.fc", a);
    watch.tap("fc1", tensor_view(values.data(), shape{1}));
    auto const records = watch.toc();
    if (step % 2 == 0) {
      CHECK(records.empty());
      continue;
    }
    REQUIRE(records.size() == 2);
    CHECK(records[0].name == "fc1");
    CHECK(records[0].text() == "3");
    CHECK(records[1].step == step);
    CHECK(records[1].statistic == std::vector<double>{2.5});
    CHECK(watch.toc().empty());
  }
  monitor minmax({.statistic = [](std::vector<double> const& x) { return std::vector<double>{x.front(), x.back()}; }});
  minmax.tic();
  minmax.tap("z", a);
  minmax.tap("y", a);
  auto const records = minmax.toc();
  CHECK(records.at(0).name == "z");
  CHECK(records[0].text() == "[3, 0]");
  CHECK_THROWS_AS(monitor({.interval = 0}), invalid_argument);
}
