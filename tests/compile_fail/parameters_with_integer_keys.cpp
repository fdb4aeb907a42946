// expect: parameter_store: the Store must have string keys
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using keys = pp::string_keys;
#else
using keys = pp::integer_keys;
#endif
using store = pp::kv_store<float, pp::cpu_device<>, keys>;
pp::parameter_store<store>* make(store& s) { return new pp::parameter_store<store>(s); }
