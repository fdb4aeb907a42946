/// @file
/// The forms of MXNet 1.x against 50 steps that MXNet 1.9.1 recorded: see reference/README.md.
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "update/recorded.hpp"

namespace mxnet = pushpull::compat::mxnet1;

TEMPLATE_TEST_CASE("the forms of MXNet 1.x follow MXNet for 50 steps", "[update]", float, double) {
  using T = TestType;
  constexpr bool exact = std::is_same_v<T, double>;
  pushpull::test::recording const recorded("mxnet");
  // Kernels of MXNet take hyperparameters as floats, whatever the weights are: their 1 - 0.999 is off by 1e-5 of it.
  double const most = 4e-6;
  constexpr double wd = 0.1, rescale_grad = 0.5, clip_gradient = 0.3;
  auto const compare = [&](char const* trajectory, auto const& rule) { recorded.compare<T>(trajectory, rule, most); };
  compare("sgd", mxnet::sgd({0.1, wd, rescale_grad, clip_gradient}));
  compare("sgd_momentum", mxnet::sgd_momentum({0.1, 0.9, wd, rescale_grad, clip_gradient}));
  compare("nag",
          mxnet::nag({0.1, 0.9, 0, rescale_grad, clip_gradient}));  // with wd MXNet's momentum sees the new weight
  compare("signum", mxnet::signum({0.01, 0.9, 0.1, wd, rescale_grad, clip_gradient}));
  compare("signsgd", mxnet::signsgd({.learning_rate = 0.01, .wd = wd}));
  compare("dcasgd", mxnet::dcasgd({0.1, 0.4, wd, rescale_grad, clip_gradient}));
  compare("adam", mxnet::adam({0.02, 0.9, 0.999, 1e-3, wd, rescale_grad, clip_gradient}));
  compare("adamax", mxnet::adamax({0.02, 0.9, 0.999, wd, rescale_grad, clip_gradient}));
  compare("nadam", mxnet::nadam({0.02, 0.9, 0.999, 1e-8, 0.004, wd, rescale_grad, clip_gradient}));
  compare("ftml", mxnet::ftml({0.02, 0.6, 0.999, 1e-8, wd, rescale_grad, clip_gradient}));
  compare("test", mxnet::test({rescale_grad}));
  if constexpr (!exact) {  // MXNet keeps float states in these, and refuses weights of another type.
    compare("adagrad", mxnet::adagrad({0.1, 1e-3, wd, rescale_grad, clip_gradient}));
    compare("rmsprop", mxnet::rmsprop({0.02, 0.9, 1e-3, 0.6, wd, rescale_grad, clip_gradient}));
    compare("rmsprop_centered", mxnet::rmsprop_centered({0.01, 0.9, 0.9, 1e-3, 0, wd, rescale_grad, clip_gradient}));
    compare("adadelta", mxnet::adadelta({0.9, 1e-4, 0.02, rescale_grad, clip_gradient}));
    compare("ftrl", mxnet::ftrl({0.1, 0.05, 1, wd, rescale_grad, clip_gradient}));
  }
}
