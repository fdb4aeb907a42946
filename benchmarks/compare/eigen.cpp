// Eigen's array expressions, one statement per formula: over each thread's whole share, and block by block.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>
#include <Eigen/Core>

#include "compare/contender.hpp"
#include "pass/rules.hpp"
#include "support/operands.hpp"

namespace pushpull::bench::compare {
namespace {

template <class T>
using eigen_scalar = std::conditional_t<std::is_same_v<T, float>, float, Eigen::bfloat16>;
template <class T>
using array = Eigen::Map<Eigen::Array<eigen_scalar<T>, Eigen::Dynamic, 1>>;

/// Elements [first, last) of a user's vector.
template <class T>
array<T> part(std::vector<T>& v, std::int64_t first, std::int64_t last) {
  return {reinterpret_cast<eigen_scalar<T>*>(v.data()) + first, last - first};
}

using floats = array<float>;

void apply(by_hand<update::sgd> const& r, floats w, floats g, floats*) { w -= r.learning_rate * g; }
void apply(by_hand<update::momentum> const& r, floats w, floats g, floats* s) {
  s[0] = r.momentum * s[0] + g;
  w -= r.learning_rate * s[0];
}
void apply(by_hand<update::adam> const& r, floats w, floats g, floats* s) {
  s[0] = r.beta1 * s[0] + (1 - r.beta1) * g;
  s[1] = r.beta2 * s[1] + (1 - r.beta2) * g.square();
  w -= r.step_size * s[0] / (s[1].sqrt() + r.epsilon);
}
void apply(by_hand<update::adamw> const& r, floats w, floats g, floats* s) {
  w *= r.decay;
  apply(static_cast<by_hand<update::adam> const&>(r), w, g, s);
}

template <class T, class Rule>
class eigen_step final : public contender {
 public:
  /// @param block  Elements that all statements are applied to before the next; 0: a thread's share.
  eigen_step(task const& t, int threads, std::int64_t block) : threads_(threads), block_(block) {
    for (auto const size : t.sizes) {
      auto& v = tensors_.emplace_back(size, t.gradients, t.mirrors, by_hand<Rule>::states);
      for (std::size_t k = 0; k < t.gradients; ++k) fill_gradient(v.gradient[k].data(), k, size);
      fill_weight(v.weight.data(), size);
      needs_sum_ = t.gradients > 1 || !std::is_same_v<T, float>;
      sums_.emplace_back(needs_sum_ ? v.weight.size() : 0);
    }
  }

  void step() override {
    auto const rule = at_step(by_hand<Rule>{}, ++t_);
    for (std::size_t j = 0; j < tensors_.size(); ++j) {
      auto const size = static_cast<std::int64_t>(tensors_[j].weight.size());
      constexpr std::int64_t small = std::int64_t{1} << 15;  // not worth a thread
      std::int64_t const share = size <= small ? size : (size / threads_ + 63) / 64 * 64;
      std::int64_t const block = block_ == 0 ? share : std::min(block_, share);
      auto const run = [&](std::int64_t task) {
        std::int64_t const last = std::min(size, (task + 1) * share);
        for (std::int64_t i = task * share; i < last; i += block) statements(rule, j, i, std::min(last, i + block));
      };
      if (share >= size) {
        run(0);
      } else {
        tbb::parallel_for(std::int64_t{0}, (size + share - 1) / share, run, tbb::static_partitioner());
      }
    }
  }

  std::vector<float> result(std::size_t j) override {
    auto const& v = tensors_[j];
    if (v.mirror.empty()) return v.weight;
    std::vector<float> values(v.weight.size());
    std::transform(v.mirror.back().begin(), v.mirror.back().end(), values.begin(),
                   [](T x) { return convert<float>(x); });
    return values;
  }

 private:
  void statements(by_hand<Rule> const& rule, std::size_t j, std::int64_t first, std::int64_t last) {
    auto& v = tensors_[j];
    auto w = part(v.weight, first, last);
    std::vector<floats> states;
    for (auto& s : v.state) states.push_back(part(s, first, last));
    if (needs_sum_) {
      auto sum = part(sums_[j], first, last);
      if (v.gradient.size() == 1) {
        sum = part(v.gradient[0], first, last).template cast<float>();
      } else {
        sum = part(v.gradient[0], first, last).template cast<float>() +
              part(v.gradient[1], first, last).template cast<float>();
      }
      for (std::size_t k = 2; k < v.gradient.size(); ++k)
        sum += part(v.gradient[k], first, last).template cast<float>();
      apply(rule, w, sum, states.data());
    } else if constexpr (std::is_same_v<T, float>) {
      apply(rule, w, part(v.gradient[0], first, last), states.data());
    }
    for (auto& mirror : v.mirror) part(mirror, first, last) = w.template cast<eigen_scalar<T>>();
  }

  int threads_;
  std::int64_t block_;
  bool needs_sum_ = false;
  int t_ = 0;
  std::vector<vectors<T>> tensors_;
  std::vector<std::vector<float>> sums_;
};

std::unique_ptr<contender> make(task const& t, int threads, std::int64_t block) {
  t.expect_step();
  return with_types(t, [&]<class T, class Rule>(T, Rule const&) -> std::unique_ptr<contender> {
    return std::make_unique<eigen_step<T, Rule>>(t, threads, block);
  });
}

}  // namespace

std::vector<entry> eigen_contenders() {
  return {{"Eigen", [](task const& t, int threads) { return make(t, threads, 0); }},
          {"Eigen, in blocks", [](task const& t, int threads) { return make(t, threads, 8192); }}};
}

}  // namespace pushpull::bench::compare
