/// @file
/// The arrays of a group on their way: from a batch to its executors, and from their outputs together.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/group/bound_group.hpp>
#include <pushpull/train/group/transfer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The part of a group that moves arrays.
template <train::ExecutorFactory F, train::SlicingPolicy Slicing>
class transferring_group : public bound_group<F, Slicing> {
  using base = bound_group<F, Slicing>;

 public:
  using typename base::device_type;

  /// @throws as bound_group
  transferring_group(F factory, std::vector<device_type> devices, train::group_options options = {})
      : base(std::move(factory), std::move(devices), std::move(options)), staging_(this->devices().size()) {}

 protected:
  ~transferring_group() = default;

  /// @throws shape_mismatch unless there is one array per descriptor, of its shape
  template <class Views>
  static void expect_arrays(char const* what, Views const& arrays, std::vector<train::descriptor> const& descs) {
    expects<shape_mismatch>(arrays.size() == descs.size(), [&] {
      return "load: " + std::to_string(descs.size()) + " arrays of " + what + " expected, got " +
             std::to_string(arrays.size());
    });
    for (std::size_t i = 0; i < descs.size(); ++i)
      expects<shape_mismatch>(arrays[i].shape() == descs[i].shape, [&] {
        return "load: \"" + descs[i].name + "\" of shape " + to_string(descs[i].shape) + " expected, got " +
               to_string(arrays[i].shape());
      });
  }
  /// @param first  The number of the first array's staging memory.
  template <class Views, class Targets>
  void scatter(Views const& arrays, std::vector<train::descriptor> const& descs, Targets&& targets, std::size_t k,
               std::size_t begin) {
    for (std::size_t i = 0; i < descs.size(); ++i)
      scatter_rows(arrays[i], descs[i].batch_axis(), this->layout().slices[k], view_of(targets[i]),
                   staging_of(k, begin + i));
  }
  template <class Views, class Targets>
  void scatter_whole(Views const& arrays, std::vector<train::descriptor> const& descs, Targets&& targets, std::size_t k,
                     std::size_t begin) {
    for (std::size_t i = 0; i < descs.size(); ++i)
      scatter_rows(arrays[i], -1, {}, view_of(targets[i]), staging_of(k, begin + i));
  }

  void record_loads() {
    if constexpr (!HostDevice<device_type>) {
      loads_.clear();
      for (auto const& device : this->devices()) loads_.push_back(device.record());
    }
  }
  void wait_for_loads() {
    for (auto const& event : loads_) event.wait();
  }

  /// Labels for a metric on device k: its rows of all, or `is_slice`.
  template <class Label>
  auto metric_labels(std::vector<tensor_view<Label const>> const& labels, std::size_t k, bool is_slice) {
    using element = train::label_element<typename base::executor_type>;
    std::vector<tensor_view<element const, device_type>> result;
    auto const part = this->layout().of(k).labels;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      auto const own = this->pool(k).template acquire<element>("metric label " + part[i].name, part[i].shape);
      scatter_rows(labels[i], is_slice ? -1 : part[i].batch_axis(), this->layout().slices[k], own,
                   staging_of(k, metric_staging + i));
      result.push_back(own);
    }
    return result;
  }

  /// The rows of each device of the gradients of outputs.
  template <class O, class H>
  std::vector<std::vector<tensor_view<O const, device_type>>> sliced_heads(
      std::vector<tensor_view<O const, H>> const& heads) {
    std::vector<std::vector<tensor_view<O const, device_type>>> result(this->devices().size());
    for (std::size_t k = 0; k < this->devices().size(); ++k) {
      if (this->layout().is_idle(k)) continue;
      for (std::size_t i = 0; i < heads.size(); ++i) {
        auto const extents = this->executor(k).outputs()[i].shape();
        auto const slice =
            this->pool(k).template acquire<O>("head gradient of " + texts(this->factory_.output_names())[i], extents);
        auto const rows = this->layout().slices[k];
        if constexpr (std::same_as<H, device_type>) {
          slice_rows(heads[i], this->output_axis(i), rows, slice, middle_on(heads[i].device()));
        } else {
          scatter_rows(heads[i], this->output_axis(i), rows, slice,
                       staging_of(k, this->layout().whole.data.size() + this->layout().whole.labels.size() + i));
        }
        result[k].push_back(slice);
      }
    }
    return result;
  }

  /// The parts of each array one after the other on the first device.
  template <class O>
  std::vector<tensor_view<O const, device_type>> merge(
      std::vector<std::vector<tensor_view<O const, device_type>>> const& parts, std::vector<int> const& axes,
      std::vector<std::optional<tensor<O, device_type>>>& memory) {
    std::vector<tensor_view<O const, device_type>> result;
    memory.resize(parts.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      auto const active =
          std::find_if(parts[i].begin(), parts[i].end(), [](auto const& p) { return p.data() != nullptr; });
      if (parts[i].size() == 1 || axes[i] < 0 || active == parts[i].end()) {
        result.push_back(active == parts[i].end() ? parts[i].front() : *active);
        continue;
      }
      shape const whole = train::with_rows(active->shape(), axes[i], this->layout().rows.value_or(0));
      if (!memory[i] || !(memory[i]->shape() == whole)) memory[i].emplace(this->devices().front(), whole);
      for (std::size_t k = 0; k < parts[i].size(); ++k)
        if (parts[i][k].data() != nullptr)
          gather_rows(parts[i][k], memory[i]->view(), axes[i], this->layout().slices[k].begin,
                      middle_on(this->devices().front()));
      result.push_back(std::as_const(*memory[i]).view());
    }
    return result;
  }

 private:
  /// Memory for strips on a device, which heads may have outside the group.
  buffer<device_type>& middle_on(device_type const& device) {
    for (auto& [own, memory] : middles_)
      if (own == device) return memory;
    return middles_.emplace_back(device, buffer<device_type>()).second;
  }
  /// Of each array of device k.
  load_staging<device_type>& staging_of(std::size_t k, std::size_t array) {
    while (staging_[k].size() <= array) staging_[k].push_back(std::make_unique<load_staging<device_type>>());
    return *staging_[k][array];
  }

  static constexpr std::size_t metric_staging = 64;  // behind those of data, labels and heads
  std::vector<std::vector<std::unique_ptr<load_staging<device_type>>>> staging_;  // [device][array]
  std::vector<std::pair<device_type, buffer<device_type>>> middles_;
  std::vector<decltype(std::declval<device_type const&>().record())> loads_;
};

}  // namespace pushpull::detail
