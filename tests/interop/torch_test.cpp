/// @file
/// LibTorch's tensors and modules: no copies, lifetimes, refusals, and steps beside torch::optim.
#include <pushpull/interop/torch.hpp>
#include <pushpull/interop/torch_module.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <torch/nn/functional/activation.h>
#include <torch/nn/modules/linear.h>
#include <torch/optim/adamw.h>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"

namespace pp = pushpull;
namespace interop = pushpull::interop;
using pp::test::message_of;

namespace {

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

/// Two layers; `unused` takes part in no loss unless it is asked for.
struct two_layers : torch::nn::Module {
  torch::nn::Linear first{nullptr}, second{nullptr}, unused{nullptr};

  explicit two_layers(std::int64_t width = 5)
      : first(register_module("first", torch::nn::Linear(3, width))),
        second(register_module("second", torch::nn::Linear(width, 2))),
        unused(register_module("unused", torch::nn::Linear(3, 2))) {}
  torch::Tensor forward(torch::Tensor const& x, bool with_unused = false) {
    auto const y = second(torch::tanh(first(x)));
    return with_unused ? y + unused(x) : y;
  }
};

using replica_list = std::vector<std::shared_ptr<two_layers>>;

replica_list make_replicas(std::size_t count) {
  torch::manual_seed(7);
  replica_list replicas;
  for (std::size_t n = 0; n < count; ++n) replicas.push_back(std::make_shared<two_layers>());
  return replicas;
}

using store_type = pp::kv_store<float, pp::cpu_device<>, pp::update::adamw>;
constexpr pp::update::adamw rule{.learning_rate = 0.01, .weight_decay = 0.1};

torch::Tensor loss_of(two_layers& net, torch::Tensor const& x, bool with_unused = false) {
  return net.forward(x, with_unused).square().sum();
}

}  // namespace

TEST_CASE("a view of a LibTorch tensor is its memory, whatever its element type", "[interop][torch]") {
  auto const check = []<class T>(T, at::ScalarType type) {
    std::vector<std::vector<std::int64_t>> const shapes{{}, {0, 3}, {1}, {7, 5}, {2, 1, 3}};
    for (auto const& sizes : shapes) {
      auto const t = torch::ones(sizes, type);
      auto const view = interop::torch_view<T>(t);
      REQUIRE(view.shape() == pp::shape(std::span<std::int64_t const>(sizes)));
      REQUIRE(static_cast<void const*>(view.data()) == (view.size() == 0 ? nullptr : t.data_ptr()));
    }
  };
  check(float{}, at::kFloat);
  check(double{}, at::kDouble);
  check(pp::half{}, at::kHalf);
  check(pp::bfloat16{}, at::kBFloat16);
  check(std::int32_t{}, at::kInt);
  check(std::int64_t{}, at::kLong);
  check(std::uint8_t{}, at::kByte);
  auto const rows = torch::arange(12, at::kFloat).view({3, 4}).slice(0, 1, 3);  // an offset
  REQUIRE(*interop::torch_view<float const>(rows).data() == Approx(4));
}

TEST_CASE("torch_view says what is wrong with a tensor, and what to do", "[interop][torch]") {
  auto const view = [](torch::Tensor const& t) { return [&t] { interop::torch_view<float>(t); }; };
  torch::Tensor t;
  CHECK(contains(message_of(view(t)), "a defined tensor expected"));
  t = torch::ones({2, 3}, at::kDouble);
  CHECK(message_of<pp::dtype_mismatch>(view(t)) ==
        "torch_view: elements of type Float expected, got Double; convert them with to(), or see visit_torch");
  t = torch::empty({2, 3}, torch::TensorOptions().device(at::kMeta));
  CHECK(message_of<pp::unknown_device>(view(t)) ==
        "torch_view: a tensor on cpu expected, got one on meta; move the tensor with to(), or pass its device");
  t = torch::ones({2, 3}).t();
  CHECK(contains(message_of<pp::shape_mismatch>(view(t)), "make the tensor contiguous first"));
  t = torch::ones({1}).expand({4});
  CHECK(contains(message_of<pp::shape_mismatch>(view(t)), "got stride 0 instead of 1"));
  t = torch::ones({2, 3}).to_sparse();
  CHECK(message_of(view(t)) == "torch_view: a dense tensor expected, got layout Sparse; call to_dense()");
  t = at::_neg_view(torch::ones({3}));
  CHECK(contains(message_of(view(t)), "call resolve_neg()"));

  t = torch::ones({2, 3}, torch::requires_grad());
  CHECK(contains(message_of(view(t)), "the leaf requires a gradient, and would be written in place while autograd"));
  CHECK(interop::torch_view<float const>(t).data() == t.data_ptr());
  auto const result = t * 2;
  CHECK(contains(message_of(view(result)), "the result requires a gradient"));
  torch::NoGradGuard const silent;
  CHECK(interop::torch_view<float>(t).data() == t.data_ptr());
}

TEST_CASE("an import keeps the memory of a tensor, and an export that of its owner", "[interop][torch]") {
  torch::Tensor t = torch::ones({6});
  auto const count = [&] { return t.use_count(); };
  auto imported = interop::from_torch<float>(t);
  STATIC_REQUIRE(pp::Tensor<decltype(imported)>);
  CHECK(count() == 2);
  auto moved = std::move(imported);
  CHECK((count() == 2 && moved.data() == t.data_ptr()));
  std::thread([owned = std::move(moved)] {}).join();
  CHECK(count() == 1);
  auto last = interop::from_torch<float>(std::exchange(t, {}));
  CHECK(*last.data() == Approx(1));

  auto const owner = std::make_shared<std::vector<double>>(6, 1.5);
  torch::Tensor exported = interop::to_torch(pp::tensor_view(owner->data(), pp::shape{2, 3}), owner);
  CHECK(exported.data_ptr() == owner->data());
  CHECK((exported.scalar_type() == at::kDouble && exported.sizes() == at::IntArrayRef{2, 3}));
  torch::Tensor part = exported[1];
  exported.reset();
  CHECK(owner.use_count() >= 2);
  std::thread([last = std::move(part)] {}).join();
  part.reset();
  CHECK(owner.use_count() == 1);
  CHECK(interop::to_torch(pp::tensor_view(static_cast<float*>(nullptr), pp::shape{0, 4})).numel() == 0);
}

TEST_CASE("visit_torch calls with the element type of the tensor", "[interop][torch]") {
  auto const width = [](auto const& view) { return sizeof(*view.data()); };
  CHECK(interop::visit_torch(torch::ones({3}, at::kDouble), width) == 8);
  CHECK(interop::visit_torch(torch::ones({3}, at::kBFloat16), width) == 2);
  CHECK(interop::visit_torch<float const, std::uint8_t const>(torch::ones({3}, at::kByte), width) == 1);
  auto const integers = torch::ones({3}, at::kLong);
  CHECK(message_of<pp::dtype_mismatch>([&] { interop::visit_torch(integers, width); }) ==
        "visit_torch: elements of one of the types Float, Double, Half, BFloat16 expected, got Long");
  CHECK(contains(message_of([&] { interop::visit_torch(torch::Tensor(), width); }), "a defined tensor expected"));
}

TEST_CASE("steps of registered modules agree with those of torch::optim::AdamW", "[interop][torch]") {
  auto const devices = GENERATE(1, 3);
  auto const count = static_cast<std::size_t>(devices);
  auto const replicas = make_replicas(count);
  auto const reference = make_replicas(1).front();
  torch::optim::AdamW optimizer(reference->parameters(),
                                torch::optim::AdamWOptions(0.01).betas({0.9, 0.999}).eps(1e-8).weight_decay(0.1));
  store_type store{pp::cpu_devices(devices), rule};
  pp::parameter_store parameters{store};
  auto model = interop::register_module(parameters, replicas);
  REQUIRE(model.names().size() == 6);
  for (std::size_t n = 0; n < count; ++n)
    REQUIRE(replicas[n]->first->weight.data_ptr() == parameters.value("first.weight", n).data());

  for (int t = 0; t < 8; ++t) {
    auto const x = torch::randn({4 * devices, 3});
    optimizer.zero_grad();
    model.zero_grad();
    for (std::size_t n = 0; n < count; ++n) {
      bool const reaches_all = t > 5 || (t == 5 && n + 1 == count);
      auto const k = static_cast<std::int64_t>(n);
      auto const part = x.slice(0, 4 * k, 4 * k + 4);
      loss_of(*reference, part, reaches_all).backward();
      loss_of(*replicas[n], part, reaches_all).backward();
    }
    optimizer.step();
    REQUIRE(replicas[0]->unused->weight.grad().defined() == (t > 5 || (t == 5 && count == 1)));
    auto const gradient = replicas[0]->first->weight.grad().data_ptr();
    auto const before = store.statistics();
    model.step();
    CHECK((store.statistics() - before).copies == 0);
    CHECK(replicas[0]->first->weight.grad().data_ptr() == gradient);
    if (t == 5) CHECK(replicas[0]->unused->weight.grad().defined());  // zeros, if the replica left none
    for (std::size_t n = 0; n < count; ++n)
      for (auto const& item : reference->named_parameters())
        REQUIRE(torch::allclose(replicas[n]->named_parameters()[item.key()], item.value(), 1e-5, 1e-6));
  }
}

TEST_CASE("parameters without gradients, and frozen ones, keep their values", "[interop][torch]") {
  auto const replicas = make_replicas(2);
  for (auto const& replica : replicas) replica->first->bias.set_requires_grad(false);
  store_type store{pp::cpu_devices(2), rule};
  pp::parameter_store parameters{store};
  auto model = interop::register_module(parameters, replicas);
  parameters.freeze("second.bias");
  auto const value = [&](char const* name) { return replicas[1]->named_parameters()[name].detach().clone(); };
  auto const fixed = {value("first.bias"), value("second.bias"), value("unused.weight")};
  auto const weight = value("second.weight");
  for (auto const& replica : replicas) loss_of(*replica, torch::ones({2, 3})).backward();
  model.step();
  auto const same = {value("first.bias"), value("second.bias"), value("unused.weight")};
  CHECK(std::ranges::equal(fixed, same, [](auto const& a, auto const& b) { return torch::equal(a, b); }));
  CHECK_FALSE(torch::equal(weight, value("second.weight")));
  CHECK(store.steps("unused.weight") == 0);
}

TEST_CASE("replicas outlive their store, with the trained values", "[interop][torch]") {
  auto const replicas = make_replicas(2);
  torch::Tensor trained;
  void const* mirror = nullptr;
  {
    store_type store{pp::cpu_devices(2), rule};
    pp::parameter_store parameters{store};
    auto first = interop::register_module(parameters, replicas);
    auto model = std::move(first);
    auto const graph = loss_of(*replicas[1], torch::ones({2, 3}));
    loss_of(*replicas[0], torch::ones({2, 3})).backward();
    model.step();
    CHECK_THROWS_AS(graph.backward(), c10::Error);  // its weights have changed since
    trained = replicas[1]->second->weight.detach().clone();
    mirror = parameters.value("second.weight", 1).data();
    CHECK(model.tensor(2, 1).data_ptr() == mirror);
    CHECK_THROWS_AS(model.tensor(6, 0), std::out_of_range);
  }
  for (auto const& replica : replicas) CHECK(torch::equal(replica->second->weight, trained));
  CHECK(replicas[1]->second->weight.data_ptr() != mirror);
  loss_of(*replicas[0], torch::ones({2, 3})).backward();
}

TEST_CASE("tied weights are one parameter, and replicas begin with the values of the first", "[interop][torch]") {
  std::vector<std::shared_ptr<torch::nn::Module>> replicas;
  for (float const value : {1.0F, 2.0F}) {
    auto const& replica = replicas.emplace_back(std::make_shared<torch::nn::Module>());
    auto const weight = replica->register_parameter("encoder", torch::full({3}, value));
    replica->register_parameter("decoder", weight);
  }
  pp::kv_store<float, pp::cpu_device<>, pp::update::adamw> store{pp::cpu_devices(2), rule};
  pp::parameter_store parameters{store};
  auto const model = interop::register_module(parameters, replicas);
  CHECK(model.names() == std::vector<std::string>{"encoder"});
  CHECK(torch::equal(replicas[1]->parameters()[1], torch::ones({3})));

  replicas.clear();
  for (char const* const tied : {"a", "b"}) {
    auto const& replica = replicas.emplace_back(std::make_shared<torch::nn::Module>());
    for (char const* const name : {"a", "b"}) replica->register_parameter(name, torch::ones({3}));
    replica->register_parameter("c", replica->named_parameters()[tied]);
  }
  CHECK(contains(message_of([&] { interop::register_module(parameters, replicas); }),
                 "\"c\" of replica 1 is a tensor of another name or replica"));
}

TEST_CASE("register_module refuses what is no list of replicas, and adds nothing", "[interop][torch]") {
  auto replicas = make_replicas(2);
  store_type store{pp::cpu_devices(2), rule};
  pp::parameter_store parameters{store};
  auto const refused = [&]<class E>(E const*) {
    auto const message = message_of<E>([&] { interop::register_module(parameters, replicas); });
    CHECK(parameters.size() == 0);
    return message;
  };
  pp::invalid_argument const* const argument = nullptr;
  pp::shape_mismatch const* const shape = nullptr;
  pp::dtype_mismatch const* const dtype = nullptr;
  SECTION("too few") {
    replicas.pop_back();
    CHECK(refused(argument) == "register_module: a replica for each of the store's 2 devices expected, got 1");
  }
  SECTION("another shape") {
    replicas[1] = std::make_shared<two_layers>(4);
    CHECK(refused(shape) ==
          "register_module: parameter \"first.weight\" of replica 1: shape (5, 3) of replica 0 expected, got (4, 3)");
  }
  SECTION("other names") {
    replicas[1]->register_parameter("more", torch::ones({1}));
    CHECK(contains(refused(argument), "the parameters of replica 1 do not have the names of those of replica 0"));
  }
  SECTION("one module twice") {
    replicas[1] = replicas[0];
    CHECK(contains(refused(argument), "\"first.weight\" of replica 1 is a tensor of another name or replica"));
  }
  SECTION("another element type") {
    replicas[1]->to(at::kDouble);
    CHECK(contains(refused(dtype), "parameter \"first.weight\" of replica 1: elements of type Float expected"));
  }
  SECTION("a name that is taken") {
    store.init("unused.bias", std::vector<float>(2));
    CHECK(refused(static_cast<pp::duplicate_key const*>(nullptr)) ==
          "register_module: the store has a parameter \"unused.bias\" already");
  }
}

TEST_CASE("a step refuses gradients and weights that are not where they were, and changes nothing",
          "[interop][torch]") {
  auto const replicas = make_replicas(2);
  store_type store{pp::cpu_devices(2), rule};
  pp::parameter_store parameters{store};
  auto model =
      interop::register_parameters(parameters, {replicas[0]->named_parameters(), replicas[1]->named_parameters()});
  for (auto const& replica : replicas) loss_of(*replica, torch::ones({2, 3})).backward();
  auto const before = replicas[1]->second->weight.detach().clone();
  SECTION("a gradient that is not contiguous") {
    replicas[1]->second->weight.mutable_grad() = torch::ones({5, 2}).t();
    CHECK(contains(message_of<pp::shape_mismatch>([&] { model.step(); }),
                   "step: gradient of parameter \"second.weight\" of replica 1: contiguous elements"));
  }
  SECTION("a sparse gradient") {
    replicas[1]->second->weight.mutable_grad() = torch::ones({2, 5}).to_sparse();
    CHECK(contains(message_of([&] { model.step(); }), "got layout Sparse; call to_dense()"));
  }
  SECTION("other memory") {
    replicas[0]->second->weight.set_data(torch::ones({2, 5}));
    CHECK(contains(message_of([&] { model.step(); }),
                   "step: parameter \"second.weight\" of replica 0: its memory has been replaced"));
  }
  CHECK(torch::equal(before, replicas[1]->second->weight));
  CHECK(store.steps("first.weight") == 0);
}
