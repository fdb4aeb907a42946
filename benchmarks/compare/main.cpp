// One contender: told on standard input, line by line, what to do; answers on standard output with one line each.
//   setup NAME=VALUE ...   "ok", with "bytes=N" if a step moves other bytes than the task; or "unsupported WHY"
//   run N                  "seconds S" for N steps
//   check                  "values MEAN SAMPLE ..." of the result, or "values" if there is nothing to compare
//   clear                  "ok": the memory of the task is given back
//   quit
// What goes wrong is answered by "error WHY".
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <oneapi/tbb/global_control.h>

#include "compare/contender.hpp"
#include "support/models.hpp"

namespace {

using namespace pushpull::bench;

constexpr char const* usage =
    "usage: %s NAME [THREADS]   the contender NAME listens on standard input\n"
    "       %s --list           names of all contenders\n"
    "       %s --models         shapes of models: name, then elements of each tensor\n";

class session {
 public:
  session(compare::entry chosen, int threads) : entry_(std::move(chosen)), threads_(threads) {}

  std::string answer(std::string const& line) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "setup") return setup(line.substr(verb.size()));
    if (verb == "clear") return contender_.reset(), "ok";
    if (!contender_) return "error no task was set up";
    if (verb == "check") return check();
    if (long steps = 0; verb == "run" && words >> steps && steps > 0) return run(steps);
    return "error not understood: " + line;
  }

 private:
  std::string setup(std::string const& line) {
    contender_.reset();
    task_ = compare::parse_task(line);
    contender_ = entry_.make(task_, threads_);
    if (contender_->bytes() == 0) return "ok";
    std::ostringstream text;
    text.precision(17);
    text << "ok bytes=" << contender_->bytes();
    return text.str();
  }

  std::string run(long steps) {
    auto const start = std::chrono::steady_clock::now();
    for (long i = 0; i < steps; ++i) contender_->step();
    contender_->finish();
    std::ostringstream text;
    text.precision(9);
    text << "seconds " << std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return text.str();
  }

  /// The mean of all elements; elements 0, n/3 and n-1 of the first, the middle and the last tensor.
  std::string check() {
    std::ostringstream text;
    text.precision(9);
    double sum = 0, count = 0;
    std::size_t const tensors = std::max<std::size_t>(task_.sizes.size(), 1);
    for (std::size_t j = 0; j < tensors; ++j) {
      auto const values = contender_->result(j);
      if (values.empty()) return "values";
      for (float const x : values) sum += static_cast<double>(x);
      count += static_cast<double>(values.size());
      if (j == 0 || j == tensors / 2 || j == tensors - 1)
        text << ' ' << values.front() << ' ' << values[values.size() / 3] << ' ' << values.back();
    }
    std::ostringstream all;
    all.precision(12);
    all << "values " << sum / count << text.str();
    return all.str();
  }

  compare::entry entry_;
  int threads_;
  compare::task task_;
  std::unique_ptr<compare::contender> contender_;
};

void print_models() {
  for (auto const& [name, sizes] : {std::pair{"resnet50", resnet50()}, {"bert_base", bert_base()}, {"gpt2", gpt2()}}) {
    std::cout << name;
    for (auto const size : sizes) std::cout << ' ' << size;
    std::cout << '\n';
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string const name = argc > 1 ? argv[1] : "";
  auto const all = compare::contenders();
  if (name == "--list") {
    for (auto const& e : all) std::cout << e.name << '\n';
    return EXIT_SUCCESS;
  }
  if (name == "--models") return print_models(), EXIT_SUCCESS;
  auto const found = std::find_if(all.begin(), all.end(), [&](auto const& e) { return e.name == name; });
  int threads = 1;
  bool const understood =
      argc <= 2 || std::from_chars(argv[2], argv[2] + std::strlen(argv[2]), threads).ec == std::errc{};
  if (found == all.end() || argc > 3 || !understood || threads < 1) {
    std::fprintf(stderr, usage, argv[0], argv[0], argv[0]);
    return 2;
  }
  tbb::global_control const limit(tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(threads));
  session s(*found, threads);
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    std::string reply;
    try {
      reply = s.answer(line);
    } catch (compare::unsupported const& e) {
      reply = std::string("unsupported ") + e.what();
    } catch (std::exception const& e) {
      reply = std::string("error ") + e.what();
    }
    std::cout << reply << std::endl;
  }
  return EXIT_SUCCESS;
}
