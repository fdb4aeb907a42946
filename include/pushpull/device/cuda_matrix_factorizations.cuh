/// @file
/// Decompositions of matrices on GPUs, by cuSOLVER. Not in the umbrella: needs the target pushpull::cusolver.
#pragma once

#include <cusolverDn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include <cuda/std/limits>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/device/cuda_matrix_products.cuh>
#include <pushpull/device/matrix_factorizations.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Throws a cuda_error with cuSOLVER's number unless `status` is success: see cublas_check.
inline void cusolver_check(cusolverStatus_t status, char const* call,
                           std::source_location const at = std::source_location::current()) {
  if (status == CUSOLVER_STATUS_SUCCESS) return;
  std::string const message = std::string(call) + ": cuSOLVER's status " + std::to_string(static_cast<int>(status)) +
                              " at " + at.file_name() + ":" + std::to_string(at.line());
  throw cuda_error(
      static_cast<int>(status == CUSOLVER_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown), message);
}

/// cuSOLVER's routines for numbers of a type.
template <class A>
struct cusolver_routines {
  static constexpr auto syevd = &cusolverDnSsyevd;
  static constexpr auto syevd_size = &cusolverDnSsyevd_bufferSize;
  static constexpr auto geqrf = &cusolverDnSgeqrf;
  static constexpr auto geqrf_size = &cusolverDnSgeqrf_bufferSize;
  static constexpr auto orgqr = &cusolverDnSorgqr;
  static constexpr auto orgqr_size = &cusolverDnSorgqr_bufferSize;
};
template <>
struct cusolver_routines<double> {
  static constexpr auto syevd = &cusolverDnDsyevd;
  static constexpr auto syevd_size = &cusolverDnDsyevd_bufferSize;
  static constexpr auto geqrf = &cusolverDnDgeqrf;
  static constexpr auto geqrf_size = &cusolverDnDgeqrf_bufferSize;
  static constexpr auto orgqr = &cusolverDnDorgqr;
  static constexpr auto orgqr_size = &cusolverDnDorgqr_bufferSize;
};

/// The failures since `begin`, on the device.
struct decomposition_failures {
  int info;  ///< Of cuSOLVER's last call.
  int any;
};

/// Nothing has failed.
struct forget_failures {
  decomposition_failures* failures;

  __device__ void operator()(std::int64_t) const { failures->any = 0; }
};
/// Takes down whether the last call has.
struct note_failure {
  decomposition_failures* failures;

  __device__ void operator()(std::int64_t) const {
    if (failures->info != 0) failures->any = 1;
  }
};
/// Takes down a number that is not finite.
template <class A>
struct note_not_finite {
  A const* x;
  std::int64_t stride;
  decomposition_failures* failures;

  __device__ void operator()(std::int64_t i) const {
    if (!is_finite(x[i * stride])) atomicExch(&failures->any, 1);
  }
};
/// A matrix of zeros after a failure: routines need not end with numbers that are not finite.
template <class A>
struct clear_after_failure {
  A* x;
  decomposition_failures const* failures;

  __device__ void operator()(std::int64_t i) const {
    if (failures->any != 0) x[i] = A(0);
  }
};
/// NaN after a failure.
template <class A>
struct tell_failure {
  A* x;
  decomposition_failures const* failures;

  __device__ void operator()(std::int64_t i) const {
    if (failures->any != 0) x[i] = cuda::std::numeric_limits<A>::quiet_NaN();
  }
};

}  // namespace detail

/// See matrix_factorizations. All calls enqueue on the device's stream; the host reads no number of the device, not even
/// cuSOLVER's `info`. cuSOLVER's syevd may wait for its own work. Results are those of cuSOLVER. Not for two threads at once.
template <>
class matrix_factorizations<cuda_device> : public matrix_products<cuda_device> {
 public:
  static constexpr bool reads = false;

  /// @throws cuda_error, out_of_memory: two handles have some MiB of workspace
  explicit matrix_factorizations(cuda_device const& device)
      : matrix_products<cuda_device>(device),
        device_(device),
        failures_(static_cast<detail::decomposition_failures*>(device.allocate(sizeof(detail::decomposition_failures))),
                  {device}),
        handle_(nullptr, {device}) {
    auto const current = device_.activate();
    cusolverDnHandle_t handle = nullptr;
    cusolverStatus_t const created = cusolverDnCreate(&handle);
    detail::expects<out_of_memory>(created != CUSOLVER_STATUS_ALLOC_FAILED,
                                   [&] { return device_.name() + ": no memory for a handle of cuSOLVER"; });
    detail::cusolver_check(created, "cusolverDnCreate");
    handle_.reset(handle);
    detail::cusolver_check(cusolverDnSetStream(handle, device_.stream()), "cusolverDnSetStream");
  }

  /// @throws cuda_error
  template <class A>
  void add_square(std::int64_t n, std::int64_t inner, A alpha, product_factor<A> const& a, A beta, A* c) const {
    this->multiply(n, n, inner, alpha, a, product_factor<A>{a.first, a.width, !a.transposed}, beta, c,
                   product_precision::full);
  }

  template <class F>
  void for_each(std::int64_t n, F const& f) const {
    device_.for_each(n, f);
  }

  /// Asks cuSOLVER once per n. @throws invalid_argument if cuSOLVER cannot count its workspace, as is so from n = 32,767 on;
  /// cuda_error
  template <class A>
  std::int64_t scratch(std::int64_t n) const {
    return n + static_cast<std::int64_t>(line / sizeof(A)) + workspace<A>(n);
  }

  /// @throws cuda_error
  template <class A>
  void eigenvectors(std::int64_t n, A* a, A* values, A* scratch) const {
    auto const current = device_.activate();
    auto const size = static_cast<int>(n);
    device_.for_each(n * n, detail::clear_after_failure<A>{a, failures()});
    detail::cusolver_check(
        detail::cusolver_routines<A>::syevd(handle_.get(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, size, a,
                                            size, values, aligned(scratch), workspace<A>(n), &failures()->info),
        "cusolverDn syevd");
    device_.for_each(1, detail::note_failure{failures()});
  }

  /// @throws cuda_error
  template <class A>
  void orthogonalize(std::int64_t n, A* a, A* scratch) const {
    auto const current = device_.activate();
    auto const size = static_cast<int>(n);
    using routines = detail::cusolver_routines<A>;
    A *const factors = scratch, *const work = aligned(scratch + n);
    device_.for_each(n * n, detail::clear_after_failure<A>{a, failures()});
    detail::cusolver_check(
        routines::geqrf(handle_.get(), size, size, a, size, factors, work, workspace<A>(n), &failures()->info),
        "cusolverDn geqrf");
    device_.for_each(1, detail::note_failure{failures()});
    detail::cusolver_check(
        routines::orgqr(handle_.get(), size, size, size, a, size, factors, work, workspace<A>(n), &failures()->info),
        "cusolverDn orgqr");
    device_.for_each(1, detail::note_failure{failures()});
  }

  void begin() const { device_.for_each(1, detail::forget_failures{failures()}); }
  /// @throws cuda_error
  template <class A>
  void finish(A* terms, std::int64_t size) const {
    device_.for_each(size, detail::tell_failure<A>{terms, failures()});
  }
  /// @throws cuda_error
  template <class A>
  void expect_finite(A const* x, std::int64_t count, char const*, std::int64_t stride = 1) const {
    device_.for_each(count, detail::note_not_finite<A>{x, stride, failures()});
  }

 private:
  struct deallocate {
    cuda_device device;
    void operator()(detail::decomposition_failures* p) const noexcept { device.deallocate(p, sizeof *p); }
  };
  struct destroy {
    cuda_device device;
    void operator()(cusolverDnHandle_t handle) const noexcept {
      detail::on_device(device.id(), [&] { static_cast<void>(cusolverDnDestroy(handle)); });
    }
  };

  detail::decomposition_failures* failures() const { return failures_.get(); }
  /// The workspace that all routines share, in numbers.
  template <class A>
  int workspace(std::int64_t n) const {
    using routines = detail::cusolver_routines<A>;
    auto const fits = [&](bool condition) {
      detail::expects<invalid_argument>(condition,
                                        [&] { return "a side of " + std::to_string(n) + " is too long for cuSOLVER"; });
    };
    fits(eigenvector_workspace(n).is_countable());
    auto const [found, is_new] = sizes_.try_emplace({n, sizeof(A)}, -1);
    if (!is_new && found->second >= 0) return found->second;
    auto const current = device_.activate();
    auto const size = static_cast<int>(n);
    int of[3] = {};
    detail::cusolver_check(routines::syevd_size(handle_.get(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_UPPER, size,
                                                nullptr, size, nullptr, &of[0]),
                           "cusolverDn syevd_bufferSize");
    detail::cusolver_check(routines::geqrf_size(handle_.get(), size, size, nullptr, size, &of[1]),
                           "cusolverDn geqrf_bufferSize");
    detail::cusolver_check(routines::orgqr_size(handle_.get(), size, size, size, nullptr, size, nullptr, &of[2]),
                           "cusolverDn orgqr_bufferSize");
    fits(*std::min_element(of, of + 3) >= 0);
    found->second = *std::max_element(of, of + 3);
    return found->second;
  }
  /// The next place where memory of cudaMalloc might begin: cuSOLVER promises nothing for others.
  template <class A>
  static A* aligned(A* p) {
    return p + (line - reinterpret_cast<std::uintptr_t>(p) % line) % line / sizeof(A);
  }
  static constexpr std::size_t line = 256;

  cuda_device device_;
  std::unique_ptr<detail::decomposition_failures, deallocate> failures_;
  std::unique_ptr<std::remove_pointer_t<cusolverDnHandle_t>, destroy> handle_;
  mutable std::map<std::pair<std::int64_t, std::size_t>, int> sizes_;  // of workspaces, by n and size of a number
};

}  // namespace pushpull
