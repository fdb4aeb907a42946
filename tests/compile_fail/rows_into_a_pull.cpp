// expect: RowSparseTensor: row-sparse tensors came where dense ones are taken
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
void pull(pp::kv_store<float, pp::cpu_device<>>& store, pp::row_sparse<float>& output) {
#ifdef CONTROL
  store.row_sparse_pull("w", output, std::vector{1, 2});
#else
  store.pull("w", output);
#endif
}
