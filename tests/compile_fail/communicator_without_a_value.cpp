// expect: a policy that has no default value has to be given as a value
#include <pushpull/pushpull.hpp>

struct world {
  using policy_kind = pushpull::communicator_tag;
  explicit world(int size_of_all) : count(size_of_all) {}
  int rank() const { return 0; }
  int size() const { return count; }
  void barrier() const {}

  int count;
};

#ifdef CONTROL
pushpull::kv_store<float, pushpull::cpu_device<>, pushpull::update::sgd, world> store{
    pushpull::cpu_devices(1), pushpull::update::sgd{}, world(1)};
#else
pushpull::kv_store<float, pushpull::cpu_device<>, pushpull::update::sgd, world> store{pushpull::cpu_devices(1),
                                                                                      pushpull::update::sgd{}};
#endif
