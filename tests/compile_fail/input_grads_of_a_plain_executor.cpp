// expect: input_grads: the executor is no InputGradExecutor: input_grads\(\) is missing
#include <pushpull/pushpull.hpp>
#include <pushpull/train/executor_group.hpp>

#include "../train/archetypes.hpp"

void f(pushpull::train::executor_group<pushpull::test::archetype::executor_factory>& group) {
#ifdef CONTROL
  group.merged_outputs();
#else
  group.input_grads();
#endif
}
