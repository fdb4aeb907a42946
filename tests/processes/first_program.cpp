// example-begin program
#include <cstdio>
#include <vector>

#include <pushpull/comm/mpi.hpp>
#include <pushpull/pushpull.hpp>

int main() {
  using namespace pushpull;
  comm::mpi const ranks;  // all processes that mpirun has started
  std::vector<float> weight(1000, 1.0F);
  std::vector<float> const gradient(1000, static_cast<float>(1 + ranks.rank()));  // of this rank's share of the batch

  kv_store store{cpu_devices(1), update::sgd{.learning_rate = 0.1}, reduce::mean{}, ranks};
  store.init("fc1.weight", weight);  // the value of rank 0
  for (int step = 0; step < 2; ++step) store.pushpull("fc1.weight", gradient, weight);
  store.wait();
  if (ranks.rank() == 0) std::printf("%d ranks, weights of %.4f\n", ranks.size(), double{weight[0]});
}
// example-end program
