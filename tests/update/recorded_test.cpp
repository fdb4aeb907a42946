/// @file
/// Rules against 50 steps that PyTorch and optax recorded: see reference/README.md.
#include <pushpull/pushpull.hpp>
#include <type_traits>

#include "support/catch.hpp"
#include "update/recorded.hpp"

namespace update = pushpull::update;

namespace {

/// Both round in every step, each in its own order.
template <class T>
double const most = std::is_same_v<T, double> ? 1e-13 : 4e-6;

}  // namespace

TEMPLATE_TEST_CASE("rules follow PyTorch for 50 steps", "[update]", float, double) {
  using T = TestType;
  pushpull::test::recording const pytorch("pytorch");
  pytorch.compare<T>("adagrad", update::adagrad{0.1, 0.01, 0.1}, most<T>);
  pytorch.compare<T>("rmsprop", update::rmsprop{0.01}, most<T>);
  pytorch.compare<T>("rmsprop_momentum", update::scale_by_rms{} | update::momentum{0.01, 0.9}, most<T>);
  pytorch.compare<T>("rmsprop_centered", update::centered_rmsprop{0.01, 0.9}, most<T>);
  pytorch.compare<T>("adadelta", update::adadelta{0.5}, most<T>);
  pytorch.compare<T>("adamax", update::adamax{0.02}, most<T>);
  pytorch.compare<T>("nadam", update::nadam{0.02}, most<T>);
  pytorch.compare<T>("radam", update::radam{0.02}, most<T>);
  pytorch.compare<T>("amsgrad", update::amsgrad{.learning_rate = 0.02, .beta2 = 0.9}, most<T>);
}

TEMPLATE_TEST_CASE("rules follow optax for 50 steps", "[update]", float, double) {
  using T = TestType;
  pushpull::test::recording const optax("optax");
  optax.compare<T>("lion", update::lion{0.01, 0.9, 0.99, 0.1}, most<T>);
  optax.compare<T>("sign_sgd", update::signsgd{0.01}, most<T>);
  optax.compare<T>("adabelief", update::adabelief{0.02}, most<T>);
  optax.compare<T>("yogi", update::yogi{0.02}, most<T>);
  optax.compare<T>("adamax", update::adamax{0.02}, most<T>);
  optax.compare<T>("trace", update::trace(0.8) | update::sgd{0.1}, most<T>);
  optax.compare<T>("trace_nesterov", update::trace(0.8, true) | update::sgd{0.1}, most<T>);
  optax.compare<T>("ema", update::adam{0.02} | update::ema(0.9), most<T>);
  optax.compare<T>("lookahead", update::adam{0.02} | update::lookahead(6, 0.4), most<T>);
}
