/// @file
/// An optimizer of one's own: a struct in the user's file, no kernel. It gets the same fused pass, the same slicing
/// over devices and the same mixed precision as the library's rules.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace mine {

// example-begin updater
/// Yogi (Zaheer et al. 2018): Adam whose second moment moves by a step of g^2, towards g^2.
struct yogi {
  double learning_rate = 1e-2, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-3;
  static constexpr auto state_names = pushpull::states("exp_avg", "exp_avg_sq");

  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g, V& m, V& v) const noexcept {
    m = beta1 * m + (1 - beta1) * g;
    v -= (1 - beta2) * select(v > g * g, g * g, select(v < g * g, -g * g, V(0)));
    w -= learning_rate * m / (sqrt(v) + epsilon);
  }
};
// example-end updater

// example-begin scalars
/// What depends on the step alone is computed once per step, in `prepare`: here a rate that falls as 1 / sqrt(t).
struct decaying_sgd {
  double learning_rate = 0.1;
  static constexpr auto state_names = pushpull::states();

  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(pushpull::step<A> const& step) const {
    return static_cast<A>(learning_rate / cuda::std::sqrt(static_cast<double>(step.t)));
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(A const& rate, V& w, V g) const noexcept {
    w -= rate * g;
  }
};
// example-end scalars

// example-begin branch
/// A rule that branches on values cannot run on vector registers; it says so, and runs element by element.
struct dead_zone {
  double learning_rate = 0.1, threshold = 0.05;
  static constexpr auto state_names = pushpull::states();
  static constexpr bool one_element_at_a_time = true;

  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g) const noexcept {
    if (abs(g) > threshold) w -= learning_rate * g;
  }
};
// example-end branch

// example-begin transform
/// A transform with a state: the rule behind it sees an average of the gradients that have come so far.
struct smooth {
  double decay = 0.9;
  static constexpr auto state_names = pushpull::states("average");

  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V const&, V& g, V& average) const noexcept {
    average = decay * average + (1 - decay) * g;
    g = average;
  }
};
// example-end transform

// example-begin norm
/// A rule with a norm of each key: every step has the length of the learning rate.
struct unit_sgd {
  double learning_rate = 1e-3;
  static constexpr auto state_names = pushpull::states();
  static constexpr bool per_tensor = true;

  template <class S, class V>
  PUSHPULL_HOST_DEVICE V pre_reduce(S const&, V, V g) const noexcept {
    return g * g;
  }
  template <class A>
  PUSHPULL_HOST_DEVICE A prepare(pushpull::step<A> const&, double sum) const {
    return static_cast<A>(sum > 0 ? learning_rate / cuda::std::sqrt(sum) : 0);
  }
  template <class A, class V>
  PUSHPULL_HOST_DEVICE void operator()(A const& rate, V& w, V g) const noexcept {
    w -= rate * g;
  }
};
// example-end norm

}  // namespace mine

/// Minimises sum (w - target)^2 / 2 with the rule's updates and prints where it ends. @returns whether that is near the target
template <class Updater>
bool minimise(char const* name, Updater const& updater) {
  std::vector<float> const target{1.0F, -2.0F, 3.0F};
  std::vector<float> weight(target.size(), 0.0F), gradient(target.size());
  pushpull::kv_store store{pushpull::cpu_devices(2), updater};
  store.init("w", weight);
  for (int step = 0; step < 2000; ++step) {
    for (std::size_t i = 0; i < target.size(); ++i) gradient[i] = weight[i] - target[i];
    store.pushpull("w", gradient, weight).wait();
  }
  store.wait();
  std::printf("%-12s %8.4f %8.4f %8.4f\n", name, double{weight[0]}, double{weight[1]}, double{weight[2]});
  return std::ranges::equal(weight, target, [](float w, float to) { return std::abs(w - to) < 0.06F; });
}

int main() {
  using pushpull::update::clip_value;
  bool const all[] = {minimise("yogi", mine::yogi{}), minimise("decaying_sgd", clip_value(1.0) | mine::decaying_sgd{}),
                      minimise("dead_zone", mine::dead_zone{}),
                      minimise("smooth", clip_value(1.0) | mine::smooth{} | mine::decaying_sgd{}),
                      minimise("unit_sgd", mine::unit_sgd{.learning_rate = 1e-2})};
  return std::ranges::count(all, false) == 0 ? 0 : 1;
}
