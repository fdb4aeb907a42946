/// @file
/// Metrics that are sums over samples: where each sample's label and outputs are, and which of them count.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/tensor.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/train/metrics/metric.hpp>
#include <pushpull/train/metrics/metric_sums.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// A sample as a metric's terms see it: a label, and `classes` outputs, in double.
template <class Label, class Output>
struct sample {
  Label const* label_place;
  Output const* first;
  std::int64_t classes, stride;
  bool elementwise;  ///< sample_layout::elements

  PUSHPULL_HOST_DEVICE double output(std::int64_t k) const { return convert<double>(first[k * stride]); }
  PUSHPULL_HOST_DEVICE double label() const { return convert<double>(*label_place); }
  PUSHPULL_HOST_DEVICE std::int64_t label_class() const { return convert<std::int64_t>(*label_place); }
  /// Whether the label is one of the classes.
  PUSHPULL_HOST_DEVICE bool has_class() const { return label_class() >= 0 && label_class() < classes; }
};

/// Which elements of an output belong to one sample.
enum class sample_layout {
  classes,   ///< those along the axis of the classes; a label per sample
  elements,  ///< one; a label per element
  outputs    ///< one; no labels
};

/// The terms of a metric's sums: a trivially copyable functor that runs on devices.
/// Needs:  static layout(label shape, output shape) -> sample_layout; static std::size_t sums;
///         operator()(sample) -> cuda::std::array<double, sums>, callable on host and device;
///         value(cuda::std::array<double, sums>) -> double, on the host; name() -> std::string.
template <class T>
concept MetricTerms =
    std::is_trivially_copyable_v<T> && requires(T const& terms, sample<float, float> const& s, shape const& of_label,
                                                shape const& of_output, detail::sums_of<T::sums> const& sums) {
      { T::layout(of_label, of_output) } -> std::same_as<sample_layout>;
      { terms(s) } -> std::same_as<detail::sums_of<T::sums>>;
      { terms.value(sums) } -> std::convertible_to<double>;
      { terms.name() } -> std::convertible_to<std::string>;
    };

namespace detail {

/// The samples of one output: `n` of them, with `classes` elements each, `stride` apart.
struct sample_places {
  std::int64_t n, classes, stride;
  bool elementwise;
  std::int64_t row_stride, rows, counted;  ///< of the batch axis; all count if rows is 0

  PUSHPULL_HOST_DEVICE std::int64_t first(std::int64_t i) const { return i / stride * classes * stride + i % stride; }
  PUSHPULL_HOST_DEVICE bool counts(std::int64_t i) const { return rows == 0 || first(i) / row_stride % rows < counted; }
};

/// @param class_axis  Negative counts from the end; ignored unless the layout is `classes`.
inline sample_places places_of(std::string const& metric, shape const& output, sample_layout layout, int class_axis,
                               counted_rows counted) {
  int const rank = static_cast<int>(output.rank());
  int const axis = class_axis < 0 ? rank + class_axis : class_axis;
  bool const has_classes = layout == sample_layout::classes;
  pushpull::detail::expects<shape_mismatch>(!has_classes || (axis >= 0 && axis < rank), [&] {
    return metric + ": outputs with classes on axis " + std::to_string(class_axis) + " expected, got shape " +
           to_string(output);
  });
  pushpull::detail::expects<bad_option>(
      counted.axis < rank && counted.rows >= 0 && (!has_classes || counted.axis != axis), [&] {
        return metric + ": outputs of shape " + to_string(output) + " have no rows to count on axis " +
               std::to_string(counted.axis);
      });
  auto const stride_of = [&](int of) {
    std::int64_t stride = 1;
    for (int i = of + 1; i < rank; ++i) stride *= output[static_cast<std::size_t>(i)];
    return stride;
  };
  sample_places places{0, 1, 1, layout == sample_layout::elements, 1, 0, counted.rows};
  if (has_classes) {
    places.classes = output[static_cast<std::size_t>(axis)];
    places.stride = stride_of(axis);
  }
  if (output.size() != 0) places.n = static_cast<std::int64_t>(output.size()) / places.classes;
  if (counted.axis >= 0) {
    places.rows = output[static_cast<std::size_t>(counted.axis)];
    places.row_stride = stride_of(counted.axis);
  }
  return places;
}

/// The sums of `leaf` samples in a row.
template <class Terms, class Label, class Output>
struct sample_leaves {
  static constexpr std::int64_t leaf = 256;
  Terms terms;
  sample_places places;
  Label const* labels;
  Output const* outputs;

  PUSHPULL_HOST_DEVICE std::int64_t slot(std::int64_t i) const { return i; }
  PUSHPULL_HOST_DEVICE sums_of<Terms::sums> operator()(std::int64_t number, std::int32_t t,
                                                       std::int32_t threads) const {
    sums_of<Terms::sums> sum{};
    std::int64_t const begin = number * leaf, end = begin + leaf < places.n ? begin + leaf : places.n;
    for (std::int64_t i = begin + t; i < end; i += threads) {
      if (!places.counts(i)) continue;
      auto const own = terms(sample<Label, Output>{labels == nullptr ? nullptr : labels + i, outputs + places.first(i),
                                                   places.classes, places.stride, places.elementwise});
      for (std::size_t k = 0; k < Terms::sums; ++k) sum[k] += own[k];
    }
    return sum;
  }
};

}  // namespace detail

/// A Metric of terms, summed in double on the devices of the outputs. Sums count samples, never calls or slices.
/// @tparam D  The kind of device of labels and outputs.
/// A metric of your own is a struct of MetricTerms. If it has a `class_axis` this is the axis of the classes, else the last.
/// `update` allocates if a device is new or gets more samples than before, and waits for nothing.
template <MetricTerms Terms, Device D = cpu_device<>>
class sample_metric {
 public:
  using device_type = D;

  explicit sample_metric(Terms const& terms = {}) : terms_(terms) {}

  /// Label i belongs to output i; a metric of outputs alone takes any labels.
  /// @throws shape_mismatch if numbers or sizes of labels and outputs do not agree
  template <std::ranges::input_range Labels, std::ranges::input_range Outputs>
    requires Tensor<std::ranges::range_value_t<Labels>> && Tensor<std::ranges::range_value_t<Outputs>>
  void update(Labels const& labels, Outputs const& outputs, counted_rows counted = {}) {
    auto label = std::ranges::begin(labels);
    for (auto const& output : outputs) {
      bool const given = label != std::ranges::end(labels);
      if (given) {
        add(label->data(), label->shape(), output, counted);
        ++label;
      } else {
        using label_type = std::remove_const_t<typename std::ranges::range_value_t<Labels>::value_type>;
        add(static_cast<label_type const*>(nullptr), shape{0}, output, counted);
      }
    }
  }

  void reset() { sums_.reset(true); }
  void reset_local() { sums_.reset(false); }
  std::vector<metric_value> values() const { return {{terms_.name(), terms_.value(sums_.read(false))}}; }
  std::vector<metric_value> global_values() const { return {{terms_.name(), terms_.value(sums_.read(true))}}; }
  /// The sums since `reset`: those of several ranks may be added, and terms().value() makes a value of them.
  detail::sums_of<Terms::sums> global_sums() const { return sums_.read(true); }
  Terms const& terms() const { return terms_; }

 private:
  template <class Label, class Output>
  void add(Label const* labels, shape const& label_shape, Output const& output, counted_rows counted) {
    using element = std::remove_const_t<typename Output::value_type>;
    auto const layout = Terms::layout(label_shape, output.shape());
    int class_axis = -1;
    if constexpr (requires { terms_.class_axis; }) class_axis = terms_.class_axis;
    auto const places = detail::places_of(terms_.name(), output.shape(), layout, class_axis, counted);
    bool const labelled = layout != sample_layout::outputs;
    pushpull::detail::expects<shape_mismatch>(
        !labelled || static_cast<std::int64_t>(label_shape.size()) == places.n, [&] {
          return std::string(terms_.name()) + ": " + std::to_string(places.n) +
                 " labels expected for outputs of shape " + to_string(output.shape()) + ", got " +
                 std::to_string(label_shape.size());
        });
    using leaves = detail::sample_leaves<Terms, std::remove_const_t<Label>, element>;
    sums_.add(output.device(), (places.n + leaves::leaf - 1) / leaves::leaf,
              leaves{terms_, places, labelled ? labels : nullptr, output.data()});
  }

  Terms terms_;
  detail::metric_sums<D, Terms::sums> sums_;
};

}  // namespace pushpull::train
