// expect: at most one stage may be a PreReduction
#include <pushpull/pushpull.hpp>
#include <complex>
#include <vector>
namespace pp = pushpull;
auto const rule = pp::update::clip_global_norm(1) |
#ifndef CONTROL
                  pp::update::clip_global_norm(2) |
#endif
                  pp::update::sgd{};
