// This library: its stores, and its pass over one array without a store around it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "compare/contender.hpp"
#include "compare/flat.hpp"
#include "compare/parameter_store_step.hpp"
#include "pass/bare_pass.hpp"

namespace pushpull::bench::compare {
namespace {

template <class T>
using element_policy = std::conditional_t<std::is_same_v<T, float>, element::uniform, element::master<float>>;

/// Tensors of the task's sizes.
template <class T>
std::vector<tensor<T>> tensors(task const& t) {
  std::vector<tensor<T>> result;
  for (auto const size : t.sizes) result.emplace_back(cpu_device<>(), shape{size});
  return result;
}

/// kv_store::pushpull of a list of keys: gradients in the caller's tensors, outputs in others of the caller.
template <class T, class Rule, class Compressor = compress::none>
class kv_store_step final : public contender {
 public:
  kv_store_step(task const& t, Rule const& rule)
      : keys_(t.sizes.size()), store_({cpu_device<>()}, rule, element_policy<T>{}, integer_keys{}, Compressor{}) {
    std::iota(keys_.begin(), keys_.end(), 0);
    {
      auto initial = tensors<float>(t);
      for (auto& value : initial) fill_weight(value.data(), static_cast<std::int64_t>(value.size()));
      store_.init(keys_, initial);
    }
    gradient_views_.resize(keys_.size());
    output_views_.resize(keys_.size());
    for (std::size_t k = 0; k < t.gradients; ++k) {
      gradients_.push_back(tensors<T>(t));
      for (std::size_t j = 0; j < keys_.size(); ++j) {
        auto& g = gradients_.back()[j];
        fill_gradient(g.data(), k, static_cast<std::int64_t>(g.size()));
        gradient_views_[j].push_back(g.view());
      }
    }
    for (std::size_t r = 0; r < t.mirrors; ++r) {
      outputs_.push_back(tensors<T>(t));
      for (std::size_t j = 0; j < keys_.size(); ++j) output_views_[j].push_back(outputs_.back()[j].view());
    }
  }

  void step() override { store_.pushpull(keys_, gradient_views_, output_views_).wait(); }

  std::vector<float> result(std::size_t j) override {
    auto const& last = outputs_.back()[j];
    std::vector<float> values(last.size());
    std::transform(last.data(), last.data() + last.size(), values.begin(), [](T x) { return convert<float>(x); });
    return values;
  }

 private:
  std::vector<std::int64_t> keys_;
  kv_store<T, cpu_device<>, Rule, element_policy<T>, integer_keys, Compressor> store_;
  std::vector<std::vector<tensor<T>>> gradients_, outputs_;
  std::vector<std::vector<tensor_view<T>>> gradient_views_, output_views_;
};

/// The pass over one array of as many elements as all tensors have: what a store could reach.
template <class T, class Rule>
class one_array final : public contender {
 public:
  one_array(task const& t, Rule const& rule)
      : operands_(cpu_device<>(), t.sizes, t, detail::state_count<Rule>),
        pass_(cpu_device<>(), operands_.get(), rule) {}

  void step() override { pass_(); }
  std::vector<float> result(std::size_t j) override { return operands_.result(j); }

 private:
  filled_operands<T> operands_;
  bare_pass<T, Rule> pass_;
};

using codes_of_8_bits = state_codecs<256, codec::linear, codec::of<"exp_avg_sq", codec::unsigned_float8>>;
using row_adagrad = update::basic_group_adagrad<update::epsilon_outside_root>;

/// push of row-sparse gradients.
template <class Rule>
class row_push final : public contender {
 public:
  row_push(task const& t, Rule const& rule)
      : store_({cpu_device<>()}, rule),
        whole_{t.rows, t.row_length},
        ids_(row_ids(t)),
        values_(static_cast<std::size_t>(t.given_rows * t.row_length)) {
    std::vector<float> initial(whole_.size());
    fill_weight(initial.data(), t.rows * t.row_length);
    store_.init("table", tensor_view<float>(initial.data(), whole_));
    fill_gradient(values_.data(), 0, t.given_rows * t.row_length);
  }

  void step() override {
    auto const rows = static_cast<std::int64_t>(ids_.size());
    store_.push("table", row_sparse_view<float const>(values_.data(), ids_.data(), rows, whole_)).wait();
  }

  std::vector<float> result(std::size_t) override {
    std::vector<float> values(whole_.size());
    store_.pull("table", tensor_view<float>(values.data(), whole_)).wait();
    return values;
  }

 private:
  kv_store<float, cpu_device<>, Rule> store_;
  shape whole_;
  std::vector<std::int64_t> ids_;
  std::vector<float> values_;
};

/// row_sparse_pull.
class row_pull final : public contender {
 public:
  explicit row_pull(task const& t)
      : store_({cpu_device<>()}), ids_(row_ids(t)), output_(cpu_device<>(), shape{t.rows, t.row_length}) {
    std::vector<float> initial(static_cast<std::size_t>(t.rows * t.row_length));
    fill_weight(initial.data(), t.rows * t.row_length);
    store_.init("table", tensor_view<float>(initial.data(), shape{t.rows, t.row_length}));
  }

  void step() override { store_.row_sparse_pull("table", output_, ids_).wait(); }

  std::vector<float> result(std::size_t) override {
    return {output_.values(), output_.values() + output_.rows() * output_.row_length()};
  }

 private:
  kv_store<float, cpu_device<>> store_;
  std::vector<std::int64_t> ids_;
  row_sparse<float> output_;
};

std::unique_ptr<contender> ours(task const& t, int) {
  if (t.operation == "pull_rows") return std::make_unique<row_pull>(t);
  if (t.operation == "push_rows") {
    if (t.rule == "sgd") return std::make_unique<row_push<update::sgd>>(t, update::sgd{});
    if (t.rule == "adam") return std::make_unique<row_push<update::adam>>(t, update::adam{});
    if (t.rule == "row_adagrad") return std::make_unique<row_push<row_adagrad>>(t, row_adagrad{});
    throw unsupported("rows with " + t.rule + " are not among the cases");
  }
  if (t.operation == "two_bit")
    return std::make_unique<kv_store_step<float, update::momentum, compress::two_bit>>(t, update::momentum{});
  t.expect_step();
  if (t.rule == "muon") return our_muon(t);
  if (t.rule == "adamw8")
    return std::make_unique<parameter_store_step<update::adamw, codes_of_8_bits>>(t, update::adamw{},
                                                                                  codes_of_8_bits{});
  bool const in_place = t.element == "float" && t.mirrors + 1 == t.gradients;
  if (in_place)
    return with_rule(t, [&]<class Rule>(Rule const& rule) -> std::unique_ptr<contender> {
      return std::make_unique<parameter_store_step<Rule>>(t, rule);
    });
  if (t.mirrors == 0) throw unsupported("several gradients and no mirror are not among the cases");
  return with_types(t, [&]<class T, class Rule>(T, Rule const& rule) -> std::unique_ptr<contender> {
    return std::make_unique<kv_store_step<T, Rule>>(t, rule);
  });
}

std::unique_ptr<contender> our_pass(task const& t, int) {
  t.expect_step();
  return with_types(t, [&]<class T, class Rule>(T, Rule const& rule) -> std::unique_ptr<contender> {
    return std::make_unique<one_array<T, Rule>>(t, rule);
  });
}

}  // namespace

std::vector<entry> our_contenders() { return {{"ours", ours}, {"ours, one array", our_pass}}; }

}  // namespace pushpull::bench::compare
