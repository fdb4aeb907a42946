// expect: need a store that computes in float and whose states are floats
#include <pushpull/pushpull.hpp>

namespace pp = pushpull;
namespace codec = pp::codec;
#ifdef CONTROL
using types =
    pp::detail::kv_store_types<float, pp::cpu_device<>, pp::update::adam, pp::state_codecs<64, codec::linear>>;
#else
using types =
    pp::detail::kv_store_types<double, pp::cpu_device<>, pp::update::adam, pp::state_codecs<64, codec::linear>>;
#endif
static_assert(types::coded);
