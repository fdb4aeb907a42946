/// @file
/// Softmax regression on servers. The process is scheduler, server or worker, as DMLC_ROLE says; without it, it trains alone on
/// the gradients of three workers in step. See run_async.sh.
#include <chrono>
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <pushpull/pushpull.hpp>
#include <pushpull/remote/job.hpp>

#include "softmax.hpp"
#include "train_classifier/load.hpp"

namespace {

namespace pp = pushpull;
using pp::launch::process_role;
using device = pp::cpu_device<>;

struct options {
  std::string mode = "asynchronous";
  std::size_t steps = 300, batch = 32;
  int pause = 0;  // milliseconds of a step, as of a slow machine
  std::string history;
};

/// The accuracy on the test images over time, as CSV.
class history {
 public:
  explicit history(std::string const& path) {
    if (path.empty()) return;
    file_.exceptions(std::ios::failbit | std::ios::badbit);
    try {
      file_.open(path);
      file_ << "epoch,seconds,validation accuracy\n" << std::flush;
    } catch (std::ios::failure const&) {
      throw std::runtime_error("--history: " + path + " cannot be written");
    }
  }
  void add(std::size_t step, double accuracy) {
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    if (file_.is_open()) file_ << step << ',' << seconds << ',' << accuracy << std::endl;
  }

 private:
  std::ofstream file_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

pp::update::momentum rule() { return {.learning_rate = 0.1, .momentum = 0.5}; }

pp::remote::consistency consistency_of(std::string const& mode) {
  if (mode == "rounds") return pp::remote::rounds{.goes_on = true};
  if (mode == "bounded") return pp::remote::bounded{4};
  return pp::remote::asynchronous{};
}

void serve(options const& chosen) {
  pp::kv_store<float, device, pp::update::momentum, pp::reduce::mean, pp::integer_keys> store(pp::cpu_devices(1),
                                                                                              rule());
  pp::remote::run_server(store, {.consistency = consistency_of(chosen.mode)});
}

/// Trains; `store` has the calls of a kv_store.
template <class Store, class Push>
void train(options const& chosen, train_classifier::training_and_test const& data, std::string const& who, Store& store,
           Push const& push) {
  std::vector<float> weights((data.training.features + 1) * train_async::classes);
  store.init("weights", weights);
  store.pull("weights", weights).wait();  // those of now, if this worker is late
  history curve(chosen.history);
  for (std::size_t step = 0; step < chosen.steps; ++step) {
    push(step, weights);
    if (step % 10 == 9) curve.add(step + 1, train_async::accuracy(data.test, weights));
    std::this_thread::sleep_for(std::chrono::milliseconds(chosen.pause));
  }
  std::cout << who << ": accuracy " << train_async::accuracy(data.test, weights) << std::endl;
  if (!std::cout) throw std::runtime_error("standard output cannot be written");
}

void run(options const& chosen) {
  auto const place = pp::launch::environment();
  if (place.role == process_role::scheduler) return pp::remote::run_scheduler(place);
  if (place.role == process_role::server) return serve(chosen);
  auto data = train_classifier::detail::load_digits({});
  train_classifier::center(data);
  std::size_t const size = (data.training.features + 1) * train_async::classes;
  constexpr std::size_t workers = 3;
  if (place.servers > 0) {
    auto store = pp::remote::connect<float>(pp::cpu_devices(1), {}, place);
    auto const rank = static_cast<std::size_t>(store.rank());
    std::vector<float> gradient(size);
    train(chosen, data, "worker " + std::to_string(rank), store, [&](std::size_t step, std::vector<float>& weights) {
      train_async::gradient(data.training, (step * workers + rank) * chosen.batch, chosen.batch, weights, gradient);
      store.pushpull("weights", gradient, weights).wait();
    });
  } else {
    pp::kv_store store(pp::cpu_devices(1), rule(), pp::reduce::mean{});
    std::vector<std::vector<float>> gradients(workers, std::vector<float>(size));
    train(chosen, data, "in step", store, [&](std::size_t step, std::vector<float>& weights) {
      for (std::size_t rank = 0; rank < workers; ++rank)
        train_async::gradient(data.training, (step * workers + rank) * chosen.batch, chosen.batch, weights,
                              gradients[rank]);
      store.pushpull("weights", gradients, weights).wait();
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  options chosen;
  CLI::App app{"Trains softmax regression on servers."};
  app.add_option("--mode", chosen.mode, "of a server: asynchronous, rounds or bounded")
      ->check(CLI::IsMember({"asynchronous", "rounds", "bounded"}));
  app.add_option("--steps", chosen.steps, "of each worker");
  app.add_option("--batch", chosen.batch, "images in a step of a worker")->check(CLI::PositiveNumber);
  app.add_option("--pause", chosen.pause, "milliseconds that a step takes longer")->check(CLI::NonNegativeNumber);
  app.add_option("--history", chosen.history, "a CSV file for the accuracy over time");
  CLI11_PARSE(app, argc, argv);
  try {
    run(chosen);
  } catch (std::exception const& error) {
    std::cerr << "train_async: " << error.what() << '\n';
    return 1;
  }
}
