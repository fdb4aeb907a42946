/// @file
/// The built example, run as a user runs it.
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "example/program.hpp"
#include "support/catch.hpp"

using namespace pushpull::test;

TEST_CASE("the example learns the digits and says how well", "[example][train_classifier]") {
  auto const updater = GENERATE(as<std::string>{}, "sgd", "momentum", "adam", "adamw", "adam8");
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
  for (std::string const devices : {"2", "3", "4"}) {
    auto const weights = trained_weights("--devices " + devices + " --updater " + updater);
    INFO(devices << " devices");
    CHECK(relative_difference(weights, expected) <= 1e-4F);
  }
}

TEST_CASE("every rule finds other weights", "[example][train_classifier]") {
  std::vector<std::vector<float>> found;
  for (std::string const updater : {"sgd", "momentum", "adam", "adamw"}) {
    auto const weights = trained_weights("--epochs 1 --learning-rate 0.01 --updater " + updater);
    for (auto const& others : found) CHECK(relative_difference(weights, others) > 1e-3F);
    found.push_back(weights);
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
               "--dataset fashion-mnist --data-dir /nowhere", "--save-weights /nowhere/weights", "--resume",
               "--resume --checkpoints /nowhere/run", "--trace /nowhere/trace");
  auto const result = run(arguments);
  INFO(arguments << ": " << result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output == "");
  CHECK(lines(result.errors) == 1);
  CHECK(result.errors.find("train_classifier: ") == 0);
}

TEST_CASE("without a GPU --device cuda says so in one line and ends with exit code 2", "[example][train_classifier]") {
  auto const result = run("--device cuda", "CUDA_VISIBLE_DEVICES=");  // hides the GPUs of a machine that has any
  INFO(result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output == "");
  CHECK(lines(result.errors) == 1);
  CHECK(result.errors.find("train_classifier: --device: cuda ") == 0);
}

TEST_CASE("training that diverges ends with exit code 1", "[example][train_classifier]") {
  auto const result = run("--updater sgd --learning-rate 1e10");
  CHECK(result.exit_code == 1);
  CHECK(result.errors.find("diverged in epoch 1") != std::string::npos);
}

TEST_CASE("a run that is killed after any epoch, and resumed, ends with the weights of one that was not",
          "[example][train_classifier]") {
  auto const devices = GENERATE(as<std::string>{}, "1", "2", "4");
  auto const updater = GENERATE(as<std::string>{}, "momentum", "adam");
  auto const arguments = " --updater " + updater + " --devices " + devices;
  auto const expected = trained_weights("--epochs 6" + arguments);
  for (int const epoch : {1, 3, 5}) {
    temporary_folder const folder;
    auto const prefix = folder.file("run").string();
    auto const file = [&](int number, std::string const& ending) {
      auto const digits = std::to_string(number);
      return prefix + "-" + std::string(4 - digits.size(), '0') + digits + ending;
    };
    auto const killed = run("--epochs 999 --checkpoints '" + prefix + "'" + arguments,
                            "sh -c '\"$0\" \"$@\" & p=$!; until [ -e " + file(epoch, ".params") +
                                " ] || ! kill -0 $p; do :; done; kill -KILL $p; wait $p'");
    INFO(killed.output << killed.errors);
    REQUIRE(killed.exit_code == 137);
    for (int later = epoch + 1; later <= 999; ++later)  // it may have come further than that epoch
      for (std::string const ending : {".params", ".states"}) std::filesystem::remove(file(later, ending));
    CHECK(trained_weights("--epochs 6 --resume --checkpoints '" + prefix + "'" + arguments) == expected);
  }
}

TEST_CASE("a run resumes on another number of devices, within rounding", "[example][train_classifier]") {
  auto const expected = trained_weights("--epochs 4 --devices 4");
  for (std::string const devices : {"1", "3"}) {
    temporary_folder const folder;
    auto const checkpoints = " --checkpoints '" + folder.file("run").string() + "'";
    trained_weights("--epochs 2 --devices 4" + checkpoints);
    auto const weights = trained_weights("--epochs 4 --resume --devices " + devices + checkpoints);
    CHECK(relative_difference(weights, expected) <= 1e-4F);
  }
}

TEST_CASE("a trace of a run names the keys of each operation and the bytes of each pass",
          "[example][train_classifier]") {
  temporary_folder const folder;
  auto const path = folder.file("trace.json");
  REQUIRE(run("--quiet --epochs 1 --trace '" + path.string() + "'").exit_code == 0);
  auto const trace = nlohmann::json::parse(read_file(path));
  std::map<std::string, std::vector<std::string>> open;  // by track
  std::map<std::string, int> begun;
  double time = 0;
  for (auto const& e : trace.at("traceEvents")) {
    std::string const phase = e.at("ph"), name = e.at("name");
    if (phase == "M") continue;
    CHECK(e.at("ts").get<double>() >= time);
    time = e.at("ts");
    auto& track = open[e.at("pid").dump() + "/" + e.at("tid").dump()];
    if (phase == "E") {
      REQUIRE((!track.empty() && track.back() == name));
      track.pop_back();
      continue;
    }
    REQUIRE(phase == "B");
    track.push_back(name);
    ++begun[name];
    auto const& details = e.at("args");
    if (e.at("cat") == "pass") CHECK((details.at("bytes") >= 0 && details.at("device") >= 0));
    if (name == "update") CHECK(details.at("keys") == "fc1.weight, fc1.bias, fc2.weight and 1 more");
  }
  for (auto const& [track, names] : open) CHECK(names.empty());
  CHECK(begun["update"] == 1437 / 64);
  CHECK(begun["pass"] >= 4 * begun["update"]);
}

TEST_CASE("the figures of each epoch go to a history, which a resumed run continues", "[example][train_classifier]") {
  temporary_folder const folder;
  auto const path = folder.file("history.csv");
  auto const files = " --history '" + path.string() + "' --checkpoints '" + folder.file("run").string() + "'";
  REQUIRE(run("--epochs 2" + files).exit_code == 0);
  REQUIRE(run("--epochs 5 --resume" + files).exit_code == 0);
  auto const text = read_file(path);
  CHECK(lines(text) == 6);
  CHECK(text.find("epoch,seconds,samples_per_second,learning_rate,loss,accuracy\n0,") == 0);
  CHECK(text.find("\n4,") != std::string::npos);
}
