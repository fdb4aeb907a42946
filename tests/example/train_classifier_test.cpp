/// @file
/// The built example, run as a user runs it.
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "example/temporary_folder.hpp"
#include "support/catch.hpp"

namespace {

using pushpull::test::read_file;
using pushpull::test::temporary_folder;

struct outcome {
  int exit_code;
  std::string output, errors;
};

outcome run(std::string const& arguments) {
  temporary_folder const folder;
  auto const output = folder.file("output").string(), errors = folder.file("errors").string();
  int const status =
      std::system(("'" TRAIN_CLASSIFIER "' " + arguments + " >'" + output + "' 2>'" + errors + "'").c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(output), read_file(errors)};
}

auto lines(std::string const& text) { return std::count(text.begin(), text.end(), '\n'); }

double accuracy(outcome const& result) {
  std::string const label = "test accuracy ";
  auto const at = result.output.rfind(label);
  REQUIRE(at != std::string::npos);
  return std::stod(result.output.substr(at + label.size()));
}

std::vector<float> trained_weights(std::string const& arguments) {
  temporary_folder const folder;
  auto const file = folder.file("weights");
  auto const result = run("--quiet --save-weights '" + file.string() + "' " + arguments);
  INFO(result.errors);
  REQUIRE(result.exit_code == 0);
  auto const content = read_file(file);
  std::vector<float> weights(content.size() / sizeof(float));
  std::memcpy(weights.data(), content.data(), weights.size() * sizeof(float));
  return weights;
}

}  // namespace

TEST_CASE("the example learns the digits and says how well", "[example][train_classifier]") {
  auto const updater = GENERATE(as<std::string>{}, "sgd", "momentum", "adam", "adamw");
  auto const result = run("--updater " + updater);
  CHECK(result.exit_code == 0);
  CHECK(accuracy(result) >= 0.95);
  CHECK(result.errors == "");
  CHECK(lines(result.output) == 21);  // one per epoch, and the accuracy
}

TEST_CASE("one, two, three and four devices find the same weights", "[example][train_classifier]") {
  auto const updater = GENERATE(as<std::string>{}, "sgd", "momentum", "adam", "adamw");
  auto const expected = trained_weights("--devices 1 --updater " + updater);
  REQUIRE(expected.size() == 128 * 64 + 128 + 10 * 128 + 10);
  float largest = 0;
  for (float const weight : expected) largest = std::max(largest, std::abs(weight));
  for (std::string const devices : {"2", "3", "4"}) {
    auto const weights = trained_weights("--devices " + devices + " --updater " + updater);
    REQUIRE(weights.size() == expected.size());
    float difference = 0;
    for (std::size_t i = 0; i < weights.size(); ++i)
      difference = std::max(difference, std::abs(weights[i] - expected[i]));
    INFO(devices << " devices");
    CHECK(difference <= 1e-4F * largest);
  }
}

TEST_CASE("two runs with one seed give the same bytes, another seed gives others", "[example][train_classifier]") {
  auto const first = trained_weights("--epochs 2 --seed 5");
  CHECK(trained_weights("--epochs 2 --seed 5") == first);
  CHECK(trained_weights("--epochs 2 --seed 6") != first);
}

TEST_CASE("a quiet run prints the accuracy alone", "[example][train_classifier]") {
  auto const result = run("--quiet --epochs 1");
  CHECK(result.exit_code == 0);
  CHECK(lines(result.output) == 1);
  CHECK(result.output.find("test accuracy 0.") == 0);
  CHECK(result.output.find(" of 360)\n") != std::string::npos);
}

TEST_CASE("what the user can mend ends with one line and exit code 2", "[example][train_classifier]") {
  auto const arguments =
      GENERATE(as<std::string>{}, "--devices 0", "--devices -1", "--devices x", "--batch -3", "--batch 3 --devices 4",
               "--batch 2000", "--epochs 0", "--hidden 0", "--seed -1", "--learning-rate 0", "--learning-rate nan",
               "--updater adagrad", "--dataset mnist", "--device tpu", "--unknown", "stray", "--data-dir /nowhere",
               "--dataset fashion-mnist --data-dir /nowhere", "--save-weights /nowhere/weights");
  auto const result = run(arguments);
  INFO(arguments << ": " << result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output == "");
  CHECK(lines(result.errors) == 1);
  CHECK(result.errors.find("train_classifier: ") == 0);
}

TEST_CASE("training that diverges ends with exit code 1", "[example][train_classifier]") {
  auto const result = run("--updater sgd --learning-rate 1e10");
  CHECK(result.exit_code == 1);
  CHECK(result.errors.find("diverged in epoch 1") != std::string::npos);
}
