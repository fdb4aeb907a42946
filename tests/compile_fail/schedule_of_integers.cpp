// expect: LearningRateSchedule: the schedule cannot be called as schedule.t. .* or does not return double
#include <pushpull/pushpull.hpp>

#include <cstdint>
namespace pp = pushpull;
struct schedule {
#ifdef CONTROL
  double operator()(std::int64_t t) const { return 1 / static_cast<double>(t); }
#else
  std::int64_t operator()(std::int64_t t) const { return 1 / t; }
#endif
};
auto const rule = pp::update::adam{} | pp::update::learning_rate(schedule{});
