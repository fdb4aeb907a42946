/// @file
/// Checkpoints of stores of several ranks: any number of ranks goes on where another number stopped, bit for bit.
#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/checkpoint/save_async.hpp>

#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pushpull/comm/any_communicator.hpp>
#include <pushpull/comm/run_ranks.hpp>
#include <pushpull/pushpull.hpp>

#include "ranks/same_bits.hpp"
#include "support/catch.hpp"
#include "support/expect.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
using pushpull::test::expect;
using pushpull::test::expect_text;
using pushpull::test::message_of;
namespace comm = pushpull::comm;
namespace cp = pushpull::checkpoint;
namespace fs = std::filesystem;
namespace update = pushpull::update;
namespace test = pushpull::test;

constexpr comm::threads_options soon{.deadline = std::chrono::seconds(5)};

/// Keys of an init; their sizes are those of same_bits.hpp, as matrices where two divides them.
template <class T>
class model {
 public:
  model() {
    for (std::size_t i = 0; i < sizes_.size(); ++i) keys_.push_back("key " + std::to_string(i));
  }
  std::vector<std::string> const& keys() const { return keys_; }

  template <class Store>
  void init(Store& store, bool right_values) const {
    std::vector<std::vector<T>> values;
    std::vector<pp::tensor_view<T const>> views;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      values.push_back(test::initial_value<T>(i, sizes_[i]));
      if (!right_values)
        for (T& x : values.back()) x = static_cast<T>(7);
    }
    for (std::size_t i = 0; i < keys_.size(); ++i) views.emplace_back(values[i].data(), shape(i));
    std::size_t const half = keys_.size() / 2;  // the others have no mirrors
    store.init(std::span(keys_).first(half), std::span(views).first(half));
    store.init(std::span(keys_).subspan(half), std::span(views).subspan(half), {.mirrored = false});
  }
  /// Rank 0 has the gradients, the others zeros: the sum does not depend on the number of ranks.
  template <class Store>
  void train(Store& store, int rank, std::size_t first, std::size_t last) const {
    for (std::size_t step = first; step < last; ++step) {
      std::vector<std::vector<T>> gradients;
      std::vector<pp::tensor_view<T const>> views;
      for (std::size_t i = 0; i < keys_.size(); ++i)
        gradients.push_back(rank == 0 ? test::gradient_of<T>(i, step, 0, sizes_[i])
                                      : std::vector<T>(sizes_[i], static_cast<T>(0)));
      for (std::size_t i = 0; i < keys_.size(); ++i) views.emplace_back(gradients[i].data(), shape(i));
      store.push(keys_, views).wait();
    }
  }
  /// Weights and states.
  template <class Store>
  std::vector<std::vector<std::uint64_t>> everything(Store& store) const {
    std::vector<std::vector<std::uint64_t>> result;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      std::vector<T> value(sizes_[i]);
      store.pull(keys_[i], pp::tensor_view<T>(value.data(), shape(i))).wait();
      result.push_back(test::bits_of(value));
      for (auto const& name : store.state_names()) result.push_back(test::bits_of(store.state(keys_[i], name)));
      result.push_back({static_cast<std::uint64_t>(store.steps(keys_[i]))});
    }
    return result;
  }

 private:
  pp::shape shape(std::size_t i) const {
    auto const size = static_cast<std::int64_t>(sizes_[i]);
    return size % 2 == 0 ? pp::shape{2, size / 2} : pp::shape{size};
  }

  std::vector<std::size_t> const sizes_ = test::sizes_of_keys();
  std::vector<std::string> keys_;
};

/// Whether stores have the communicators' own types, or one type for any number of ranks, which halves the stores to compile.
enum class communicators { own_types, one_type };
using enum communicators;

template <communicators Types>
auto given(auto const& c) {
  if constexpr (Types == own_types) {
    return c;
  } else {
    return comm::any_communicator(c);
  }
}

/// Runs f(store, rank) on `ranks` ranks, or in one process of two devices.
template <communicators Types = one_type, class Make, class F>
void on_ranks(int ranks, Make const& make, F const& f) {
  if (ranks == 1) {
    auto store = make(pp::cpu_devices(2), given<Types>(comm::single{}));
    f(store, 0);
    return;
  }
  comm::run_ranks(ranks, soon, [&](comm::threads const& c) {
    auto store = make(pp::cpu_devices(ranks == 3 ? 2 : 1), given<Types>(c));
    f(store, c.rank());
  });
}

/// 12 steps in one process, and 3 steps each on 4, 3, 1 and 7 ranks that hand a checkpoint on.
template <class T, communicators Types = one_type, class Make, class Save, class Load>
void require_resumed(Make const& make, Save const& save, Load const& load) {
  test::temporary_folder const folder;
  model<T> const m;
  std::vector<std::vector<std::uint64_t>> expected;
  {
    auto store = make(pp::cpu_devices(1), given<Types>(comm::single{}));
    m.init(store, true);
    m.train(store, 0, 0, 12);
    expected = m.everything(store);
  }
  std::size_t step = 0;
  for (int const ranks : {4, 3, 1, 7}) {
    INFO("on " << ranks << " ranks");
    on_ranks<Types>(ranks, make, [&](auto& store, int rank) {
      m.init(store, step == 0);
      if (step > 0) load(store, folder.file("run"));
      m.train(store, rank, step, step + 3);
      save(store, folder.file("run"));
      auto const found = m.everything(store);
      if (ranks == 7) expect(found == expected);
    });
    step += 3;
  }
}
template <class T, communicators Types = one_type, class Make>
void require_resumed(Make const& make) {
  require_resumed<T, Types>(
      make, [](auto& store, fs::path const& folder) { cp::save(store, folder); },
      [](auto& store, fs::path const& folder) { cp::load(store, folder); });
}

/// The momentum of the store below after `t` steps, which float has exactly, and what it has added up to.
float momentum_after(std::int64_t t) { return 2 - std::ldexp(2.0F, static_cast<int>(-t)); }
float weight_after(std::int64_t t) { return t == 0 ? 0 : weight_after(t - 1) - momentum_after(t); }

/// A store with one key of 5000 floats, `steps` steps old.
auto small_store(comm::threads const& c, int steps) {
  pp::kv_store store{pp::cpu_devices(1), update::momentum{.learning_rate = 1, .momentum = 0.5}, c, pp::synchronous{}};
  store.init("a", std::vector<float>(5000, 0));
  std::vector<float> const g(5000, c.rank() == 0 ? 1.0F : 0.0F);
  for (int i = 0; i < steps; ++i) store.push("a", g).wait();
  return store;
}
template <class Store>
std::int64_t steps_in(Store& store) {
  std::vector<float> value(5000);
  store.pull("a", value).wait();
  auto const t = store.steps("a");
  expect(value == std::vector<float>(5000, weight_after(t)));
  expect(store.state("a", "momentum_buffer") == std::vector<float>(5000, momentum_after(t)));
  return t;
}

void flip_a_byte(fs::path const& path, std::size_t at) {
  std::string bytes = test::read_file(path);
  bytes.at(at) = static_cast<char>(bytes.at(at) ^ 1);
  test::write_file(path, bytes);
}

}  // namespace

TEST_CASE("any number of ranks goes on where another number stopped: a clipped adam", "[checkpoint][ranks]") {
  require_resumed<float, own_types>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::clip_global_norm(10.0) | update::adam{.learning_rate = 0.1}, c);
  });
}

TEST_CASE("any number of ranks goes on where another number stopped: masters of float", "[checkpoint][ranks]") {
  require_resumed<pp::bfloat16>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<pp::bfloat16>(devices, update::momentum{.learning_rate = 0.1},
                                           pp::element::master<float>{}, c);
  });
}

TEST_CASE("any number of ranks goes on where another number stopped: states of rows and columns",
          "[checkpoint][ranks]") {
  require_resumed<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(devices, update::adafactor{.learning_rate = 0.1}, c);
  });
}

TEST_CASE("any number of ranks goes on where another number stopped: amid a step, with a loss scale",
          "[checkpoint][ranks]") {
  require_resumed<float>([](auto const& devices, auto const& c) {
    return pp::make_kv_store<float>(
        devices,
        update::dynamic_loss_scale{.initial = 3, .growth = 1.1, .interval = 1} | update::adam{.learning_rate = 0.1},
        pp::accumulate{4}, c);
  });
}

TEST_CASE("a checkpoint amid a step holds the sum over all ranks, which other numbers of ranks continue",
          "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  auto const make = [](auto const& devices, auto const& c) {
    pp::kv_store store{devices, update::sgd{.learning_rate = 1}, pp::accumulate{3}, c, pp::synchronous{}};
    store.init("a", std::vector<float>(5000, 0));
    store.init("b", std::vector<float>(3, 0));
    return store;
  };
  auto const push = [](auto& store, float x) {
    store.push("a", std::vector<float>(5000, x)).wait();
    store.push("b", std::vector<float>(3, x)).wait();
  };
  comm::run_ranks(4, soon, [&](comm::threads const& c) {
    auto store = make(pp::cpu_devices(1), given<one_type>(c));
    for (int i = 0; i < 2; ++i) push(store, 1 + static_cast<float>(c.rank()));
    expect(store.gradient_sum("a") == std::vector<float>(5000, 20));
    cp::save(store, folder.file("run"));
    cp::save_async(store, folder.file("background")).wait();
    cp::save_optimizer_states(store, folder.file("states"));
    push(store, 0);
    std::vector<float> weights(5000);
    store.pull("a", weights).wait();
    expect(weights == std::vector<float>(5000, -20));
  });
  for (int const ranks : {1, 3, 4, 7})
    on_ranks(ranks, make, [&](auto& store, int rank) {
      for (char const* const saved : {"run", "background", "states"}) {
        store.accumulate("a", std::vector<float>(5000, 7)).wait();  // forgotten
        store.accumulate("b", std::vector<float>(3, 7)).wait();
        if (saved == std::string("states"))
          cp::load_optimizer_states(store, folder.file(saved));
        else
          cp::load(store, folder.file(saved));
        for (char const* const key : {"a", "b"}) {
          expect(store.micro_batches(key) == 2);
          expect(store.gradient_sum(key) == std::vector<float>(store.shape(key).size(), 20));
        }
      }
      store.set_micro_batches("b", 2, std::vector<float>(3, 100));
      expect(store.gradient_sum("b") == std::vector<float>(3, 100));
      push(store, rank == 0 ? 1.0F : 0.0F);
      std::vector<float> a(5000), b(3);
      store.pull("a", a).wait();
      store.pull("b", b).wait();
      expect(a == std::vector<float>(5000, -21));
      expect(b == std::vector<float>(3, -101));
    });
}

TEST_CASE("a rank waits for nobody in save_async, and its checkpoint is that of the call", "[checkpoint][ranks]") {
  require_resumed<float>(
      [](auto const& devices, auto const& c) {
        return pp::make_kv_store<float>(devices, update::adam{.learning_rate = 0.1}, c);
      },
      [](auto& store, fs::path const& folder) { cp::save_async(store, folder).wait(); },
      [](auto& store, fs::path const& folder) { cp::load(store, folder); });
  test::temporary_folder const folder;
  comm::run_ranks(3, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 1);
    std::vector<cp::async_save> handles;
    for (int i = 0; i < 5; ++i) {
      handles.push_back(cp::save_async(store, folder.file("")));
      store.push("a", std::vector<float>(5000, c.rank() == 0 ? 1.0F : 0.0F)).wait();
      expect((i == 0 || handles[static_cast<std::size_t>(i - 1)].done()));  // one at a time
    }
    for (auto const& handle : handles) handle.wait();
    for (auto const& saved : cp::list(folder.file(""))) {
      cp::load(store, saved.path);
      expect(steps_in(store) == saved.step);
    }
    expect(cp::list(folder.file("")).size() == 5);
    expect(!fs::exists(folder.file("step-5.partial")));
  });
}

TEST_CASE("one file of states: rank 0 writes it, and any number of ranks reads it", "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  comm::run_ranks(4, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 3);
    cp::save_optimizer_states(store, folder.file("states"));
    expect(cp::safetensors_file(folder.file("states")).contains("a/momentum_buffer"));  // on all ranks when it returns
  });
  for (int const ranks : {1, 3, 7})
    comm::run_ranks(ranks, soon, [&](comm::threads const& c) {
      auto store = small_store(c, 0);
      cp::load_optimizer_states(store, folder.file("states"));
      expect(store.steps("a") == 3);
      expect(store.state("a", "momentum_buffer") == std::vector<float>(5000, momentum_after(3)));
    });
  comm::run_ranks(3, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 1);
    auto const path = c.rank() == 1 ? folder.file("missing") : folder.file("states");
    auto const message = message_of<pp::file_error>([&] { cp::load_optimizer_states(store, path); });
    expect_text(message, "missing: cannot open");
    if (c.rank() != 1) expect_text(message, "rank 1: ");
    expect(steps_in(store) == 1);
    auto const nowhere = folder.file("no folder") / "states";
    expect_text(message_of<pp::file_error>([&] { cp::save_optimizer_states(store, nowhere); }),
                "cannot open its folder");
    store.push("a", std::vector<float>(5000, c.rank() == 0 ? 1.0F : 0.0F)).wait();  // the store still works
    expect(steps_in(store) == 2);
  });
}

TEST_CASE("all ranks pass over a damaged checkpoint, to the same older one", "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  auto const run = folder.file("run");
  auto const save_two = [&] {
    fs::remove_all(run);
    comm::run_ranks(3, soon, [&](comm::threads const& c) {
      auto store = small_store(c, 1);
      cp::save(store, run);
      store.push("a", std::vector<float>(5000, c.rank() == 0 ? 1.0F : 0.0F)).wait();
      cp::save(store, run);
    });
  };
  auto const require_step = [&](std::int64_t step) {
    for (int const ranks : {1, 2, 5})
      comm::run_ranks(ranks, soon, [&](comm::threads const& c) {
        auto store = small_store(c, 3);
        cp::load(store, run);
        expect(steps_in(store) == step);
      });
  };
  save_two();
  require_step(2);
  SECTION("a byte of the manifest") {
    auto const size = fs::file_size(run / "step-2" / "manifest.json");
    for (std::size_t const at : {std::size_t{0}, std::size_t{20}, size / 2, size - 4}) {
      INFO(at);
      flip_a_byte(run / "step-2" / "manifest.json", at);
      require_step(1);
      flip_a_byte(run / "step-2" / "manifest.json", at);
    }
    require_step(2);
  }
  SECTION("half of a manifest") {
    auto const text = test::read_file(run / "step-2" / "manifest.json");
    test::write_file(run / "step-2" / "manifest.json", text.substr(0, text.size() / 2));
    require_step(1);
  }
  SECTION("no manifest") {
    fs::remove(run / "step-2" / "manifest.json");
    require_step(1);
  }
  SECTION("a byte of a rank's file") {
    for (int rank = 0; rank < 3; ++rank) {
      auto const file = run / "step-2" / ("rank-" + std::to_string(rank) + ".safetensors");
      flip_a_byte(file, fs::file_size(file) - 100);
      require_step(1);
      flip_a_byte(file, fs::file_size(file) - 100);
    }
    require_step(2);
  }
  SECTION("a missing file") {
    fs::remove(run / "step-2" / "rank-1.safetensors");
    require_step(1);
  }
  SECTION("a short file") {
    fs::resize_file(run / "step-2" / "rank-2.safetensors", 300);
    require_step(1);
  }
  SECTION("none is whole: all ranks say so and keep what they have") {
    fs::remove(run / "step-1" / "rank-0.safetensors");
    fs::remove(run / "step-2" / "rank-1.safetensors");
    comm::run_ranks(3, soon, [&](comm::threads const& c) {
      auto store = small_store(c, 3);
      auto const message = message_of<pp::file_error>([&] { cp::load(store, run); });
      expect_text(message, "a whole checkpoint expected, found none; the newest: ");
      expect_text(message, "rank-1.safetensors: cannot open");
      expect(steps_in(store) == 3);
    });
  }
}

TEST_CASE("ranks that disagree about a folder or a step all get an error that names both", "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  comm::run_ranks(3, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 1);
    auto const path = c.rank() == 2 ? folder.file("other") : folder.file("run");
    auto const names_both = [&](auto const& call) {
      auto const message = message_of<pp::invalid_argument>(call);
      for (char const* const part : {"ranks disagree: rank 0 came with", "run", "other"}) expect_text(message, part);
    };
    names_both([&] { cp::save(store, path); });
    names_both([&] { cp::load(store, path); });
    names_both([&] { (void)cp::save_async(store, path); });
    expect_text(message_of<pp::invalid_argument>([&] { cp::save(store, folder.file("run"), {.step = 5 + c.rank()}); }),
                "rank 0 came with step 5");
    expect(!fs::exists(folder.file("run")));
    cp::save(store, folder.file("run"));  // the store still works
    cp::load(store, folder.file("run"));
    expect(steps_in(store) == 1);
  });
}

TEST_CASE("a file of one rank that does not fit fails the save on all, and older checkpoints stay",
          "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  comm::run_ranks(3, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 1);
    cp::save(store, folder.file("run"));
  });
  rlimit before{};
  expect(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  auto* const handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = before;
  limit.rlim_cur = 12000;  // the last rank has less
  expect(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  std::mutex mutex;
  std::vector<std::string> messages;
  comm::run_ranks(3, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 2);
    auto const add = [&](std::string const& message) {
      std::lock_guard const lock(mutex);
      messages.push_back(message);
    };
    add(message_of<pp::file_error>([&] { cp::save(store, folder.file("run")); }));
    auto const handle = cp::save_async(store, folder.file("run"));
    add(message_of<pp::file_error>([&] { handle.wait(); }));
    add(message_of<pp::file_error>([&] { handle.wait(); }));
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, handler);
  expect(messages.size() == 9);
  for (auto const& message : messages)
    if (message.find("rank 0 did not complete the checkpoint") == message.npos) expect_text(message, "cannot write");
  expect(!fs::exists(folder.file("run") / "step-2"));
  expect(!fs::exists(folder.file("run") / "step-2.partial"));
  comm::run_ranks(2, soon, [&](comm::threads const& c) {
    auto store = small_store(c, 0);
    cp::load(store, folder.file("run"));
    expect(steps_in(store) == 1);
  });
}

TEST_CASE("a rank that is killed while it writes leaves the others an error after the deadline",
          "[checkpoint][ranks]") {
  test::temporary_folder const folder;
  auto const other = comm::threads::make(2, soon);
  auto const run = [&](int rank) {
    auto store = small_store(other[static_cast<std::size_t>(rank)], 1);
    auto job = cp::detail::begin_save(store, "save_async", {}, folder.file("run"), {});
    if (rank == 1) return;  // as if it was killed
    cp::detail::background_save lead(std::move(job), std::chrono::milliseconds(100));
    expect_text(message_of<pp::file_error>([&] { lead.run(); }), "waited in vain for the file of rank 1");
    expect(cp::list(folder.file("run")).empty());
    expect(!fs::exists(folder.file("run") / "step-1.partial"));
  };
  std::thread killed(run, 1);
  run(0);
  killed.join();
}
