// expect: state_codecs do not take Factored rules
#include <pushpull/pushpull.hpp>

namespace pp = pushpull;
#if defined(CONTROL)
using rule = pp::update::adam;
#else
using rule = pp::update::adafactor;
#endif
using types = pp::detail::kv_store_types<float, pp::cpu_device<>, rule, pp::state_codecs<64, pp::codec::linear>>;
static_assert(!types::whole_keys);
