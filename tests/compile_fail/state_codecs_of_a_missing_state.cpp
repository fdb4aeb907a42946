// expect: the rule has no state of this name
#include <pushpull/pushpull.hpp>

namespace pp = pushpull;
namespace codec = pp::codec;
#ifdef CONTROL
using types = pp::detail::kv_store_types<float, pp::cpu_device<>, pp::update::adam,
                                         pp::state_codecs<64, codec::of<"exp_avg", codec::linear>>>;
#else
using types = pp::detail::kv_store_types<float, pp::cpu_device<>, pp::update::adam,
                                         pp::state_codecs<64, codec::of<"momentum", codec::linear>>>;
#endif
static_assert(types::coded);
