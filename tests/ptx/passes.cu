/// @file
/// The passes whose PTX and resource usage ptx_test.cpp reads: Adam in arenas, in three sets of element types, and with
/// gradients or states that the pass decodes.
#include <pushpull/pushpull.cuh>

namespace {

template <class G>
using adam_pass = pushpull::pass::body<pushpull::update::adam, pushpull::reduce::sum,
                                       pushpull::pass::element_types<G, float, float, float, G>,
                                       pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;

template <class Encoded>
using decoding_pass = pushpull::pass::body<pushpull::update::adam, pushpull::reduce::sum,
                                           pushpull::pass::element_types<Encoded, float, float, float, float>,
                                           pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;
using scaled_pass = decoding_pass<pushpull::compress::scaled_code<pushpull::float8_e4m3>>;
using sparse_pass = decoding_pass<pushpull::compress::sparse_code>;

namespace codec = pushpull::codec;
using eighths = pushpull::detail::coded_states<256, codec::linear, codec::unsigned_float8>;
using coded_pass = pushpull::pass::body<pushpull::update::adam, pushpull::reduce::sum,
                                        pushpull::pass::element_types<float, float, float, eighths, float>,
                                        pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;

}  // namespace

void launch_float(adam_pass<float> const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
void launch_bfloat16(adam_pass<pushpull::bfloat16> const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
void launch_float8(adam_pass<pushpull::float8_e5m2> const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
void launch_scaled(scaled_pass const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
void launch_sparse(sparse_pass const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
void launch_coded(coded_pass const& pass, std::int64_t n, cudaStream_t stream) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads, 0, stream>>>(pass, n);
}
