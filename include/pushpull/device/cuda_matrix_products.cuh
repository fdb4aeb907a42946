/// @file
/// Products of matrices on GPUs, by cuBLAS. Not in the umbrella: needs the target pushpull::cublas.
#pragma once

#include <cublas_v2.h>

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/device/cuda_device.cuh>
#include <pushpull/device/matrix_products.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// Throws a cuda_error with cuBLAS's text unless `status` is success. Its code is cudaErrorMemoryAllocation if cuBLAS had no
/// memory, which is no out_of_memory: the step has counted already.
inline void cublas_check(cublasStatus_t status, char const* call,
                         std::source_location const at = std::source_location::current()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::string const message = std::string(call) + ": " + cublasGetStatusString(status) + " at " + at.file_name() + ":" +
                              std::to_string(at.line());
  throw cuda_error(
      static_cast<int>(status == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation : cudaErrorUnknown), message);
}

/// x / max(norm, least).
template <class A>
struct divide_by_norm {
  A* x;
  A const* norm;
  double least;

  __device__ void operator()(std::int64_t i) const {
    double const n = static_cast<double>(*norm);
    x[i] = static_cast<A>(static_cast<double>(x[i]) * (1 / (n < least ? least : n)));
  }
};

/// to = from, in another type.
template <class From, class To>
struct convert_elements {
  From const* from;
  To* to;

  __device__ void operator()(std::int64_t i) const { to[i] = convert<To>(from[i]); }
};

}  // namespace detail

/// See matrix_products. All calls enqueue on the device's stream; they wait for nothing, so they can be captured in a graph.
/// Results are those of cuBLAS: the same bits for the same GPU, library and shapes. Not for two threads at once.
template <>
class matrix_products<cuda_device> {
 public:
  static constexpr bool has_bfloat16 = true;

  /// @throws cuda_error, out_of_memory: a handle has some MiB of workspace
  explicit matrix_products(cuda_device const& device) : device_(device) {
    auto const current = device_.activate();
    cublasStatus_t const created = cublasCreate(&handle_);
    detail::expects<out_of_memory>(created != CUBLAS_STATUS_ALLOC_FAILED,
                                   [&] { return device_.name() + ": no memory for a handle of cuBLAS"; });
    detail::cublas_check(created, "cublasCreate");
    cublasStatus_t const set = cublasSetStream(handle_, device_.stream());
    if (set != CUBLAS_STATUS_SUCCESS) static_cast<void>(cublasDestroy(handle_));
    detail::cublas_check(set, "cublasSetStream");
  }
  matrix_products(matrix_products&& other) noexcept
      : device_(other.device_), handle_(std::exchange(other.handle_, nullptr)) {}
  matrix_products& operator=(matrix_products&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~matrix_products() {
    if (handle_ != nullptr) detail::on_device(device_.id(), [&] { static_cast<void>(cublasDestroy(handle_)); });
  }

  /// @throws cuda_error
  template <class E>
  void multiply(std::int64_t rows, std::int64_t columns, std::int64_t inner, product_scale<E> alpha,
                product_factor<E> const& a, product_factor<E> const& b, product_scale<E> beta, E* c,
                product_precision precision) const {
    static_assert(std::is_same_v<E, double> || std::is_same_v<E, float> || std::is_same_v<E, bfloat16>,
                  "matrix_products: float, double or bfloat16 expected");
    auto const current = device_.activate();
    pointers(CUBLAS_POINTER_MODE_HOST);
    auto const of = [](auto const& factor) { return factor.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
    constexpr cudaDataType_t type = std::is_same_v<E, double>  ? CUDA_R_64F
                                    : std::is_same_v<E, float> ? CUDA_R_32F
                                                               : CUDA_R_16BF;
    cublasComputeType_t const compute = std::is_same_v<E, double> ? CUBLAS_COMPUTE_64F
                                        : std::is_same_v<E, float> && precision != product_precision::full
                                            ? CUBLAS_COMPUTE_32F_FAST_TF32
                                            : CUBLAS_COMPUTE_32F;
    // cuBLAS counts columns first: it sees the transposes, and b^T a^T = (a b)^T.
    detail::cublas_check(cublasGemmEx_64(handle_, of(b), of(a), columns, rows, inner, &alpha, b.first, type, b.width,
                                         a.first, type, a.width, &beta, c, type, columns, compute, CUBLAS_GEMM_DEFAULT),
                         "cublasGemmEx");
  }

  /// @throws cuda_error
  template <class A>
  void normalize(A* x, std::int64_t size, double least, A* scratch) const {
    static_assert(std::is_same_v<A, double> || std::is_same_v<A, float>, "matrix_products: float or double expected");
    auto const current = device_.activate();
    pointers(CUBLAS_POINTER_MODE_DEVICE);
    if constexpr (std::is_same_v<A, double>) {
      detail::cublas_check(cublasDnrm2_64(handle_, size, x, 1, scratch), "cublasDnrm2");
    } else {
      detail::cublas_check(cublasSnrm2_64(handle_, size, x, 1, scratch), "cublasSnrm2");
    }
    device_.for_each(size, detail::divide_by_norm<A>{x, scratch, least});
  }

  /// @throws cuda_error
  template <class From, class To>
  void copy(From const* from, To* to, std::int64_t size) const {
    if constexpr (std::is_same_v<From, To>) {
      device_.copy(to, from, static_cast<std::size_t>(size) * sizeof(To));
    } else {
      device_.for_each(size, detail::convert_elements<From, To>{from, to});
    }
  }

 private:
  void pointers(cublasPointerMode_t mode) const {
    detail::cublas_check(cublasSetPointerMode(handle_, mode), "cublasSetPointerMode");
  }

  cuda_device device_;
  cublasHandle_t handle_ = nullptr;
};

}  // namespace pushpull
