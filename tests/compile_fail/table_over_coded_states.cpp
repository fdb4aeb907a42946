// expect: embedding_table: the store's states are codes
#include <pushpull/pushpull.hpp>
#include <pushpull/store/table/embedding_table.hpp>

namespace pp = pushpull;
#ifdef CONTROL
using store = pp::kv_store<float, pp::cpu_device<>, pp::update::adam>;
#else
using store = pp::kv_store<float, pp::cpu_device<>, pp::update::adam, pp::state_codecs<64, pp::codec::linear> >;
#endif
void f(store& rows) { pp::embedding_table(rows, "words", 64); }
