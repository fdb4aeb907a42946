/// @file
/// The built example train_torch, run as a user runs it. Only where LibTorch is.
#include <cstddef>
#include <string>

#include "example/program.hpp"
#include "support/catch.hpp"

using namespace pushpull::test;

namespace {

double number_after(std::string const& text, std::string const& label) {
  auto const at = text.find(label);
  REQUIRE(at != std::string::npos);
  return std::stod(text.substr(at + label.size()));
}

}  // namespace

TEST_CASE("a store over replicas trains a LibTorch network as torch::optim::AdamW does", "[example][train_torch]") {
  auto const replicas = GENERATE(as<std::string>{}, "1", "2", "3");
  auto const result = run_program(TRAIN_TORCH, "--compare --replicas " + replicas);
  INFO(result.output << result.errors);
  REQUIRE(result.exit_code == 0);
  CHECK(lines(result.output) == 8);
  CHECK(number_after(result.output, "step 20/100  loss ") > number_after(result.output, "step 100/100  loss "));
  CHECK(number_after(result.output, "largest relative difference of losses ") <= 1e-4);
  CHECK(result.output.find("22602 parameters on " + replicas + " replicas: ") != std::string::npos);
}

TEST_CASE("a store trains a transformer with shared weights as torch::optim::AdamW does", "[example][train_torch]") {
  temporary_folder const folder;
  std::string text;
  for (int line = 0; line < 400; ++line) text += std::to_string(line * line) + " is a square.\n";
  auto const file = write_file(folder.file("text"), text);
  auto const result = run_program(
      TRAIN_TORCH, "--compare --model gpt --hidden 16 --layers 1 --context 8 --batch 9 --text '" + file.string() + "'");
  INFO(result.output << result.errors);
  REQUIRE(result.exit_code == 0);
  CHECK(number_after(result.output, "step 20/100  loss ") > number_after(result.output, "step 100/100  loss "));
  CHECK(number_after(result.output, "largest relative difference of losses ") <= 1e-4);
}

TEST_CASE("train_torch learns the digits", "[example][train_torch]") {
  auto const result = run_program(TRAIN_TORCH, "--quiet --epochs 12");
  INFO(result.errors);
  CHECK(result.exit_code == 0);
  CHECK(lines(result.output) == 1);
  CHECK(accuracy(result) >= 0.9);
}

TEST_CASE("train_torch ends with one line and exit code 2 for what the user can mend", "[example][train_torch]") {
  auto const arguments =
      GENERATE(as<std::string>{}, "--replicas 0", "--batch 1", "--batch 2000", "--steps 0", "--dataset mnist",
               "--data-dir /nowhere", "--unknown", "--model gpt --text /nowhere/text", "--model gpt --hidden 6");
  auto const result = run_program(TRAIN_TORCH, arguments);
  INFO(arguments << ": " << result.errors);
  CHECK(result.exit_code == 2);
  CHECK(result.output.empty());
  CHECK((result.errors.find("train_torch: ") == 0 && lines(result.errors) == 1));
}
