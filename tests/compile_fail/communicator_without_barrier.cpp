// expect: the communicator does not model Communicator: rank\(\), size\(\) and barrier\(\), all const
#include <pushpull/pushpull.hpp>

struct world {
  using policy_kind = pushpull::communicator_tag;
  int rank() const { return 0; }
  int size() const { return 1; }
#ifdef CONTROL
  void barrier() const {}
#endif
};

pushpull::kv_store<float, pushpull::cpu_device<>, world> store{pushpull::cpu_devices(1)};
