/// @file
/// What calls refuse, what they say about it, and that the store holds what it held and works on: of stores with a
/// rule, without one, and with one that is chosen at run time.
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <ranges>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace update = pushpull::update;
using strings = std::vector<std::string>;
using floats = std::vector<float>;
using ids = std::vector<std::int64_t>;
using view = pp::tensor_view<float>;
using views = std::vector<view>;
using rows = pp::row_sparse<float>;
using pp::shape;

struct with_rule {
  static auto make() { return pp::kv_store{pp::cpu_devices(2), update::sgd{1.0}}; }
};
struct without_rule {
  static auto make() { return pp::kv_store{pp::cpu_devices(2)}; }
};
struct chosen_at_run_time {
  static auto make() {
    auto store = pp::create("device", pp::cpu_devices(2));
    store.set_optimizer(update::sgd{1.0});
    return store;
  }
};

shape const matrix{3, 4};

/// A store with a matrix "w" and a vector "v".
template <class Kind>
struct subject {
  static constexpr bool replaces = std::same_as<Kind, without_rule>;

  decltype(Kind::make()) store = Kind::make();
  floats w = floats(12, 3.0F), v = floats(5, 2.0F), ones = floats(12, 1.0F), out = floats(12, -1.0F);

  subject() {
    store.init("w", view(w.data(), matrix));
    store.init("v", v);
  }

  view gradient() { return {ones.data(), matrix}; }
  view output() { return {out.data(), matrix}; }
  rows row(std::int64_t id, shape const& whole = matrix) {
    rows result(pp::cpu_device<>(), whole, 1);
    result.row_ids()[0] = id;
    std::fill_n(result.values(), result.row_length(), 1.0F);
    return result;
  }

  std::vector<floats> held() {
    std::vector<floats> result{floats(12), floats(5)};
    store.pull("w", view(result[0].data(), matrix));
    store.pull("v", result[1]).wait();
    store.wait();
    return result;
  }
  std::int64_t steps() {
    if constexpr (requires { store.steps("w"); }) return store.steps("w");
    return 0;
  }

  /// Requires that call() throws an Error that says all `words`, that nothing has changed, and that a push works after it.
  template <class Error>
  void refuses(strings const& words, std::function<void()> const& call) {
    auto const before = held();
    auto const t = steps();
    bool refused = false;
    try {
      call();
    } catch (Error const& e) {
      refused = true;
      for (auto const& word : words) REQUIRE_THAT(e.what(), Catch::Matchers::Contains(word));
    }
    REQUIRE(refused);
    REQUIRE(held() == before);
    REQUIRE(steps() == t);
    REQUIRE(out == floats(12, -1.0F));
    store.push("w", gradient());
    auto const after = held();
    REQUIRE(after[0] == floats(12, replaces ? 1.0F : before[0][0] - 1));
    REQUIRE(after[1] == before[1]);
    REQUIRE(steps() == (replaces ? t : t + 1));
  }
};

strings const pair{"w", "u"};

}  // namespace

TEMPLATE_TEST_CASE("a key that was never given to init is refused by every call, and the store works on",
                   "[store][errors]", with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  auto const refuses = [&](std::function<void()> const& call) {
    s.template refuses<pp::unknown_key>({"key \"u\"", "never given to init"}, call);
  };
  views gradients{s.gradient(), s.gradient()}, outputs{s.output(), s.output()};
  auto const gradient = s.row(1);
  auto filled = s.row(2);
  refuses([&] { s.store.push("u", s.ones); });
  refuses([&] { s.store.pull("u", s.out); });
  refuses([&] { s.store.pushpull("u", s.ones, s.out); });
  refuses([&] { s.store.pushpull("u", s.out); });
  refuses([&] { s.store.push(pair, gradients); });
  refuses([&] { s.store.pull(pair, outputs); });
  refuses([&] { s.store.pushpull(pair, gradients, outputs); });
  refuses([&] { s.store.push("u", gradient); });
  refuses([&] { s.store.row_sparse_pull("u", filled, ids{1}); });
  REQUIRE(filled.row_ids()[0] == 2);
  refuses([&] { s.store.wait("u"); });
  refuses([&] { s.store.shape("u"); });
  if constexpr (requires { s.store.steps("u"); }) refuses([&] { s.store.steps("u"); });
  {
    std::vector<rows> list, lists;
    for (int i = 0; i < 2; ++i) {
      list.push_back(s.row(i));
      lists.push_back(s.row(2));
    }
    refuses([&] { s.store.push(pair, list); });
    refuses([&] { s.store.row_sparse_pull(pair, lists, std::vector<ids>{{1}, {1}}); });
    REQUIRE(lists[0].row_ids()[0] == 2);  // nor is the output of the key that there is filled
  }
}

TEMPLATE_TEST_CASE("init of a key again, later or twice in one call, is refused, and broadcast with it",
                   "[store][errors]", with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  std::vector const values{floats(12, 9.0F), floats(12, 9.0F)};
  std::vector outputs(2, floats(12));
  auto const refuses = [&](std::string const& word, std::function<void()> const& call) {
    s.template refuses<pp::duplicate_key>({"init: key \"", word}, call);
    REQUIRE_FALSE(s.store.contains("q"));
  };
  refuses("\"w\" was given to init before", [&] { s.store.init("w", values[0]); });
  refuses("\"w\" was given to init before", [&] { s.store.init(strings{"q", "w"}, values); });
  refuses("\"q\" stands twice in one call", [&] { s.store.init(strings{"q", "q"}, values); });
  refuses("\"w\" was given to init before", [&] { s.store.broadcast("w", values[0], outputs[0]); });
  refuses("\"w\" was given to init before", [&] { s.store.broadcast(strings{"q", "w"}, values, outputs); });
  if constexpr (requires { s.store.init("w", s.row(1)); })
    refuses("\"w\" was given to init before", [&] { s.store.init("w", s.row(1)); });
  REQUIRE(outputs == std::vector(2, floats(12)));
  s.store.broadcast("q", values[0], outputs[0]).wait();
  REQUIRE(outputs[0] == values[0]);
}

TEMPLATE_TEST_CASE("an output of another shape is refused, though it has as many elements", "[store][errors]",
                   with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  view const turned(s.out.data(), shape{4, 3});
  floats shorter(4);
  auto const refuses = [&](std::string const& got, std::function<void()> const& call) {
    s.template refuses<pp::shape_mismatch>({"key \"", "a tensor of shape " + got + " came"}, call);
    REQUIRE(shorter == floats(4));
  };
  refuses("(12)", [&] { s.store.pull("w", s.out); });
  refuses("(4, 3)", [&] { s.store.pull("w", turned); });
  refuses("(4, 3)", [&] { s.store.pull("w", views{s.output(), turned}); });
  refuses("(4)", [&] { s.store.pull(strings{"w", "v"}, std::vector{s.output(), pp::view_of(shorter)}); });
  refuses("(4, 3)", [&] { s.store.pushpull("w", s.gradient(), turned); });
  refuses("(4, 3)", [&] { s.store.pushpull("w", s.gradient(), views{s.output(), turned}); });
  refuses("(4, 3)", [&] { s.store.broadcast("q", s.gradient(), turned); });
  REQUIRE_FALSE(s.store.contains("q"));
  auto other = s.row(1, shape{4, 4});
  refuses("(4, 4)", [&] { s.store.row_sparse_pull("w", other, ids{2}); });
  REQUIRE(other.row_ids()[0] == 1);
}

TEMPLATE_TEST_CASE("a key of more elements than a store can have is refused, and so are all of its list",
                   "[store][errors]", with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  constexpr std::int64_t most = std::int64_t{1} << 48;
  auto const refuses = [&](std::int64_t size, std::function<void()> const& call) {
    s.template refuses<pp::out_of_memory>({"\"u\"", "(" + std::to_string(size) + ")", "float32"}, call);
  };
  for (std::int64_t const size : {most, most << 4, (most << 13) - 1})
    refuses(size, [&] { s.store.init("u", view(s.ones.data(), shape{size})); });
  views const halves{s.gradient(), view(s.ones.data(), shape{most / 2}), view(s.ones.data(), shape{most / 2})};
  refuses(most / 2, [&] { s.store.init(strings{"a", "b", "u"}, halves); });
  REQUIRE_FALSE(s.store.contains("a"));
  s.store.init("a", s.ones);
}

TEMPLATE_TEST_CASE("row ids that are no whole numbers of 63 bits are refused, in every type", "[store][errors]",
                   with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  auto filled = s.row(2);
  auto const refuses = [&]<class T>(T id, std::string const& text) {
    std::vector<T> const some{pp::convert<T>(1), id};
    s.template refuses<pp::invalid_argument>({"row_sparse_pull: key \"w\"", text},
                                             [&] { s.store.row_sparse_pull("w", filled, some); });
    REQUIRE(filled.row_ids()[0] == 2);
  };
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (double const id : {0.5, -1e-9, infinity, -infinity, std::numeric_limits<double>::quiet_NaN(), 0x1p63, -1e300})
    refuses(id, "whole numbers below 2^63 expected");
  refuses(1.5F, "got 1.5");
  refuses(pp::convert<pp::half>(1.5F), "got 1.5");
  refuses(pp::convert<pp::bfloat16>(1e30F), "e+30");
  refuses(3.0F, "has 3 rows, row 3 came");
  refuses(-1.0, "row -1 came");
  s.store.row_sparse_pull("w", filled, std::vector<double>{2, -0.0, 2}).wait();
  REQUIRE(ids(filled.row_ids(), filled.row_ids() + filled.rows()) == ids{0, 2});
}

TEMPLATE_TEST_CASE("a gradient of another shape is refused, alone or among several", "[store][errors]", with_rule,
                   without_rule, chosen_at_run_time) {
  subject<TestType> s;
  view const turned(s.ones.data(), shape{4, 3});
  auto const refuses = [&](std::string const& got, std::function<void()> const& call) {
    s.template refuses<pp::shape_mismatch>({"key \"w\" has shape (3, 4), a tensor of shape " + got + " came"}, call);
  };
  refuses("(12)", [&] { s.store.push("w", s.ones); });
  refuses("(4, 3)", [&] { s.store.push("w", turned); });
  refuses("(4, 3)", [&] { s.store.push("w", views{s.gradient(), turned}); });
  refuses("(4, 3)", [&] { s.store.push(strings{"v", "w"}, std::vector{pp::view_of(s.v), turned}); });
  refuses("(4, 3)", [&] { s.store.pushpull("w", turned, s.output()); });
  auto const other = s.row(1, shape{4, 4});
  refuses("(4, 4)", [&] { s.store.push("w", other); });
}

TEMPLATE_TEST_CASE("ranges of unequal lengths are refused by every call", "[store][errors]", with_rule, without_rule,
                   chosen_at_run_time) {
  subject<TestType> s;
  strings const keys{"w", "w"}, fresh{"p", "q"};
  views one{s.gradient()}, three(3, s.gradient()), out_one{s.output()}, out_two(2, s.output()),
      out_three(3, s.output());
  auto const refuses = [&](std::string const& words, std::function<void()> const& call) {
    s.template refuses<pp::shape_mismatch>({words}, call);
    REQUIRE(s.store.size() == 2);
  };
  refuses("push: 2 keys, 1 gradient", [&] { s.store.push(keys, one); });
  refuses("push: 2 keys, 3 gradients", [&] { s.store.push(keys, three); });
  refuses("pull: 2 keys, 1 output", [&] { s.store.pull(keys, out_one); });
  refuses("pull: 2 keys, 3 outputs", [&] { s.store.pull(keys, out_three); });
  refuses("pushpull: 2 keys, 1 gradient", [&] { s.store.pushpull(keys, one, out_two); });
  refuses("pushpull: 2 keys, 1 output", [&] { s.store.pushpull(keys, three, out_one); });
  refuses("pushpull: 2 keys, 3 gradients", [&] { s.store.pushpull(keys, three, out_three); });
  refuses("init: 2 keys, 1 value", [&] { s.store.init(fresh, one); });
  refuses("init: 2 keys, 3 values", [&] { s.store.init(fresh, three); });
  refuses("broadcast: 2 keys, 1 value", [&] { s.store.broadcast(fresh, one, out_two); });
  refuses("broadcast: 2 keys, 1 output", [&] { s.store.broadcast(fresh, three, out_one); });
  refuses("broadcast: 2 keys, 3 values", [&] { s.store.broadcast(fresh, three, out_three); });
  {
    std::vector<rows> two;
    for (int i = 0; i < 2; ++i) two.push_back(s.row(2));
    refuses("push: 3 keys, 2 gradients", [&] { s.store.push(strings{"w", "w", "w"}, two); });
    refuses("push: 1 key, 2 gradients", [&] { s.store.push(strings{"w"}, two); });
    refuses("row_sparse_pull: key \"w\": 2 outputs, 1 tensor of row ids",
            [&] { s.store.row_sparse_pull("w", two, std::vector<ids>{{1}}); });
    refuses("row_sparse_pull: key \"w\": 2 outputs, 3 tensors of row ids",
            [&] { s.store.row_sparse_pull("w", two, std::vector<ids>(3, ids{1})); });
    refuses("row_sparse_pull: 3 keys, 2 outputs",
            [&] { s.store.row_sparse_pull(strings{"w", "w", "w"}, two, std::vector<ids>(3, ids{1})); });
    refuses("row_sparse_pull: 2 keys, 1 tensor of row ids",
            [&] { s.store.row_sparse_pull(keys, two, std::vector<ids>(1, ids{1})); });
    refuses("row_sparse_pull: 1 key, 2 outputs",
            [&] { s.store.row_sparse_pull(strings{"w"}, two, std::vector<ids>(2)); });
    for (auto const& output : two) REQUIRE(output.row_ids()[0] == 2);
  }
}

TEST_CASE("of a range without a size or an end no more is counted than was compared", "[store][errors]") {
  pp::kv_store store{pp::cpu_devices(2)};
  std::vector<float> const x(5, 2.0F);
  strings const keys{"a", "b"};
  store.init(keys, std::vector{x, x});
  auto const gradients = [&](int n) {
    return std::views::iota(0, n) | std::views::filter([](int) { return true; }) |
           std::views::transform([&](int) { return pp::view_of(x); });
  };
  auto const endless = std::views::iota(0) | std::views::transform([&](int) { return pp::view_of(x); });
  REQUIRE_THROWS_WITH(store.push(keys, gradients(1)), "push: 2 keys, 1 gradient");
  REQUIRE_THROWS_WITH(store.push(keys, gradients(3)), "push: 2 keys, more than 2 gradients");
  REQUIRE_THROWS_WITH(store.push(keys, endless), "push: 2 keys, more than 2 gradients");
}

TEMPLATE_TEST_CASE("a list without keys is refused by every call, and so is a key without a gradient",
                   "[store][errors]", with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  strings const none;
  views tensors;
  auto const refuses = [&](std::string const& words, std::function<void()> const& call) {
    s.template refuses<pp::invalid_argument>({words}, call);
  };
  refuses("init: at least 1 key expected", [&] { s.store.init(none, tensors); });
  refuses("push: at least 1 key expected", [&] { s.store.push(none, tensors); });
  refuses("pull: at least 1 key expected", [&] { s.store.pull(none, tensors); });
  refuses("pushpull: at least 1 key expected", [&] { s.store.pushpull(none, tensors, tensors); });
  refuses("at least 1 key expected", [&] { s.store.broadcast(none, tensors, tensors); });
  std::vector<rows> list;
  {
    refuses("push: at least 1 key expected", [&] { s.store.push(none, list); });
    refuses("row_sparse_pull: at least 1 key expected",
            [&] { s.store.row_sparse_pull(none, list, std::vector<ids>()); });
  }
  refuses("push: key \"w\" came with no gradient", [&] { s.store.push("w", tensors); });
  refuses("pushpull: key \"w\" came with no gradient", [&] { s.store.pushpull("w", tensors, s.output()); });
  refuses("push: key \"v\" came with no gradient",
          [&] { s.store.push(strings{"w", "v"}, std::vector{views{s.gradient()}, tensors}); });
  refuses("push: key \"w\" came with no gradient", [&] { s.store.push("w", list); });
}

TEMPLATE_TEST_CASE("rows that a key does not have are refused by push, pull and init", "[store][errors]", with_rule,
                   without_rule, chosen_at_run_time) {
  subject<TestType> s;
  for (std::int64_t const id : {-1, 3, 1000}) {
    auto const refuses = [&](std::string const& name, std::function<void()> const& call) {
      s.template refuses<pp::invalid_argument>({name + " has 3 rows, row " + std::to_string(id) + " came"}, call);
    };
    auto const bad = s.row(id);
    auto out = s.row(2);
    refuses("push: key \"w\"", [&] { s.store.push("w", bad); });
    refuses("row_sparse_pull: key \"w\"", [&] { s.store.row_sparse_pull("w", out, ids{0, id}); });
    if constexpr (requires { s.store.init("q", bad); }) refuses("init: key \"q\"", [&] { s.store.init("q", bad); });
    REQUIRE_FALSE(s.store.contains("q"));
    {
      std::vector<rows> list;
      list.push_back(s.row(1));
      list.push_back(s.row(id));
      refuses("push: key \"w\"", [&] { s.store.push(strings{"w", "w"}, list); });
      std::vector<rows> outs;
      for (int i = 0; i < 2; ++i) outs.push_back(s.row(2));
      refuses("row_sparse_pull: key \"w\"",
              [&] { s.store.row_sparse_pull(strings{"w", "w"}, outs, std::vector<ids>{{1}, {id}}); });
      REQUIRE(outs[0].row_ids()[0] == 2);
    }
    REQUIRE(out.row_ids()[0] == 2);
  }
}

TEMPLATE_TEST_CASE("rules, functions and names of capabilities that cannot be right are refused", "[store][errors]",
                   with_rule, without_rule, chosen_at_run_time) {
  subject<TestType> s;
  auto const refuses = [&](strings const& words, std::function<void()> const& call) {
    s.template refuses<pp::invalid_argument>(words, call);
  };
  strings const rate{"sgd: learning_rate", "got -1"};
  refuses({"\"optimizer\" expected", "\"flying\""}, [&] { s.store.is_capable("flying"); });
  if constexpr (requires { s.store.set_hyperparameters(update::sgd{}); })
    refuses(rate, [&] { s.store.set_hyperparameters(update::sgd{-1.0}); });
  if constexpr (requires { s.store.set_optimizer(update::sgd{}); })
    refuses(rate, [&] { s.store.set_optimizer(update::sgd{-1.0}); });
  if constexpr (!std::same_as<TestType, with_rule>) {
    using key = typename std::remove_reference_t<decltype(s.store)>::key_view;
    std::function<void(key, view, view)> const empty;
    refuses({"set_updater: the function is empty"}, [&] { s.store.set_updater(empty); });
  }
}
