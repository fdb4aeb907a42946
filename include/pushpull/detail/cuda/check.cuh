/// @file
/// CUDA's return codes as exceptions.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Throws cuda_error, or out_of_memory, unless `code` is success; says what was tried and where. Clears the error that
/// CUDA would hand to the next caller.
inline void cuda_check(cudaError_t code, char const* what,
                       std::source_location const at = std::source_location::current()) {
  if (code == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  std::string const message = std::string(what) + ": " + cudaGetErrorName(code) + " (" + cudaGetErrorString(code) +
                              ") at " + at.file_name() + ":" + std::to_string(at.line());
  if (code == cudaErrorMemoryAllocation) throw out_of_memory(message);
  throw cuda_error(static_cast<int>(code), message);
}

/// Makes a device current for a scope. Its destructor does not throw: a device that was current can be again.
class current_device {
 public:
  explicit current_device(int ordinal) {
    cuda_check(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ != ordinal) cuda_check(cudaSetDevice(ordinal), "cudaSetDevice");
    changed_ = before_ != ordinal;
  }
  current_device(current_device const&) = delete;
  current_device& operator=(current_device const&) = delete;
  ~current_device() {
    if (changed_) static_cast<void>(cudaSetDevice(before_));
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

/// f() with a device current, where nobody can be told of a failure: in destructors.
template <class F>
void on_device(int ordinal, F const& f) noexcept {
  int before = 0;
  static_cast<void>(cudaGetDevice(&before));
  static_cast<void>(cudaSetDevice(ordinal));
  f();
  static_cast<void>(cudaSetDevice(before));
}

}  // namespace pushpull::detail
