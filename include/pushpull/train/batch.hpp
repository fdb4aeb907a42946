/// @file
/// The arrays of one step: data, labels and how many of their rows are padding.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/descriptor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Names the bucket of a batch: its sequence length, for instance.
using bucket_key = std::int64_t;

/// Views of host memory, which the owner of the batch keeps until the step has read it. Arrays match the descriptors of
/// the bind by position; a trained model may be given batches without labels.
/// @tparam Data, Label  The element types of the arrays.
template <ElementType Data = float, ElementType Label = Data>
struct batch {
  using data_type = Data;
  using label_type = Label;

  std::vector<tensor_view<Data const>> data{};
  std::vector<tensor_view<Label const>> labels{};
  std::int64_t pad = 0;                   ///< So many rows at the end fill the batch and are no samples.
  std::optional<bucket_key> bucket{};     ///< Which bucket's executors take the batch.
  std::vector<descriptor> data_descs{};   ///< Of `data`; if empty, those of the bind with the arrays' shapes.
  std::vector<descriptor> label_descs{};  ///< Of `labels`; if empty, those of the bind with the arrays' shapes.
};

}  // namespace pushpull::train
