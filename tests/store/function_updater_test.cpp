/// @file
/// set_updater: a function of whole tensors in the place of a rule.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/counting_device.hpp"

namespace {

namespace pp = pushpull;
using strings = std::vector<std::string>;

/// stored += 2 * received, element by element.
auto const add_twice = [](auto const&, auto const& received, auto const& stored) {
  for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += 2 * pp::convert<float>(received.data()[i]);
};

}  // namespace

TEST_CASE("a function updater gets the key, the sum and what is stored, whole", "[kv_store][set_updater]") {
  for (int const devices : {1, 3})
    for (std::size_t const size : {0, 1, 65, 4099}) {
      pp::kv_store store{pp::cpu_devices(devices)};
      std::vector<float> value(size), gradient(size), out(size), expected(size);
      for (std::size_t i = 0; i < size; ++i) {
        value[i] = static_cast<float>(i);
        gradient[i] = static_cast<float>(i % 7);
        expected[i] = value[i] + 2 * 3 * gradient[i];
      }
      store.init("w", value);
      strings called;
      store.set_updater([&](std::string_view key, auto const& received, auto const& stored) {
        called.emplace_back(key);
        REQUIRE(received.shape() == pp::shape{static_cast<std::int64_t>(size)});
        add_twice(key, received, stored);
      });
      std::vector const sources(3, gradient);
      store.pushpull("w", sources, out).wait();
      REQUIRE(out == expected);
      REQUIRE(called == strings{"w"});
      store.reset_updater();
      store.pushpull("w", sources, out).wait();
      for (std::size_t i = 0; i < size; ++i) expected[i] = 3 * gradient[i];
      REQUIRE(out == expected);
    }
}

TEST_CASE("a function updater is called once per unique key of a list, in the order of registration",
          "[kv_store][set_updater]") {
  pp::kv_store<float, pp::cpu_device<>, pp::integer_keys> store{pp::cpu_devices(2)};
  std::vector<std::int64_t> const keys{7, 3, 7}, all{3, 7};
  std::vector const gradients{std::vector<float>(5, 1.0F), std::vector<float>(5, 2.0F), std::vector<float>(5, 4.0F)};
  store.init(all, std::vector(2, std::vector<float>(5)));
  std::vector<std::int64_t> called;
  store.set_updater([&](std::int64_t key, auto const& received, auto const& stored) {
    called.push_back(key);
    add_twice(key, received, stored);
  });
  auto out = gradients;
  store.pushpull(keys, gradients, out).wait();
  REQUIRE(called == all);
  REQUIRE(out == std::vector{std::vector<float>(5, 10.0F), std::vector<float>(5, 4.0F), std::vector<float>(5, 10.0F)});
}

TEST_CASE("a function updater works on float masters, compressed gradients and means", "[kv_store][set_updater]") {
  pp::kv_store<pp::bfloat16, pp::cpu_device<>, pp::element::master<float>, pp::reduce::mean> fine{pp::cpu_devices(2)};
  std::vector<float> const w(1500, 1.0F / 3);
  std::vector<float> out(1500);
  std::vector<pp::bfloat16> const g(1500, pp::convert<pp::bfloat16>(0.25F));
  std::vector const sources(4, pp::view_of(g));
  fine.init("w", w);
  fine.set_updater(add_twice);
  fine.push("w", sources);
  fine.pull("w", out).wait();
  REQUIRE(out == std::vector<float>(1500, 1.0F / 3 + 0.5F));

  pp::kv_store compressed{pp::cpu_devices(2), pp::compress::two_bit{0.5F}};
  std::vector<float> const h(1500, 0.75F);
  compressed.init("w", w);
  compressed.set_updater(add_twice);
  compressed.pushpull("w", h, out).wait();
  REQUIRE(out == std::vector<float>(1500, 1.0F / 3 + 1.0F));
}

TEST_CASE("where a function updater fails no key of the push has changed", "[kv_store][set_updater][errors]") {
  pp::kv_store store{pp::cpu_devices(2)};
  strings const keys{"a", "b"};
  std::vector const values(2, std::vector<float>(70, 1.0F)), gradients(2, std::vector<float>(70, 1.0F));
  auto out = values;
  store.init(keys, values);
  store.set_updater([&](std::string_view key, auto const& received, auto const& stored) {
    add_twice(key, received, stored);
    if (key == "b") throw std::runtime_error("b is broken");
  });
  REQUIRE_THROWS_WITH(store.push(keys, gradients).wait(), "b is broken");
  store.pull(keys, out).wait();
  REQUIRE(out == values);
  store.set_updater(add_twice);
  store.pushpull(keys, gradients, out).wait();
  REQUIRE(out == std::vector(2, std::vector<float>(70, 3.0F)));
}

TEST_CASE("a function updater that calls its store is refused, an empty one too", "[kv_store][set_updater][errors]") {
  pp::kv_store store{pp::cpu_devices(1)};
  std::vector<float> const x(70, 1.0F);
  std::vector<float> out(70);
  store.init("w", x);
  using function = std::function<void(std::string_view, pp::tensor_view<float, pp::cpu_device<>>,
                                      pp::tensor_view<float, pp::cpu_device<>>)>;
  REQUIRE_THROWS_AS(store.set_updater(function()), pp::invalid_argument);
  std::vector<float> inner(70);
  store.set_updater([&](auto const&...) { store.pull("w", inner); });
  REQUIRE_THROWS_AS(store.push("w", x).wait(), pp::invalid_argument);
  store.set_updater([&](auto const&...) { store.wait(); });
  REQUIRE_THROWS_AS(store.push("w", x).wait(), pp::invalid_argument);
  store.reset_updater();
  store.pushpull("w", x, out).wait();
  REQUIRE(out == x);
}

TEST_CASE("function updaters of two stores that call each other are refused", "[kv_store][set_updater][errors]") {
  pp::kv_store a{pp::cpu_devices(2)}, b{pp::cpu_devices(1)};
  std::vector<float> const x(70, 1.0F);
  std::vector<float> out(70), inner(70);
  a.init("w", x);
  b.init("w", x);
  a.set_updater([&](auto const&...) { b.push("w", x).wait(); });
  std::vector<std::function<void()>> const calls{[&] { a.pull("w", inner).wait(); },
                                                 [&] { a.push("w", x); },
                                                 [&] { a.wait("w"); },
                                                 [&] { a.wait(); },
                                                 [&] { a.shape("w"); },
                                                 [&] { a.bytes(0); },
                                                 [&] { a.init("v", x); }};
  for (auto const& call : calls) {
    b.set_updater([&](auto const&...) { call(); });
    for (int i = 0; i < 20; ++i) {  // on whatever thread
      try {
        a.push("w", x).wait();
        FAIL("no exception");
      } catch (pp::invalid_argument const& e) {
        REQUIRE_THAT(e.what(), Catch::Matchers::Contains("an updater called the store that called it"));
      }
    }
  }
  REQUIRE_FALSE(a.contains("v"));
  b.reset_updater();
  std::vector<float> const y(70, 2.0F);
  a.push("w", y).wait();  // its updater may call a store that does not call back
  b.pull("w", out).wait();
  REQUIRE(out == x);
}

TEST_CASE("an updater may look at nothing of its store: another thread may wait for the updater",
          "[kv_store][set_updater][errors]") {
  pp::kv_store store{pp::cpu_devices(1)};
  std::vector<float> const x(70, 1.0F);
  store.init("w", x);
  store.set_updater([&](auto const&...) { store.contains("w"); });
  REQUIRE_THROWS_AS(store.push("w", x).wait(), pp::invalid_argument);
  store.set_updater([&](auto const&...) { store.bytes(0); });
  REQUIRE_THROWS_AS(store.push("w", x).wait(), pp::invalid_argument);
  store.reset_updater();
  store.push("w", x).wait();
}

TEST_CASE("a range of gradients that uses the store whose call reads it is refused", "[kv_store][errors]") {
  pp::kv_store store{pp::cpu_devices(2)};
  std::vector<float> const x(70, 1.0F), y(70, 2.0F);
  std::vector<float> inner(70);
  store.init("w", x);
  std::vector<std::function<void()>> const calls{[&] { store.pull("w", inner); }, [&] { store.push("w", x); },
                                                 [&] { store.shape("w"); },       [&] { store.init("v", x); },
                                                 [&] { store.contains("w"); },    [&] { store.wait("w"); }};
  for (auto const& call : calls) {
    auto const gradients = std::views::iota(0, 2) | std::views::transform([&](int) {
                             call();
                             return pp::tensor_view(y.data(), pp::shape{70});
                           });
    try {
      store.push("w", gradients);
      FAIL("no exception");
    } catch (pp::invalid_argument const& e) {
      REQUIRE_THAT(e.what(), Catch::Matchers::Contains("a range or a predicate used the store whose call reads it"));
    }
    store.pull("w", inner).wait();
    REQUIRE(inner == x);
  }
  REQUIRE_FALSE(store.contains("v"));
  store.push("w", y).wait();
  store.pull("w", inner).wait();
  REQUIRE(inner == y);
}

TEST_CASE("a predicate that uses the store whose call asks it is refused", "[kv_store][errors]") {
  pp::kv_store store{pp::cpu_devices(2), pp::update::sgd{}};
  std::vector<float> const x(70, 1.0F);
  store.init("w", x);
  std::function<void()> call;
  auto const asks = [&](std::string_view) {
    if (call) call();
    return true;
  };
  std::vector<std::function<void()>> const calls{
      [&] { store.push("w", x); }, [&] { store.shape("w"); }, [&] { store.steps("w"); },
      [&] { store.set_hyperparameters(pp::update::sgd{1.0}); }, [&] { store.add_group(asks, pp::update::sgd{}); }};
  for (auto const& c : calls) {
    call = c;
    REQUIRE_THROWS_AS(store.add_group(asks, pp::update::sgd{}), pp::invalid_argument);
    REQUIRE(store.groups() == 1);
  }
  call = nullptr;
  REQUIRE(store.add_group(asks, pp::update::sgd{}) == 1);
  pp::parameter_store parameters{store};
  std::vector<float> const p(70, 3.0F);
  parameters.add("p", p);
  call = [&] { parameters.value("p", std::size_t{0}); };
  REQUIRE_THROWS_AS(parameters.materialize(), pp::invalid_argument);
  call = nullptr;
  REQUIRE(parameters.value("p", std::size_t{0}).data()[69] == 3);
}

TEST_CASE("function updaters of resident keys write every mirror", "[kv_store][set_updater]") {
  std::vector<pp::test::counting_device> const devices{pp::test::counting_device(0, true),
                                                       pp::test::counting_device(1, true)};
  pp::kv_store store{devices};
  pp::parameter_store parameters{store};
  std::vector<float> const w(3000, 1.0F), g(3000, 1.0F);
  parameters.add("w", w);
  parameters.materialize();
  store.set_updater(add_twice);
  store.push("w", g).wait();
  for (std::size_t n = 0; n < 2; ++n)
    REQUIRE(pp::to_vector(parameters.value("w", n)) == std::vector<float>(3000, 3.0F));
}

TEST_CASE("a step of a whole model calls the function once per parameter, with the sum over the devices",
          "[parameter_store][set_updater]") {
  for (int const count : {1, 3}) {
    pp::kv_store store{pp::cpu_devices(count)};
    pp::parameter_store parameters{store};
    std::vector<float> a(3000, 1.0F), b(65, 10.0F);
    std::vector<float> const fixed(70, 7.0F);
    parameters.add("b", b);
    parameters.add("a", a);
    parameters.add("frozen", fixed);
    parameters.freeze("frozen");
    auto const devices = static_cast<std::size_t>(count);
    auto const fill = [&](float g) {
      for (std::size_t n = 0; n < devices; ++n)
        for (auto const* const name : {"a", "b"}) {
          auto const gradient = parameters.grad(name, n);
          std::fill_n(gradient.data(), gradient.size(), g);
        }
    };
    auto const mirrors = [&](std::string const& name, float value) {
      for (std::size_t n = 0; n < devices; ++n) {
        auto const mirror = pp::to_vector(parameters.value(name, n));
        REQUIRE(mirror == std::vector<float>(mirror.size(), value));
      }
    };
    auto const sum = static_cast<float>(count);
    fill(1);
    parameters.update_all();  // without a rule values are replaced
    mirrors("a", sum);
    strings called;
    store.set_updater([&](std::string_view key, auto const& received, auto const& stored) {
      called.emplace_back(key);
      REQUIRE(received.size() == stored.size());
      add_twice(key, received, stored);
    });
    fill(2);
    parameters.update_all();
    REQUIRE(called == strings{"b", "a"});
    mirrors("a", 5 * sum);
    mirrors("b", 5 * sum);
    mirrors("frozen", 7);
    parameters.sync_master();
    REQUIRE(a == std::vector<float>(3000, 5 * sum));
    REQUIRE(b == std::vector<float>(65, 5 * sum));

    store.set_updater([&](std::string_view key, auto const& received, auto const& stored) {
      add_twice(key, received, stored);
      if (key == "a") throw std::runtime_error("a is broken");
    });
    REQUIRE_THROWS_WITH(parameters.update_all(), "a is broken");  // and nothing has changed
    mirrors("a", 5 * sum);
    mirrors("b", 5 * sum);
    store.wait();  // it was told
    store.reset_updater();
    parameters.update_all();
    mirrors("a", 2 * sum);
  }
}

TEST_CASE("a step of a whole model calls the function for float masters and for each element type",
          "[parameter_store][set_updater]") {
  pp::kv_store<pp::bfloat16, pp::cpu_device<>, pp::element::master<float>> fine{pp::cpu_devices(2)};
  pp::parameter_store parameters{fine};
  std::vector<float> w(1500, 1.0F / 3);
  parameters.add("w", w);
  parameters.materialize();
  for (std::size_t n = 0; n < 2; ++n)
    std::fill_n(parameters.grad("w", n).data(), 1500, pp::convert<pp::bfloat16>(0.25F));
  fine.set_updater(add_twice);
  parameters.update_all();
  parameters.sync_master();
  REQUIRE(w == std::vector<float>(1500, 1.0F / 3 + 1.0F));
  REQUIRE(pp::convert<float>(parameters.value("w", 1).data()[7]) ==
          pp::convert<float>(pp::convert<pp::bfloat16>(1.0F / 3 + 1.0F)));

  pp::kv_store<pp::type_list<float, double>, pp::cpu_device<>> mixed{pp::cpu_devices(2)};
  pp::parameter_store both{mixed};
  std::vector<double> v(70, 1.0);
  w.assign(70, 1.0F);
  both.add("w", w);
  both.add("v", v);
  both.materialize();
  for (std::size_t n = 0; n < 2; ++n) {
    std::fill_n(both.grad<float>("w", n).data(), 70, 1.0F);
    std::fill_n(both.grad<double>("v", n).data(), 70, 2.0);
  }
  mixed.of<float>().set_updater(add_twice);
  both.update_all();  // the doubles have no function
  both.sync_master();
  REQUIRE(w == std::vector<float>(70, 5.0F));
  REQUIRE(v == std::vector<double>(70, 4.0));
}
