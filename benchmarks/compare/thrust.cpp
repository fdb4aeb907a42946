// Thrust on oneTBB as its users write it: one functor of one element, and separate algorithms.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <thrust/copy.h>
#include <thrust/functional.h>
#include <thrust/transform.h>

#include "compare/contender.hpp"
#include "pass/hand_loops.hpp"
#include "pass/rules.hpp"

namespace pushpull::bench::compare {
namespace {

template <class T, class Rule>
class thrust_step : public contender {
 public:
  explicit thrust_step(task const& t) {
    for (auto const size : t.sizes) {
      auto& v = tensors_.emplace_back(size, t.gradients, t.mirrors, by_hand<Rule>::states);
      for (std::size_t k = 0; k < t.gradients; ++k) fill_gradient(v.gradient[k].data(), k, size);
      fill_weight(v.weight.data(), size);
    }
  }

  std::vector<float> result(std::size_t j) final {
    auto const& v = tensors_[j];
    if (v.mirror.empty()) return v.weight;
    std::vector<float> values(v.weight.size());
    std::transform(v.mirror.back().begin(), v.mirror.back().end(), values.begin(),
                   [](T x) { return convert<float>(x); });
    return values;
  }

 protected:
  std::vector<vectors<T>> tensors_;
  int t_ = 0;
};

template <class T, class Rule>
class functor_step final : public thrust_step<T, Rule> {
 public:
  using thrust_step<T, Rule>::thrust_step;

  void step() override {
    auto const rule = at_step(by_hand<Rule>{}, ++this->t_);
    for (auto& v : this->tensors_) {
      if (v.gradient.size() == 1 && v.mirror.empty()) {
        zipped_functor(rule, v, std::make_index_sequence<by_hand<Rule>::states>{});
      } else {
        scalar_functor(rule, v);
      }
    }
  }
};

/// transform adds, for_each updates, copy copies.
template <class Rule>
class algorithms_step final : public thrust_step<float, Rule> {
 public:
  explicit algorithms_step(task const& t) : thrust_step<float, Rule>(t) {
    // The sum has to lie where the rule reads its gradient; with one source that is the source itself.
    if (t.gradients > 1)
      for (auto& v : this->tensors_) v.gradient.emplace_back(v.weight.size());
  }

  void step() override {
    auto const rule = at_step(by_hand<Rule>{}, ++this->t_);
    for (auto& v : this->tensors_) {
      auto& sum = v.gradient.back();
      if (std::size_t const sources = v.gradient.size() - 1; sources > 0) {
        add(v.gradient[0], v.gradient[1], sum);
        for (std::size_t k = 2; k < sources; ++k) add(sum, v.gradient[k], sum);
      }
      update(rule, v, sum, std::make_index_sequence<by_hand<Rule>::states>{});
      for (auto& mirror : v.mirror) thrust::copy(thrust::tbb::par, v.weight.begin(), v.weight.end(), mirror.begin());
    }
  }

 private:
  static void add(std::vector<float> const& a, std::vector<float> const& b, std::vector<float>& sum) {
    thrust::transform(thrust::tbb::par, a.begin(), a.end(), b.begin(), sum.begin(), thrust::plus<float>());
  }

  template <std::size_t... K>
  static void update(by_hand<Rule> const& rule, vectors<float>& v, std::vector<float> const& g,
                     std::index_sequence<K...>) {
    auto const first =
        thrust::make_zip_iterator(thrust::make_tuple(v.weight.begin(), g.begin(), v.state[K].begin()...));
    thrust::for_each_n(thrust::tbb::par, first, v.weight.size(),
                       [rule](auto t) { rule(thrust::get<0>(t), float{thrust::get<1>(t)}, thrust::get<2 + K>(t)...); });
  }
};

std::unique_ptr<contender> functor(task const& t, int) {
  t.expect_step();
  return with_types(t, [&]<class T, class Rule>(T, Rule const&) -> std::unique_ptr<contender> {
    return std::make_unique<functor_step<T, Rule>>(t);
  });
}

std::unique_ptr<contender> algorithms(task const& t, int) {
  t.expect_step();
  t.expect_float();
  return with_rule(t, [&]<class Rule>(Rule const&) -> std::unique_ptr<contender> {
    return std::make_unique<algorithms_step<Rule>>(t);
  });
}

}  // namespace

std::vector<entry> thrust_contenders() { return {{"Thrust functor", functor}, {"Thrust algorithms", algorithms}}; }

}  // namespace pushpull::bench::compare
