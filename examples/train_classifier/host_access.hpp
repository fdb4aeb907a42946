/// @file
/// How forward and backward, which run on the host, reach the tensors of a device.
#pragma once

#include <functional>
#include <list>
#include <pushpull/pushpull.hpp>
#include <vector>

namespace train_classifier {

/// Memory of its own, as on a GPU: through host buffers, which live until the next `flush`.
template <pushpull::Device Device>
class host_access {
 public:
  using view = pushpull::tensor_view<float, Device>;

  /// The elements of `tensor`, after all work that was enqueued on it.
  float const* read(view const& tensor) {
    buffers_.push_back(pushpull::to_vector(tensor));
    return buffers_.back().data();
  }

  /// Where to put the elements of `tensor`; `flush` sends them to the device.
  float* write(view const& tensor) {
    auto& buffer = buffers_.emplace_back(tensor.size());
    written_.push_back([&buffer, tensor] { pushpull::copy(buffer_view(buffer, tensor), tensor); });
    return buffer.data();
  }

  void flush() {
    for (auto const& send : written_) send();
    written_.clear();
    buffers_.clear();
  }

 private:
  static auto buffer_view(std::vector<float> const& buffer, view const& tensor) {
    return pushpull::tensor_view(buffer.data(), tensor.shape());
  }

  std::list<std::vector<float>> buffers_;  // a list: elements stay where they are
  std::vector<std::function<void()>> written_;
};

/// On a CPU the host works in place.
template <pushpull::HostDevice Device>
class host_access<Device> {
 public:
  using view = pushpull::tensor_view<float, Device>;

  float const* read(view const& tensor) { return tensor.data(); }
  float* write(view const& tensor) { return tensor.data(); }
  void flush() {}
};

}  // namespace train_classifier
