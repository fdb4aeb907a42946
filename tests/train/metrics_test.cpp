/// @file
/// Metrics against their definitions in double, over any split of the samples.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <pushpull/train/metrics/classification.hpp>
#include <pushpull/train/metrics/composite.hpp>
#include <pushpull/train/metrics/regression.hpp>

#include "support/catch.hpp"
#include "support/counting_device.hpp"
#include "support/message_of.hpp"

using namespace pushpull;
using namespace pushpull::train;
using namespace pushpull::train::metrics;

namespace {

// example-begin own_terms
struct largest_error {
  static constexpr std::size_t sums = 2;
  static sample_layout layout(shape const&, shape const&) { return sample_layout::elements; }
  template <class Sample>
  PUSHPULL_HOST_DEVICE cuda::std::array<double, 2> operator()(Sample const& s) const {
    double const error = s.label() - s.output(0);
    return {error > 1 || error < -1 ? 1.0 : 0.0, 1};
  }
  double value(cuda::std::array<double, 2> const& sum) const { return sum[0] / sum[1]; }
  std::string name() const { return "errors above 1"; }
};
using large_errors = sample_metric<largest_error>;
// example-end own_terms

using view = tensor_view<float const>;
using label_view = tensor_view<std::int32_t const>;

static_assert(Metric<accuracy<>> && Metric<top_k<>> && Metric<f1<>> && Metric<mcc<>> && Metric<mae<>> && Metric<mse<>>);
static_assert(Metric<rmse<>> && Metric<cross_entropy<>> && Metric<perplexity<>> && Metric<loss<>>);
static_assert(Metric<composite<accuracy<>, loss<>>> && Metric<accuracy<>, view, label_view>);

/// `rows` samples of `classes` probabilities, and labels.
struct samples {
  std::int64_t rows, classes;
  std::vector<float> outputs;
  std::vector<std::int32_t> labels;

  samples(std::int64_t rows_, std::int64_t classes_, unsigned seed) : rows(rows_), classes(classes_) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> any(0.01F, 1);
    for (std::int64_t i = 0; i < rows; ++i) {
      float sum = 0;
      for (std::int64_t k = 0; k < classes; ++k) sum += outputs.emplace_back(any(random));
      for (std::int64_t k = 0; k < classes; ++k) *(outputs.end() - 1 - k) /= sum;
      labels.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(classes)));
    }
  }
  double output(std::int64_t row, std::int64_t k) const {
    return static_cast<double>(outputs[static_cast<std::size_t>(row * classes + k)]);
  }
  double of_label(std::int64_t row) const { return output(row, labels[static_cast<std::size_t>(row)]); }

  /// Gives rows [begin, end), of which the last `pad` are padding, to a device.
  template <class M>
  void give(M& metric, std::int64_t begin, std::int64_t end, int device = 0, std::int64_t pad = 0) const {
    cpu_device<> const on(device);
    view const of_rows(outputs.data() + begin * classes, shape{end - begin, classes}, on);
    label_view const of_labels(labels.data() + begin, shape{end - begin}, on);
    metric.update(std::span(&of_labels, 1), std::span(&of_rows, 1), counted_rows{end - begin - pad});
  }
};

double only(std::vector<metric_value> const& values) {
  REQUIRE(values.size() == 1);
  return values[0].value;
}

template <class Term>
double mean(std::int64_t rows, Term const& term) {
  double sum = 0;
  for (std::int64_t i = 0; i < rows; ++i) sum += term(i);
  return sum / static_cast<double>(rows);
}

/// The metric over all rows at once equals `expected`, and so it does over three devices and uneven slices with padding.
template <class M>
void check(M metric, samples const& s, double expected) {
  INFO(metric.values()[0].name << " of " << s.rows << " rows");
  s.give(metric, 0, s.rows);
  CHECK(only(metric.values()) == Approx(expected).epsilon(1e-12));
  metric.reset();
  std::int64_t at = 0;
  for (int call = 0; at < s.rows; ++call) {
    std::int64_t const end = std::min(s.rows, at + 1 + call * 7), pad = std::min<std::int64_t>(call % 3, end - at - 1);
    s.give(metric, at, end, call % 3, pad);
    at = end - pad;
  }
  CHECK(only(metric.values()) == Approx(expected).epsilon(1e-12));
  CHECK(only(metric.global_values()) == Approx(expected).epsilon(1e-12));
}

}  // namespace

TEST_CASE("C13: metrics of classes are means over samples, for any slices, devices and padding", "[train][metrics]") {
  for (std::int64_t const rows : {1, 2, 7, 255, 256, 257, 1009}) {
    samples const s(rows, 5, static_cast<unsigned>(rows));
    check(accuracy{}, s, mean(rows, [&](std::int64_t i) {
            for (std::int64_t k = 0; k < 5; ++k)
              if (s.output(i, k) > s.of_label(i)) return 0.0;
            return 1.0;
          }));
    for (std::int64_t const n : {1, 2, 5, 9})
      check(top_k{n}, s, mean(rows, [&](std::int64_t i) {
              std::int64_t larger = 0;
              for (std::int64_t k = 0; k < 5; ++k) larger += s.output(i, k) > s.of_label(i) ? 1 : 0;
              return larger < n ? 1.0 : 0.0;
            }));
    check(cross_entropy{}, s, mean(rows, [&](std::int64_t i) { return -std::log(s.of_label(i) + 1e-12); }));
    check(perplexity{}, s, std::exp(mean(rows, [&](std::int64_t i) { return -std::log(s.of_label(i)); })));
  }
}

TEST_CASE("C13: f1 and mcc are those of all samples' counts", "[train][metrics]") {
  for (std::int64_t const rows : {2, 31, 500}) {
    samples const s(rows, 2, 3);
    double tp = 0, fp = 0, fn = 0, tn = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      bool const predicted = s.output(i, 1) > s.output(i, 0), actual = s.labels[static_cast<std::size_t>(i)] == 1;
      (predicted ? (actual ? tp : fp) : (actual ? fn : tn)) += 1;
    }
    double const precision = tp / (tp + fp), recall = tp / (tp + fn);
    check(f1{}, s, tp > 0 ? 2 * precision * recall / (precision + recall) : 0);
    double denominator = 1;
    for (double const side : {tp + fp, tp + fn, tn + fp, tn + fn})
      if (side > 0) denominator *= side;
    check(mcc{}, s, (tp * tn - fp * fn) / std::sqrt(denominator));
  }
}

TEST_CASE("C13: mae, mse, rmse and loss are means over elements, the root of all of them", "[train][metrics]") {
  samples const s(101, 3, 11), labels(101, 3, 12);
  auto const error = [&](std::int64_t i) { return s.output(i / 3, i % 3) - labels.output(i / 3, i % 3); };
  double const mean_square = mean(303, [&](std::int64_t i) { return error(i) * error(i); });
  auto const split = [&](auto metric, double expected) {
    for (std::int64_t at = 0, end = 0; at < s.rows; at = end) {
      end = std::min(s.rows, at + 1 + 3 * at);
      cpu_device<> const device(static_cast<int>(at % 2));
      view const outputs(s.outputs.data() + 3 * at, shape{end - at, 3}, device);
      view const truth(labels.outputs.data() + 3 * at, shape{3 * (end - at)}, device);
      metric.update(std::span(&truth, 1), std::span(&outputs, 1));
    }
    CHECK(only(metric.values()) == Approx(expected).epsilon(1e-12));
  };
  split(mae{}, mean(303, [&](std::int64_t i) { return std::abs(error(i)); }));
  split(mse{}, mean_square);
  split(rmse{}, std::sqrt(mean_square));
  split(loss{}, mean(303, [&](std::int64_t i) { return s.output(i / 3, i % 3); }));
}

TEST_CASE("C13: reset_local clears the local sums alone, and metrics of nothing are NaN", "[train][metrics]") {
  samples const s(10, 4, 5);
  composite all{accuracy{}, f1{}, mcc{}, cross_entropy{}, perplexity{}, mae{}, rmse{}, loss{}};
  for (auto const& value : all.values()) CHECK(std::isnan(value.value));
  cross_entropy metric;
  s.give(metric, 0, 6);
  metric.reset_local();
  CHECK(std::isnan(only(metric.values())));
  s.give(metric, 6, 10);
  CHECK(only(metric.values()) ==
        Approx(mean(4, [&](std::int64_t i) { return -std::log(s.of_label(6 + i) + 1e-12); })).epsilon(1e-12));
  CHECK(only(metric.global_values()) ==
        Approx(mean(10, [&](std::int64_t i) { return -std::log(s.of_label(i) + 1e-12); })).epsilon(1e-12));
  metric.reset();
  CHECK(std::isnan(only(metric.global_values())));
  s.give(metric, 0, 3, 0, 3);  // padding alone
  s.give(metric, 0, 0);
  CHECK(std::isnan(only(metric.values())));
}

TEST_CASE("C13: accuracy takes classes on axis 1, and elements where labels have the outputs' shape",
          "[train][metrics]") {
  std::vector<float> const outputs{0.1F, 0.9F, 0.8F, 0.2F, /* */ 0.9F, 0.1F, 0.2F, 0.8F};  // (2 classes, 2 places)
  std::vector<std::int64_t> const labels{1, 0, 1, 1};
  tensor_view const out(outputs.data(), shape{2, 2, 2});
  tensor_view const truth(labels.data(), shape{2, 2});
  accuracy metric;  // by place: sample 0: classes 1, 0; sample 1: classes 0, 1
  metric.update(std::span(&truth, 1), std::span(&out, 1));
  CHECK(only(metric.values()) == Approx(0.75));
  tensor_view const last(outputs.data(), shape{4, 2});
  tensor_view const flat(labels.data(), shape{4, 1});
  accuracy by_row;  // 1, 0, 0, 1
  by_row.update(std::span(&flat, 1), std::span(&last, 1));
  CHECK(only(by_row.values()) == Approx(0.75));
  std::vector<float> const predicted{1.2F, 0, 1, 0};
  tensor_view const elements(predicted.data(), shape{2, 2});
  accuracy same;
  same.update(std::span(&truth, 1), std::span(&elements, 1));
  CHECK(only(same.values()) == Approx(0.75));
}

TEST_CASE("C13: perplexity leaves out the ignored label; labels that are no class make losses NaN",
          "[train][metrics]") {
  samples s(50, 4, 8);
  double sum = 0, count = 0;
  for (std::int64_t i = 0; i < 50; ++i)
    if (s.labels[static_cast<std::size_t>(i)] != 2) sum -= std::log(s.of_label(i)), ++count;
  check(perplexity{2}, s, std::exp(sum / count));
  s.labels[7] = 4;
  cross_entropy metric;
  accuracy hits;
  top_k near{4};
  s.give(metric, 0, 50);
  s.give(hits, 7, 8);
  s.give(near, 6, 8);
  CHECK(std::isnan(only(metric.values())));
  CHECK(only(hits.values()) == Approx(0));
  CHECK(only(near.values()) == Approx(0.5));
}

TEST_CASE("padding is found on any batch axis", "[train][metrics]") {
  std::vector<float> const losses{1, 2, 100, 3, 4, 100};  // (2 steps, 3 samples)
  tensor_view const out(losses.data(), shape{2, 3});
  loss metric;
  metric.update(std::span<view const>(), std::span(&out, 1), {2, 1});
  CHECK(only(metric.values()) == Approx(2.5));
  loss all;
  all.update(std::span<view const>(), std::span(&out, 1), {1, -1});
  CHECK(only(all.values()) == Approx(35));
}

TEST_CASE("metrics refuse tensors that do not belong together, and hold what they held", "[train][metrics]") {
  samples const s(4, 3, 1);
  cross_entropy metric;
  s.give(metric, 0, 4);
  double const before = only(metric.values());
  view const outputs(s.outputs.data(), shape{4, 3});
  label_view const three(s.labels.data(), shape{3});
  CHECK(test::message_of<shape_mismatch>([&] { metric.update(std::span(&three, 1), std::span(&outputs, 1)); }) ==
        "cross-entropy: 4 labels expected for outputs of shape (4, 3), got 3");
  CHECK_THROWS_AS(metric.update(std::span<label_view const>(), std::span(&outputs, 1)), shape_mismatch);
  label_view const four(s.labels.data(), shape{4});
  CHECK_THROWS_AS(metric.update(std::span(&four, 1), std::span(&outputs, 1), {3, 1}), bad_option);
  CHECK_THROWS_AS(metric.update(std::span(&four, 1), std::span(&outputs, 1), {-1}), bad_option);
  view const flat(s.outputs.data(), shape{12});
  CHECK_THROWS_AS(accuracy{}.update(std::span(&four, 1), std::span(&flat, 1)), shape_mismatch);
  CHECK_THROWS_AS(top_k{0}, invalid_argument);
  CHECK(only(metric.values()) == Approx(before));
}

TEST_CASE("a metric of the user is a struct of terms", "[train][metrics]") {
  std::vector<double> const outputs{0, 1, 2, 3}, truth{0.5, -1, 3.5, 3};
  large_errors metric;
  tensor_view const out(outputs.data(), shape{4}), label(truth.data(), shape{4});
  metric.update(std::span(&label, 1), std::span(&out, 1), {3});
  CHECK(only(metric.values()) == Approx(2.0 / 3));
}

TEST_CASE("a metric allocates nothing after its first batch", "[train][metrics]") {
  test::counting_device const device(0);
  std::vector<float> const p(4000, 0.25F);
  std::vector<std::int32_t> const classes(1000, 1);
  cross_entropy<test::counting_device> metric;
  tensor_view const out(p.data(), shape{1000, 4}, device);
  tensor_view const label(classes.data(), shape{1000}, device);
  metric.update(std::span(&label, 1), std::span(&out, 1));
  device.count().clear();
  for (int batch = 0; batch < 3; ++batch) metric.update(std::span(&label, 1), std::span(&out, 1));
  metric.reset_local();
  CHECK(device.count().allocations == 0);
  CHECK(device.count().copies == 0);
  CHECK(only(metric.global_values()) == Approx(std::log(4)));
}

TEST_CASE("a composite has all values in order, a custom metric is a function of the tensors", "[train][metrics]") {
  samples const s(9, 3, 2);
  auto const rows = [](auto const&, auto const& outputs, counted_rows counted) {
    return weighted_sum{static_cast<double>(outputs[0].shape()[1]) * static_cast<double>(counted.rows),
                        static_cast<double>(counted.rows)};
  };
  composite all{accuracy{}, custom{"classes", rows}};
  s.give(all, 0, 4);
  s.give(all, 4, 9, 1, 2);
  auto const values = all.values();
  REQUIRE(values.size() == 2);
  CHECK(values[0].name == "accuracy");
  CHECK(values[1].name == "classes");
  CHECK(values[1].value == Approx(3));
  all.reset_local();
  CHECK(std::isnan(all.values()[1].value));
  CHECK(all.global_values()[1].value == Approx(3));
}
