/// @file
/// What calls CUB, for several GPU architectures: there g++ finds in CUB's bodies what it warns of, system headers or not.
#include <pushpull/compress/primitives.cuh>
#include <pushpull/device/cuda_device.cuh>

namespace {

struct scratch_memory {
  void* take(std::size_t) { return nullptr; }
};

}  // namespace

void call_cub(pushpull::cuda_device const& device, std::uint64_t* x, std::int64_t* keys, std::int32_t* values) {
  using primitives = pushpull::compress::primitives<pushpull::pass::cuda_execution>;
  primitives::exclusive_sum(device, x, 1, nullptr);
  scratch_memory scratch;
  device.sort_by_key(keys, keys, values, values, 1, 8, scratch);
  device.select(1, pushpull::detail::index_predicate_probe{}, values, values, scratch);
}
