/// @file
/// Metrics of classes: accuracy, top_k, f1, mcc, cross_entropy, perplexity.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include <cuda/std/cmath>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/metrics/sample_metric.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::metrics {

namespace detail {

using train::detail::sums_of;

/// The class with the largest output, the first of equal ones.
template <class Sample>
PUSHPULL_HOST_DEVICE std::int64_t predicted_class(Sample const& s) {
  std::int64_t best = 0;
  for (std::int64_t k = 1; k < s.classes; ++k)
    if (s.output(k) > s.output(best)) best = k;
  return best;
}

/// The output of the label's class; NaN if there is no such class.
template <class Sample>
PUSHPULL_HOST_DEVICE double output_of_label(Sample const& s) {
  return s.has_class() ? s.output(s.label_class()) : cuda::std::numeric_limits<double>::quiet_NaN();
}

/// Samples along an axis, whose label is a class.
struct of_classes {
  static sample_layout layout(shape const&, shape const&) { return sample_layout::classes; }
};

/// Elements that are predictions themselves where they have the shape of the labels, or else samples along an axis.
struct of_classes_or_elements {
  static sample_layout layout(shape const& label, shape const& output) {
    return label == output ? sample_layout::elements : sample_layout::classes;
  }
};

struct accuracy_terms : of_classes_or_elements {
  static constexpr std::size_t sums = 2;
  int class_axis = 1;

  template <class Sample>
  PUSHPULL_HOST_DEVICE sums_of<2> operator()(Sample const& s) const {
    auto const predicted = s.elementwise ? convert<std::int64_t>(s.output(0)) : predicted_class(s);
    return {predicted == s.label_class() ? 1.0 : 0.0, 1};
  }
  double value(sums_of<2> const& sum) const { return sum[0] / sum[1]; }
  std::string name() const { return "accuracy"; }
};

struct top_k_terms : of_classes {
  static constexpr std::size_t sums = 2;
  std::int64_t k = 1;

  template <class Sample>
  PUSHPULL_HOST_DEVICE sums_of<2> operator()(Sample const& s) const {
    double const own = output_of_label(s);
    std::int64_t before = 0;
    for (std::int64_t other = 0; other < s.classes; ++other)
      if (s.output(other) > own || (s.output(other) >= own && other < s.label_class())) ++before;
    return {own <= own && before < k ? 1.0 : 0.0, 1};
  }
  double value(sums_of<2> const& sum) const { return sum[0] / sum[1]; }
  std::string name() const { return "top_k_accuracy_" + std::to_string(k); }
};

/// True and false positives, false and true negatives of class 1 of two.
struct confusion : of_classes_or_elements {
  static constexpr std::size_t sums = 4;

  template <class Sample>
  PUSHPULL_HOST_DEVICE sums_of<4> operator()(Sample const& s) const {
    bool const predicted = s.classes == 1 ? s.output(0) > 0.5 : predicted_class(s) == 1, actual = s.label_class() == 1;
    return {predicted && actual ? 1.0 : 0.0, predicted && !actual ? 1.0 : 0.0, !predicted && actual ? 1.0 : 0.0,
            !predicted && !actual ? 1.0 : 0.0};
  }
};

struct f1_terms : confusion {
  double value(sums_of<4> const& n) const {
    if (!(n[0] + n[1] + n[2] + n[3] > 0)) return std::numeric_limits<double>::quiet_NaN();
    return n[0] > 0 ? 2 * n[0] / (2 * n[0] + n[1] + n[2]) : 0;
  }
  std::string name() const { return "f1"; }
};

struct mcc_terms : confusion {
  double value(sums_of<4> const& n) const {
    if (!(n[0] + n[1] + n[2] + n[3] > 0)) return std::numeric_limits<double>::quiet_NaN();
    double denominator = 1;
    for (double const side : {n[0] + n[1], n[0] + n[2], n[3] + n[1], n[3] + n[2]})
      if (side > 0) denominator *= std::sqrt(side);
    return (n[0] * n[3] - n[1] * n[2]) / denominator;
  }
  std::string name() const { return "mcc"; }
};

struct cross_entropy_terms : of_classes {
  static constexpr std::size_t sums = 2;
  double epsilon = 1e-12;

  template <class Sample>
  PUSHPULL_HOST_DEVICE sums_of<2> operator()(Sample const& s) const {
    return {-cuda::std::log(output_of_label(s) + epsilon), 1};
  }
  double value(sums_of<2> const& sum) const { return sum[0] / sum[1]; }
  std::string name() const { return "cross-entropy"; }
};

struct perplexity_terms : of_classes {
  static constexpr std::size_t sums = 2;
  std::int64_t ignored = 0;
  bool ignores = false;

  template <class Sample>
  PUSHPULL_HOST_DEVICE sums_of<2> operator()(Sample const& s) const {
    if (ignores && s.label_class() == ignored) return {};
    double const p = output_of_label(s);
    return {-cuda::std::log(p < 1e-10 ? 1e-10 : p), 1};
  }
  double value(sums_of<2> const& sum) const { return std::exp(sum[0] / sum[1]); }
  std::string name() const { return "perplexity"; }
};

}  // namespace detail

/// The part of samples whose label has the largest output along axis `class_axis`. Of labels and outputs with the same shape
/// the elements are compared, truncated to integers.
template <Device D = cpu_device<>>
class accuracy : public sample_metric<detail::accuracy_terms, D> {
 public:
  explicit accuracy(int class_axis = 1)
      : sample_metric<detail::accuracy_terms, D>(detail::accuracy_terms{{}, class_axis}) {}
};

/// The part of samples whose label is among the k largest outputs along the last axis; of equal outputs the first are.
/// @throws invalid_argument unless k is at least 1
template <Device D = cpu_device<>>
class top_k : public sample_metric<detail::top_k_terms, D> {
 public:
  explicit top_k(std::int64_t k) : sample_metric<detail::top_k_terms, D>(detail::top_k_terms{{}, k}) {
    pushpull::detail::expects<invalid_argument>(
        k >= 1, [&] { return "top_k: a k of at least 1 expected, got " + std::to_string(k); });
  }
};

/// 2 precision recall / (precision + recall) of class 1 of two, from the counts of all samples. A mean over calls, MXNet's
/// "macro", would depend on the number of devices. An output of one element is the probability of class 1. From the counts it is
/// 2 tp / (2 tp + fp + fn); 0 without true positives (van Rijsbergen, Information Retrieval, 1979).
template <Device D = cpu_device<>>
class f1 : public sample_metric<detail::f1_terms, D> {
 public:
  f1() = default;
};

/// Matthews' correlation coefficient of class 1 of two, from the counts of all samples; outputs as of `f1`.
/// (tp tn - fp fn) / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn)), where an empty sum counts as 1 (Matthews 1975, Biochimica et
/// Biophysica Acta 405).
template <Device D = cpu_device<>>
class mcc : public sample_metric<detail::mcc_terms, D> {
 public:
  mcc() = default;
};

/// The mean of -ln(p + epsilon), where p is the output of the label's class along the last axis. A label that is no class
/// makes it NaN.
template <Device D = cpu_device<>>
class cross_entropy : public sample_metric<detail::cross_entropy_terms, D> {
 public:
  explicit cross_entropy(double epsilon = 1e-12)
      : sample_metric<detail::cross_entropy_terms, D>(detail::cross_entropy_terms{{}, epsilon}) {}
};

/// exp of the mean of -ln max(1e-10, p), as cross_entropy, over all labels but the ignored one (Jelinek, Mercer, Bahl & Baker 1977;
/// the bound of 1e-10 is MXNet's).
template <Device D = cpu_device<>>
class perplexity : public sample_metric<detail::perplexity_terms, D> {
 public:
  explicit perplexity(std::optional<std::int64_t> ignored_label = std::nullopt)
      : sample_metric<detail::perplexity_terms, D>(
            detail::perplexity_terms{{}, ignored_label.value_or(0), ignored_label.has_value()}) {}
};

}  // namespace pushpull::train::metrics
