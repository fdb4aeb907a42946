/// @file
/// How forward and backward, which run on the host, reach the tensors of a device.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <pushpull/pushpull.hpp>
#include <type_traits>
#include <vector>

namespace train_classifier {

/// Memory of its own, as on a GPU: through host buffers, which live until the next `flush`.
template <pushpull::Device Device>
class host_access {
 public:
  /// The elements of `tensor`, after all work that was enqueued on it.
  template <class T>
  auto read(pushpull::tensor_view<T, Device> const& tensor) {
    auto const buffer = std::make_shared<std::vector<std::remove_const_t<T>>>(pushpull::to_vector(tensor));
    buffers_.push_back(buffer);
    return static_cast<T const*>(buffer->data());
  }

  /// Where to put the elements of `tensor`; `flush` sends them to the device.
  template <class T>
  T* write(pushpull::tensor_view<T, Device> const& tensor) {
    auto const buffer = std::make_shared<std::vector<T>>(tensor.size());
    written_.push_back(
        [buffer, tensor] { pushpull::copy(pushpull::tensor_view<T const>(buffer->data(), tensor.shape()), tensor); });
    return buffer->data();
  }

  void flush() {
    for (auto const& send : written_) send();
    written_.clear();
    buffers_.clear();
  }

 private:
  std::list<std::shared_ptr<void>> buffers_;
  std::vector<std::function<void()>> written_;
};

/// On a CPU the host works in place.
template <pushpull::HostDevice Device>
class host_access<Device> {
 public:
  template <class T>
  T const* read(pushpull::tensor_view<T, Device> const& tensor) {
    return tensor.data();
  }
  template <class T>
  T* write(pushpull::tensor_view<T, Device> const& tensor) {
    return tensor.data();
  }
  void flush() {}
};

}  // namespace train_classifier
