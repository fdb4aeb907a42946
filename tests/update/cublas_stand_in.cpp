// The calls of cuBLAS that matrix_products makes, for the emulator, whose memory only the emulator's CUDA reaches. Sums are
// double. A call of another device than the handle's, or with a pointer mode that its pointers do not have, is answered by an error.
// The end of a handle while another device is current, whose status nobody reads, ends the program.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <set>
#include <vector>

struct cublasContext {
  int device = 0;
  cudaStream_t stream = nullptr;
  cublasPointerMode_t mode = CUBLAS_POINTER_MODE_HOST;
};

namespace {

double to_double(double x) { return x; }
double to_double(float x) { return static_cast<double>(x); }
double to_double(__nv_bfloat16 x) { return static_cast<double>(__bfloat162float(x)); }

std::mutex mutex;
std::set<cublasHandle_t> live;

bool is_usable(cublasHandle_t handle, cublasPointerMode_t mode) {
  std::lock_guard const lock(mutex);
  int device = -1;
  return live.count(handle) == 1 && cudaGetDevice(&device) == cudaSuccess && device == handle->device &&
         handle->mode == mode;
}

template <class T>
std::vector<T> read(cublasHandle_t handle, T const* from, std::int64_t size) {
  std::vector<T> to(static_cast<std::size_t>(size));
  if (cudaStreamSynchronize(handle->stream) != cudaSuccess ||
      cudaMemcpy(to.data(), from, to.size() * sizeof(T), cudaMemcpyDefault) != cudaSuccess)
    to.assign(to.size(), T(NAN));
  return to;
}
template <class T>
cublasStatus_t write(std::vector<T> const& from, T* to) {
  return cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyDefault) == cudaSuccess
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}

/// c = alpha op(a) op(b) + beta c, column-major, of m x n.
template <class T, class Scale>
cublasStatus_t product(cublasHandle_t handle, bool transposed_a, bool transposed_b, std::int64_t m, std::int64_t n,
                       std::int64_t k, Scale alpha, T const* a, std::int64_t lda, T const* b, std::int64_t ldb,
                       Scale beta, T* c, std::int64_t ldc) {
  if (ldc != m || lda < (transposed_a ? k : m) || ldb < (transposed_b ? n : k)) return CUBLAS_STATUS_INVALID_VALUE;
  auto const of_a = read(handle, a, lda * (transposed_a ? m : k)), of_b = read(handle, b, ldb * (transposed_b ? k : n));
  std::vector<T> result(static_cast<std::size_t>(m * n));
  if (to_double(beta) != 0) result = read(handle, c, m * n);
  auto const at = [](std::int64_t row, std::int64_t column, std::int64_t ld, bool transposed) {
    return static_cast<std::size_t>(transposed ? column + row * ld : row + column * ld);
  };
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < m; ++i) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += to_double(of_a[at(i, l, lda, transposed_a)]) * to_double(of_b[at(l, j, ldb, transposed_b)]);
      T& to = result[static_cast<std::size_t>(i + j * m)];
      to = T(to_double(alpha) * sum + (to_double(beta) != 0 ? to_double(beta) * to_double(to) : 0));
    }
  return write(result, c);
}

template <class T>
cublasStatus_t norm(cublasHandle_t handle, std::int64_t n, T const* x, std::int64_t stride, T* result) {
  if (!is_usable(handle, CUBLAS_POINTER_MODE_DEVICE)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (stride != 1) return CUBLAS_STATUS_INVALID_VALUE;
  double sum = 0;
  for (T const value : read(handle, x, n)) sum += to_double(value) * to_double(value);
  return write(std::vector<T>{T(std::sqrt(sum))}, result);
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  std::lock_guard const lock(mutex);
  *handle = new cublasContext;
  live.insert(*handle);
  return cudaGetDevice(&(*handle)->device) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  std::lock_guard const lock(mutex);
  if (live.erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  int device = -1;
  if (cudaGetDevice(&device) != cudaSuccess || device != handle->device) std::abort();
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  handle->mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}
char const* cublasGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "a stand-in's refusal";
}

cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t of_a, cublasOperation_t of_b, std::int64_t m,
                               std::int64_t n, std::int64_t k, void const* alpha, void const* a, cudaDataType type_a,
                               std::int64_t lda, void const* b, cudaDataType type_b, std::int64_t ldb, void const* beta,
                               void* c, cudaDataType type_c, std::int64_t ldc, cublasComputeType_t, cublasGemmAlgo_t) {
  if (!is_usable(handle, CUBLAS_POINTER_MODE_HOST)) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (type_a != type_c || type_b != type_c) return CUBLAS_STATUS_NOT_SUPPORTED;
  auto const run = [&]<class T, class Scale>(T, Scale) {
    return product(handle, of_a == CUBLAS_OP_T, of_b == CUBLAS_OP_T, m, n, k, *static_cast<Scale const*>(alpha),
                   static_cast<T const*>(a), lda, static_cast<T const*>(b), ldb, *static_cast<Scale const*>(beta),
                   static_cast<T*>(c), ldc);
  };
  switch (type_c) {
    case CUDA_R_64F: return run(double{}, double{});
    case CUDA_R_32F: return run(float{}, float{});
    case CUDA_R_16BF: return run(__nv_bfloat16{}, float{});
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
cublasStatus_t cublasSnrm2_v2_64(cublasHandle_t handle, std::int64_t n, float const* x, std::int64_t stride,
                                 float* result) {
  return norm(handle, n, x, stride, result);
}
cublasStatus_t cublasDnrm2_v2_64(cublasHandle_t handle, std::int64_t n, double const* x, std::int64_t stride,
                                 double* result) {
  return norm(handle, n, x, stride, result);
}

}  // extern "C"
