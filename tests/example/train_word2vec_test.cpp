/// @file
/// The built example train_word2vec, run as a user runs it.
#include <cstddef>
#include <random>
#include <sstream>
#include <string>

#include "example/program.hpp"
#include "support/catch.hpp"

using namespace pushpull::test;

namespace {

/// Lines of ten words each: all of them fruits, or all of them tools.
std::string fruits_and_tools() {
  std::string const words[2][8] = {{"apple", "pear", "plum", "cherry", "fig", "grape", "quince", "melon"},
                                   {"hammer", "saw", "drill", "file", "plane", "vice", "chisel", "rasp"}};
  std::mt19937 random(5);
  std::string text;
  for (int line = 0; line < 2000; ++line) {
    auto const& topic = words[random() % 2];
    text += std::to_string(line) + ": ";
    for (int i = 0; i < 10; ++i) text += topic[random() % 8] + (i == 9 ? ".\n" : ", ");
  }
  return text;
}

/// A run over that text in a folder of its own.
struct text_run {
  temporary_folder folder;
  std::string text = write_file(folder.file("text"), fruits_and_tools()).string();

  outcome operator()(std::string const& arguments, std::string const& before = "") const {
    return run_program(TRAIN_WORD2VEC,
                       "--text '" + text + "' --dimension 16 --batch 700 --sample 0 --pool 64 " + arguments, before);
  }
  std::string path(std::string const& name) const { return "'" + folder.file(name).string() + "'"; }
};

}  // namespace

TEST_CASE("word2vec puts words that occur together side by side", "[example][train_word2vec]") {
  text_run const run;
  auto const devices = GENERATE(as<std::string>{}, "1", "3");
  auto const result = run("--epochs 3 --words apple,hammer,brick --neighbours 7 --devices " + devices);
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(result.errors.empty());
  std::istringstream lines(result.output);
  for (std::string line; std::getline(lines, line);) {
    for (std::string const word : {"pear", "plum", "cherry", "fig", "grape", "quince", "melon"})
      if (line.find("apple: ") == 0) CHECK(line.find(word) != line.npos);
    for (std::string const word : {"saw", "drill", "file", "plane", "vice", "chisel", "rasp"})
      if (line.find("hammer: ") == 0) CHECK(line.find(word) != line.npos);
  }
  CHECK(result.output.find("20000 words of 16 different ones in 2000 lines\n") == 0);
  CHECK(result.output.find("epoch 3/3  loss ") != std::string::npos);
  CHECK(result.output.find("brick: not in the text often enough\n") != std::string::npos);
  CHECK(result.output.find(" words/s\nrows moved: ") != std::string::npos);
}

TEST_CASE("a run of word2vec that resumes ends with the vectors of one that was not interrupted",
          "[example][train_word2vec]") {
  text_run const run;
  auto const whole = run("--quiet --epochs 20 --save-vectors " + run.path("whole"));
  REQUIRE(whole.exit_code == 0);
  auto const interrupted =
      run("--epochs 20 --checkpoints " + run.path("run"),
          "sh -c '\"$0\" \"$@\" & p=$!; until ls " + run.folder.file("run").string() +
              "/step-* >/dev/null 2>&1 || ! kill -0 $p; do sleep 0.01; done; kill -INT $p; wait $p'");
  INFO(interrupted.output << interrupted.errors);
  CHECK(interrupted.exit_code == 130);
  CHECK(interrupted.output.find("--resume --checkpoints ") != std::string::npos);
  CHECK(lines(interrupted.output) < 20);
  auto const resumed =
      run("--quiet --epochs 20 --resume --checkpoints " + run.path("run") + " --save-vectors " + run.path("resumed"));
  INFO(resumed.errors);
  REQUIRE(resumed.exit_code == 0);
  CHECK(read_file(run.folder.file("resumed")) == read_file(run.folder.file("whole")));
}

TEST_CASE("word2vec ends with one line and exit code 2 for what the user can mend", "[example][train_word2vec]") {
  text_run const run;
  auto const arguments = GENERATE(as<std::string>{}, "--epochs 0", "--devices 0", "--batch 2 --devices 3",
                                  "--min-count 100000", "--text /nowhere/text", "--unknown", "--sample 2");
  auto const result = run("--quiet " + arguments);
  INFO(arguments << ": " << result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output.empty());
  CHECK(result.errors.find("train_word2vec: ") == 0);
}
