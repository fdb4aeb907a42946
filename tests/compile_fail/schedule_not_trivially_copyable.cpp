// expect: LearningRateSchedule: the schedule is not trivially copyable
#include <pushpull/pushpull.hpp>

#include <cstdint>
#include <vector>
namespace pp = pushpull;
struct schedule {
#ifdef CONTROL
  double values[2];
#else
  std::vector<double> values;
#endif
  double operator()(std::int64_t t) const { return values[t > 1]; }
};
auto const rule = pp::update::adam{} | pp::update::learning_rate(schedule{});
