/// @file
/// The memory of a batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/batch.hpp>

namespace pushpull::inline PUSHPULL_ABI::train::data {

/// Owns the arrays of one batch. It keeps its memory for the next batch.
template <ElementType Data, ElementType Label = Data>
class batch_buffer {
 public:
  /// A copy of the batch in this buffer's memory.
  batch<Data, Label> copy(batch<Data, Label> const& from) {
    batch<Data, Label> own = from;
    copy_arrays(from.data, data_, own.data);
    copy_arrays(from.labels, labels_, own.labels);
    return own;
  }

  /// Memory for array `i` of the data, of `size` elements.
  Data* data(std::size_t i, std::size_t size) { return memory(data_, i, size); }
  /// Memory for array `i` of the labels, of `size` elements.
  Label* label(std::size_t i, std::size_t size) { return memory(labels_, i, size); }

 private:
  template <class T>
  static T* memory(std::vector<std::vector<T>>& arrays, std::size_t i, std::size_t size) {
    if (arrays.size() <= i) arrays.resize(i + 1);
    if (arrays[i].size() < size) arrays[i].resize(size);
    return arrays[i].data();
  }
  template <class T>
  static void copy_arrays(std::vector<tensor_view<T const>> const& from, std::vector<std::vector<T>>& arrays,
                          std::vector<tensor_view<T const>>& views) {
    views.clear();
    for (std::size_t i = 0; i < from.size(); ++i) {
      T* const own = memory(arrays, i, from[i].size());
      std::copy_n(from[i].data(), from[i].size(), own);
      views.emplace_back(own, from[i].shape());
    }
  }

  std::vector<std::vector<Data>> data_;
  std::vector<std::vector<Label>> labels_;
};

}  // namespace pushpull::train::data
