// case 1: the key has another kind than the store's: keys are strings
// case 2: TensorsOf: a tensor has another element type than the store
// case 3: OutlivesCall: a temporary that owns its elements ends before the work does
// case 4: OutputTensor: an output is const
// case 5: TensorsOf: one key takes a tensor or a range of tensors, no range of ranges
// case 6: TensorListOf: a range of keys takes a range that has a tensor, or a range of them, per key
// case 7: Device: a tensor is on a device of another kind than the store's
// case 8: Tensor: an argument is neither a tensor, a contiguous range of elements, nor a range of these
// case 9: RowSparseOutputs: row_sparse_pull fills row_sparse tensors
// case 10: accumulate: the store has no policy accumulate
// case 11: the call takes other arguments than these
// case 12: the key has another kind than the store's: keys are strings
// case 13: the key has another kind than the store's: keys are strings
// case 14: set_updater takes f
#include <pushpull/pushpull.hpp>

#include "refused_calls.hpp"
void f(pp::kv_store<float, pp::cpu_device<>, pp::update::sgd>& store, pp::tensor_view<float, far_device>& far) {
#if defined(CONTROL)
  store.push("w", g).wait();
  store.push("w", g, {3});
  store.pushpull("w", sources, output);
  store.push(keys, lists);
  store.assign(keys, sources);
  (void)far;
#elif CASE == 1
  store.push(7, g).wait();
#elif CASE == 2
  store.pushpull("w", doubles, output).wait();
#elif CASE == 3
  store.push(keys, std::vector<floats>(2));
#elif CASE == 4
  store.pull("w", constant);
#elif CASE == 5
  store.push("w", lists);
#elif CASE == 6
  store.assign(keys, g);
#elif CASE == 7
  store.push("w", far);
#elif CASE == 8
  store.init("w", number);
#elif CASE == 9
  store.row_sparse_pull("w", output, ids);
#elif CASE == 10
  store.accumulate("w", g);
#elif CASE == 11
  store.broadcast("w", g);
#elif CASE == 12
  store.swap(7, "ema");
#elif CASE == 13
  store.wait(7);
#else
  store.set_updater([](int) {});
#endif
}

// Who asks whether a call compiles is told that it does not.
template <class S>
concept TakesAny =
    requires(S& store) { store.push(number, number); } || requires(S& store) { store.pull("w", constant); };
static_assert(!TakesAny<pp::kv_store<float, pp::cpu_device<>>>);
