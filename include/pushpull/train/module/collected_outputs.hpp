/// @file
/// Outputs of several batches as one tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/descriptor.hpp>
#include <pushpull/train/group/transfer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A copy in host memory without `pad` rows at the end of an axis. Of axis -1 all.
template <class T, class D>
tensor<T> without_rows(tensor_view<T const, D> const& from, int axis, std::int64_t pad) {
  tensor<T> whole(cpu_device<>(), from.shape());
  auto const view = whole.view();
  copy(from, view);
  if (pad == 0 || axis < 0) return whole;
  std::int64_t const rows = from.shape()[static_cast<std::size_t>(axis)] - pad;
  tensor<T> result(cpu_device<>(), train::with_rows(from.shape(), axis, rows));
  row_strips const source(from.shape(), axis, {0, rows});
  row_strips const target(result.shape(), axis, {0, rows});
  copy_strips(cpu_device<>(), std::as_const(whole).data(), source, result.data(), target);
  return result;
}

/// Outputs of batches, in host memory.
template <class T>
class collected_outputs {
 public:
  explicit collected_outputs(std::vector<int> axes) : axes_(std::move(axes)), parts_(axes_.size()) {}

  void add(std::vector<tensor_view<T const>> const& outputs) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      if (axes_[i] < 0) parts_[i].clear();
      parts_[i].push_back(without_rows(outputs[i], -1, 0));
    }
  }
  /// Empty if there was no batch. @throws shape_mismatch if batches differ on another axis than that of the samples
  std::vector<tensor<T>> joined() {
    std::vector<tensor<T>> result;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (parts_[i].empty()) return {};
      if (parts_[i].size() == 1) {
        result.push_back(std::move(parts_[i].front()));
        continue;
      }
      std::int64_t rows = 0;
      auto const axis = static_cast<std::size_t>(axes_[i]);
      shape const first = parts_[i].front().shape();
      for (auto const& part : parts_[i]) {
        expects<shape_mismatch>(train::with_rows(part.shape(), axes_[i], 0) == train::with_rows(first, axes_[i], 0),
                                [&] {
                                  return "predict: outputs of shape " + to_string(first) + " and " +
                                         to_string(part.shape()) + " cannot be joined: use predict_each";
                                });
        rows += part.shape()[axis];
      }
      tensor<T>& all = result.emplace_back(cpu_device<>(), train::with_rows(first, axes_[i], rows));
      std::int64_t begin = 0;
      for (auto const& part : parts_[i]) {
        std::int64_t const own = part.shape()[axis];
        copy_strips(cpu_device<>(), part.data(), row_strips(part.shape(), axes_[i], {0, own}), all.data(),
                    row_strips(all.shape(), axes_[i], {begin, begin + own}));
        begin += own;
      }
    }
    return result;
  }

 private:
  std::vector<int> axes_;
  std::vector<std::vector<tensor<T>>> parts_;
};

}  // namespace pushpull::detail
