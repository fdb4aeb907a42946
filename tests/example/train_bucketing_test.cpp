/// @file
/// The recurrent network's gradients against central differences, and the built example train_bucketing, run as a user runs it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <train_bucketing/gru.hpp>

#include "example/program.hpp"
#include "support/catch.hpp"
#include "support/deviation.hpp"

using namespace pushpull::test;

namespace {

using train_bucketing::gru;
using train_bucketing::gru_pointers;
using train_bucketing::gru_shape;

/// All parameters, or all gradients, one after the other.
template <class P, class T>
gru_pointers<P> pointers_of(gru_shape s, std::vector<T>& values) {
  std::size_t const sizes[] = {s.symbols * 3 * s.hidden, 3 * s.hidden * s.hidden, s.hidden, s.symbols * s.hidden,
                               s.symbols};
  std::size_t sum = 0;
  for (std::size_t const size : sizes) sum += size;
  values.resize(sum);
  P* at[5] = {values.data()};
  for (std::size_t i = 1; i < 5; ++i) at[i] = at[i - 1] + sizes[i - 1];
  return {at[0], at[1], at[2], at[3], at[4]};
}

/// Lines that repeat: each follows from its first word.
std::string rhymes() {
  std::string const lines[] = {"one two three four five six", "the cat sat on the mat", "a rose is a rose is a rose",
                               "no"};
  std::string text;
  std::mt19937 random(3);
  for (int i = 0; i < 400; ++i) text += lines[random() % 4] + "\n";
  return text;
}

struct text_run {
  temporary_folder folder;
  std::string text = write_file(folder.file("text"), rhymes()).string();

  outcome operator()(std::string const& arguments, std::string const& before = "") const {
    return run_program(TRAIN_BUCKETING, "--text '" + text + "' --hidden 24 --buckets 12,32 --batch 16 " + arguments,
                       before);
  }
  std::string path(std::string const& name) const { return "'" + folder.file(name).string() + "'"; }
};

}  // namespace

TEST_CASE("gradients of the recurrent network agree with central differences", "[example][train_bucketing]") {
  std::size_t const rows = GENERATE(as<std::size_t>{}, 1, 3), length = GENERATE(as<std::size_t>{}, 1, 9);
  gru_shape const shape{6, 4};
  std::vector<double> parameters, gradients;
  auto const p = pointers_of<double const>(shape, parameters);
  auto const g = pointers_of<double>(shape, gradients);
  std::mt19937 random(7);
  for (double& x : parameters) x = static_cast<double>(random() % 2001) / 1000 - 1;
  std::fill(gradients.begin(), gradients.end(), std::numeric_limits<double>::quiet_NaN());
  std::vector<std::uint8_t> symbols(rows * length), labels(rows * length);
  for (auto& s : symbols) s = static_cast<std::uint8_t>(random() % 6);
  for (auto& s : labels) s = static_cast<std::uint8_t>(random() % 6);  // 0, padding, counts nothing
  labels[0] = 2;
  std::vector<double> probability(rows * length * 6);
  gru<double> network{shape};
  auto const loss = [&] {
    network.forward(p, symbols, rows, probability.data());
    double sum = 0;
    for (std::size_t i = 0; i < labels.size(); ++i)
      if (labels[i] != 0) sum -= std::log(probability[i * 6 + labels[i]]);
    return sum / static_cast<double>(length);
  };
  loss();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    double sum = 0;
    for (std::size_t k = 0; k < 6; ++k) sum += probability[i * 6 + k];
    REQUIRE(sum == Approx(1));
  }
  network.backward(p, symbols, labels, probability.data(), g);
  double worst = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    double const step = 1e-5, value = parameters[i];
    parameters[i] = value + step;
    double const above = loss();
    parameters[i] = value - step;
    double const below = loss();
    parameters[i] = value;
    worst = pushpull::test::larger_deviation(worst, std::abs(gradients[i] - (above - below) / (2 * step)));
  }
  CHECK(worst < 1e-8);
}

TEST_CASE("the recurrent network learns lines of several lengths", "[example][train_bucketing]") {
  text_run const run;
  auto const devices = GENERATE(as<std::string>{}, "1", "3");
  auto const result = run("--epochs 12 --learning-rate 0.01 --sample 2000 --temperature 0.7 --devices " + devices);
  INFO(result.output << result.errors);
  CHECK(result.exit_code == 0);
  CHECK(result.errors.empty());
  CHECK(result.output.find("400 lines of ") == 0);
  auto const at = result.output.rfind("perplexity ");
  REQUIRE(at != std::string::npos);
  // Four equally likely lines, of 81 characters in all with their ends, need ln 4 each: exp(4 ln 4 / 81) = 1.071.
  CHECK(std::stod(result.output.substr(at + 11)) < 1.2);
  CHECK(result.output.find("the cat sat on the mat\n", at) != std::string::npos);
}

TEST_CASE("a recurrent network that resumes ends with the weights of a run that was not interrupted",
          "[example][train_bucketing]") {
  text_run const run;
  auto const newest = [&](std::string const& name) {
    std::string found;
    for (auto const& entry : std::filesystem::directory_iterator(run.folder.file("").parent_path()))
      if (auto const file = entry.path().string();
          file.find("/" + name + "-") != file.npos && file.ends_with(".params") && file > found)
        found = file;
    REQUIRE(!found.empty());
    return read_file(found);
  };
  REQUIRE(run("--quiet --epochs 12 --sample 0 --checkpoints " + run.path("whole")).exit_code == 0);
  auto const interrupted =
      run("--epochs 12 --checkpoints " + run.path("run"),
          "sh -c '\"$0\" \"$@\" & p=$!; until ls " + run.folder.file("run").string() +
              "-*.params >/dev/null 2>&1 || ! kill -0 $p; do sleep 0.01; done; kill -INT $p; wait $p'");
  INFO(interrupted.output << interrupted.errors);
  REQUIRE(interrupted.exit_code == 130);
  CHECK(interrupted.output.find("--resume --checkpoints ") != std::string::npos);
  REQUIRE(run("--quiet --epochs 12 --sample 0 --resume --checkpoints " + run.path("run")).exit_code == 0);
  CHECK(newest("run") == newest("whole"));
}

TEST_CASE("the recurrent network ends with one line and exit code 2 for what the user can mend",
          "[example][train_bucketing]") {
  text_run const run;
  auto const arguments = GENERATE(as<std::string>{}, "--epochs 0", "--devices 0", "--characters 40",
                                  "--text /nowhere/text", "--unknown", "--resume --checkpoints /nowhere/x");
  auto const result = run("--quiet " + arguments);
  INFO(arguments << ": " << result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output.empty());
  CHECK(result.errors.find("train_bucketing: ") == 0);
}
