/// @file
/// Batches of arrays in memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/data/batch_buffer.hpp>
#include <pushpull/train/data/data_source.hpp>
#include <pushpull/train/data/shuffle.hpp>
#include <pushpull/train/descriptor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// An array whose first axis is that of the samples.
template <ElementType T>
struct named_array {
  std::string name;
  tensor_view<T const> values;
  std::string layout = "NCHW";  ///< The letter N comes first.
};

/// The samples at the end of an epoch that do not fill a batch.
enum class last_batch {
  pad,      ///< a full batch, filled with the epoch's first samples, which its `pad` counts
  discard,  ///< no batch
  partial   ///< a batch with fewer rows
};

/// The options of an array_source.
struct array_options {
  std::int64_t batch = 32;
  std::optional<std::uint64_t>
      shuffle{};  ///< A seed: every epoch has an order of its own. Without: the order of the arrays.
  last_batch last = last_batch::pad;
  std::int64_t part = 0,
               parts = 1;  ///< This rank takes rows [part batch, (part + 1) batch) of each parts * batch rows.
};

/// A SeekableSource over arrays that somebody else owns. Batches are copies; the order of an epoch is a function of the seed
/// and the epoch, so runs that resume, and other numbers of devices, see the same batches.
template <ElementType Data = float, ElementType Label = Data>
class array_source {
 public:
  using batch_type = batch<Data, Label>;

  /// @throws invalid_argument if there are no data arrays or no rows, or an option is below its least value; batch_mismatch if
  ///         the arrays' first extents differ; bad_option for partial batches of several parts
  array_source(std::vector<named_array<Data>> data, std::vector<named_array<Label>> labels, array_options options = {})
      : data_(std::move(data)), labels_(std::move(labels)), options_(options) {
    using pushpull::detail::expects;
    expects<invalid_argument>(!data_.empty(),
                              [] { return std::string("array_source: at least one data array expected"); });
    expects<invalid_argument>(
        options_.batch >= 1 && options_.parts >= 1 && options_.part >= 0 && options_.part < options_.parts, [&] {
          return "array_source: a batch of at least 1 and a part below the number of parts expected, got " +
                 std::to_string(options_.batch) + ", " + std::to_string(options_.part) + " of " +
                 std::to_string(options_.parts);
        });
    expects<bad_option>(options_.last != last_batch::partial || options_.parts == 1,
                        [] { return std::string("array_source: last_batch::partial needs one part"); });
    for (auto const& array : data_) check_rows(array);
    for (auto const& array : labels_) check_rows(array);
    expects<invalid_argument>(batches() > 0, [&] {
      return "array_source: " + std::to_string(rows_) + " rows fill no batch of " + std::to_string(options_.batch);
    });
    set_order(0);
  }

  std::optional<batch_type> next() {
    if (at_.batch >= batches()) return std::nullopt;
    std::int64_t const first = (at_.batch * options_.parts + options_.part) * options_.batch;
    std::int64_t const wanted =
        options_.last == last_batch::partial ? std::min(options_.batch, rows_ - first) : options_.batch;
    batch_type made;
    made.pad = std::clamp<std::int64_t>(first + wanted - rows_, 0, wanted);
    for (std::size_t i = 0; i < data_.size(); ++i)
      made.data.push_back(gather(data_[i], first, wanted, [&](std::size_t n) { return buffer_.data(i, n); }));
    for (std::size_t i = 0; i < labels_.size(); ++i)
      made.labels.push_back(gather(labels_[i], first, wanted, [&](std::size_t n) { return buffer_.label(i, n); }));
    ++at_.batch;
    return made;
  }

  void reset() {
    if (at_.batch > 0) seek({at_.epoch + 1, 0});
  }

  source_descs descs() const { return {descs_of(data_), descs_of(labels_)}; }
  /// Of one epoch.
  std::int64_t batches() const {
    std::int64_t const step = options_.batch * options_.parts;
    return options_.last == last_batch::discard ? rows_ / step : (rows_ + step - 1) / step;
  }
  /// Samples of all parts.
  std::int64_t rows() const { return rows_; }
  source_position position() const { return at_; }
  /// @throws invalid_argument if the epoch is negative or has no such place
  void seek(source_position position) {
    pushpull::detail::expects<invalid_argument>(
        position.epoch >= 0 && position.batch >= 0 && position.batch <= batches(), [&] {
          return "array_source: batch " + std::to_string(position.batch) + " of epoch " +
                 std::to_string(position.epoch) + ": epochs have " + std::to_string(batches()) + " batches";
        });
    if (position.epoch != at_.epoch) set_order(position.epoch);
    at_ = position;
  }

 private:
  template <class T>
  void check_rows(named_array<T> const& array) {
    pushpull::detail::expects<batch_mismatch>(
        array.values.shape().rank() >= 1 && train::batch_axis(array.layout) == 0, [&] {
          return "array_source: array \"" + array.name + "\": samples on axis 0 expected, got shape " +
                 to_string(array.values.shape()) + " and layout " + array.layout;
        });
    std::int64_t const rows = array.values.shape()[0];
    if (rows_ < 0) rows_ = rows;
    pushpull::detail::expects<batch_mismatch>(rows == rows_, [&] {
      return "array_source: array \"" + array.name + "\": " + std::to_string(rows_) + " rows expected, got " +
             std::to_string(rows);
    });
  }

  template <class T, class Memory>
  tensor_view<T const> gather(named_array<T> const& array, std::int64_t first, std::int64_t wanted,
                              Memory const& memory) const {
    shape const of = with_rows(array.values.shape(), 0, wanted);
    T* const to = memory(of.size());
    std::size_t const length = array.values.size() / static_cast<std::size_t>(rows_);
    for (std::int64_t j = 0; j < wanted; ++j) {
      std::int64_t const place = (first + j) % rows_;
      std::int64_t const row = order_.empty() ? place : order_[static_cast<std::size_t>(place)];
      std::copy_n(array.values.data() + static_cast<std::size_t>(row) * length, length,
                  to + static_cast<std::size_t>(j) * length);
    }
    return {to, of};
  }

  template <class T>
  std::vector<descriptor> descs_of(std::vector<named_array<T>> const& arrays) const {
    std::vector<descriptor> all;
    for (auto const& array : arrays)
      all.push_back({array.name, with_rows(array.values.shape(), 0, options_.batch), std::string(dtype_traits<T>::name),
                     array.layout});
    return all;
  }

  void set_order(std::int64_t epoch) {
    if (options_.shuffle) order_ = shuffled(rows_, *options_.shuffle, epoch);
  }

  std::vector<named_array<Data>> data_;
  std::vector<named_array<Label>> labels_;
  array_options options_;
  std::int64_t rows_ = -1;
  source_position at_;
  std::vector<std::int64_t> order_;
  batch_buffer<Data, Label> buffer_;
};

static_assert(SeekableSource<array_source<float, std::int32_t>>);

}  // namespace pushpull::train::data
