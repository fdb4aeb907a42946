// The calls of cuSOLVER that matrix_factorizations makes, for the emulator, whose memory only the emulator's CUDA reaches. LAPACK
// computes them. Answered by an error: a handle that is not alive, has no stream or is another device's; extents, leading dimensions
// or workspaces that are too small; workspaces that do not begin where memory of cudaMalloc may; numbers that are not finite, with
// which cuSOLVER might not end. A workspace is overwritten, so that it holds nothing else. The end of a handle while another device is
// current, whose status nobody reads, ends the program.
#include <cuda_runtime_api.h>
#include <cusolverDn.h>
#include <lapacke.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <set>
#include <vector>

struct cusolverDnContext {
  int device = 0;
  cudaStream_t stream = nullptr;
};

namespace {

std::mutex mutex;
std::set<cusolverDnHandle_t> live;
std::atomic<int> failures = 0, wrong_results = 0;

bool is_usable(cusolverDnHandle_t handle) {
  std::lock_guard const lock(mutex);
  int device = -1;
  return live.count(handle) == 1 && handle->stream != nullptr && cudaGetDevice(&device) == cudaSuccess &&
         device == handle->device;
}

enum routine { of_syevd, of_geqrf, of_orgqr };

/// No more than that, so that a size of another n is found. Each routine needs most for some n.
int needed(routine r, int n) { return 3 * n + 5 + (n % 3 == r ? 2 : 0); }

cusolverStatus_t size_of(cusolverDnHandle_t handle, routine r, int n, int lda, int* size) {
  if (!is_usable(handle)) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (n < 0 || lda < n || lda < 1) return CUSOLVER_STATUS_INVALID_VALUE;
  *size = needed(r, n);
  return CUSOLVER_STATUS_SUCCESS;
}

/// Numbers in whole cache lines: the bits of some BLASes depend on where numbers lie.
template <class T>
struct line_allocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete(p, line); }
  friend bool operator==(line_allocator, line_allocator) { return true; }
};
template <class T>
using numbers = std::vector<T, line_allocator<T>>;

/// Runs f(a, of_n), which returns the info of LAPACK, on a copy of a and, if the routine reads them, of the n numbers.
template <routine Routine, class T, class F>
cusolverStatus_t run(cusolverDnHandle_t handle, int n, T* a, int lda, T* of_n, T* work, int size, int* info,
                     F const& f) {
  if (!is_usable(handle)) return CUSOLVER_STATUS_NOT_INITIALIZED;
  if (n < 1 || lda < n || size < needed(Routine, n) || a == nullptr || of_n == nullptr || work == nullptr ||
      info == nullptr || reinterpret_cast<std::uintptr_t>(work) % 256 != 0)
    return CUSOLVER_STATUS_INVALID_VALUE;
  numbers<T> matrix(static_cast<std::size_t>(lda) * static_cast<std::size_t>(n)), list(static_cast<std::size_t>(n)),
      used(static_cast<std::size_t>(size), std::numeric_limits<T>::quiet_NaN());
  auto const copy = [](void* to, void const* from, std::size_t bytes) {
    return cudaMemcpy(to, from, bytes, cudaMemcpyDefault) == cudaSuccess;
  };
  std::size_t const bytes = matrix.size() * sizeof(T);
  if (cudaStreamSynchronize(handle->stream) != cudaSuccess || !copy(work, used.data(), used.size() * sizeof(T)) ||
      !copy(matrix.data(), a, bytes) || (Routine == of_orgqr && !copy(list.data(), of_n, list.size() * sizeof(T))))
    return CUSOLVER_STATUS_EXECUTION_FAILED;
  for (T const x : matrix)
    if (!std::isfinite(x)) return CUSOLVER_STATUS_INTERNAL_ERROR;
  int result = failures > 0 ? failures-- : 0;
  if (result == 0) result = f(matrix.data(), list);
  if (Routine != of_geqrf && wrong_results > 0) {
    --wrong_results;
    matrix.front() = std::numeric_limits<T>::quiet_NaN();
  }
  return copy(a, matrix.data(), bytes) && copy(of_n, list.data(), list.size() * sizeof(T)) &&
                 copy(info, &result, sizeof result)
             ? CUSOLVER_STATUS_SUCCESS
             : CUSOLVER_STATUS_EXECUTION_FAILED;
}

auto syevd(float) { return &LAPACKE_ssyevd; }
auto syevd(double) { return &LAPACKE_dsyevd; }
auto geqrf(float) { return &LAPACKE_sgeqrf; }
auto geqrf(double) { return &LAPACKE_dgeqrf; }
auto orgqr(float) { return &LAPACKE_sorgqr; }
auto orgqr(double) { return &LAPACKE_dorgqr; }

template <class T>
cusolverStatus_t eigenvectors(cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t part, int n, T* a,
                              int lda, T* values, T* work, int size, int* info) {
  if (mode != CUSOLVER_EIG_MODE_VECTOR) return CUSOLVER_STATUS_NOT_SUPPORTED;
  return run<of_syevd>(handle, n, a, lda, values, work, size, info, [&](T* of_a, numbers<T>& of_values) {
    return static_cast<int>(
        syevd(T{})(LAPACK_COL_MAJOR, 'V', part == CUBLAS_FILL_MODE_UPPER ? 'U' : 'L', n, of_a, lda, of_values.data()));
  });
}
template <class T>
cusolverStatus_t decomposition(cusolverDnHandle_t handle, int m, int n, T* a, int lda, T* factors, T* work, int size,
                               int* info) {
  if (m != n) return CUSOLVER_STATUS_NOT_SUPPORTED;
  return run<of_geqrf>(handle, n, a, lda, factors, work, size, info, [&](T* of_a, numbers<T>& of_factors) {
    return static_cast<int>(geqrf(T{})(LAPACK_COL_MAJOR, n, n, of_a, lda, of_factors.data()));
  });
}
template <class T>
cusolverStatus_t basis(cusolverDnHandle_t handle, int m, int n, int k, T* a, int lda, T const* factors, T* work,
                       int size, int* info) {
  if (m != n || k != n) return CUSOLVER_STATUS_NOT_SUPPORTED;
  return run<of_orgqr>(handle, n, a, lda, const_cast<T*>(factors), work, size, info,
                       [&](T* of_a, numbers<T>& of_factors) {
                         return static_cast<int>(orgqr(T{})(LAPACK_COL_MAJOR, n, n, n, of_a, lda, of_factors.data()));
                       });
}

}  // namespace

extern "C" {

/// The next calls that decompose fail: the first with info = count, the last with info = 1.
void pushpull_test_fail_decompositions(int count) { failures = count; }
/// The next eigenvectors and bases have a NaN, with info = 0.
void pushpull_test_spoil_decompositions(int count) { wrong_results = count; }

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  std::lock_guard const lock(mutex);
  *handle = new cusolverDnContext;
  live.insert(*handle);
  return cudaGetDevice(&(*handle)->device) == cudaSuccess ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_NOT_INITIALIZED;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) {
  std::lock_guard const lock(mutex);
  if (live.erase(handle) == 0) return CUSOLVER_STATUS_NOT_INITIALIZED;
  int device = -1;
  if (cudaGetDevice(&device) != cudaSuccess || device != handle->device) std::abort();
  delete handle;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  std::lock_guard const lock(mutex);
  if (live.count(handle) == 0) return CUSOLVER_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnSsyevd_bufferSize(cusolverDnHandle_t handle, cusolverEigMode_t, cublasFillMode_t, int n,
                                             float const*, int lda, float const*, int* size) {
  return size_of(handle, of_syevd, n, lda, size);
}
cusolverStatus_t cusolverDnDsyevd_bufferSize(cusolverDnHandle_t handle, cusolverEigMode_t, cublasFillMode_t, int n,
                                             double const*, int lda, double const*, int* size) {
  return size_of(handle, of_syevd, n, lda, size);
}
cusolverStatus_t cusolverDnSgeqrf_bufferSize(cusolverDnHandle_t handle, int, int n, float*, int lda, int* size) {
  return size_of(handle, of_geqrf, n, lda, size);
}
cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t handle, int, int n, double*, int lda, int* size) {
  return size_of(handle, of_geqrf, n, lda, size);
}
cusolverStatus_t cusolverDnSorgqr_bufferSize(cusolverDnHandle_t handle, int, int n, int, float const*, int lda,
                                             float const*, int* size) {
  return size_of(handle, of_orgqr, n, lda, size);
}
cusolverStatus_t cusolverDnDorgqr_bufferSize(cusolverDnHandle_t handle, int, int n, int, double const*, int lda,
                                             double const*, int* size) {
  return size_of(handle, of_orgqr, n, lda, size);
}

cusolverStatus_t cusolverDnSsyevd(cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t part, int n,
                                  float* a, int lda, float* values, float* work, int size, int* info) {
  return eigenvectors(handle, mode, part, n, a, lda, values, work, size, info);
}
cusolverStatus_t cusolverDnDsyevd(cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t part, int n,
                                  double* a, int lda, double* values, double* work, int size, int* info) {
  return eigenvectors(handle, mode, part, n, a, lda, values, work, size, info);
}
cusolverStatus_t cusolverDnSgeqrf(cusolverDnHandle_t handle, int m, int n, float* a, int lda, float* factors,
                                  float* work, int size, int* info) {
  return decomposition(handle, m, n, a, lda, factors, work, size, info);
}
cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t handle, int m, int n, double* a, int lda, double* factors,
                                  double* work, int size, int* info) {
  return decomposition(handle, m, n, a, lda, factors, work, size, info);
}
cusolverStatus_t cusolverDnSorgqr(cusolverDnHandle_t handle, int m, int n, int k, float* a, int lda,
                                  float const* factors, float* work, int size, int* info) {
  return basis(handle, m, n, k, a, lda, factors, work, size, info);
}
cusolverStatus_t cusolverDnDorgqr(cusolverDnHandle_t handle, int m, int n, int k, double* a, int lda,
                                  double const* factors, double* work, int size, int* info) {
  return basis(handle, m, n, k, a, lda, factors, work, size, info);
}

}  // extern "C"
