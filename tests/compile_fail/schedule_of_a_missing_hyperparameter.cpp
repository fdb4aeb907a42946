// expect: scheduled: the stage on the left has no such hyperparameter
#include <pushpull/pushpull.hpp>
namespace pp = pushpull;
#ifdef CONTROL
using rule_type = pp::update::sgd;
#else
using rule_type = pp::update::clip_value;
#endif
auto const rule = rule_type{1} | pp::update::learning_rate(pp::lr_schedule::constant{1});
