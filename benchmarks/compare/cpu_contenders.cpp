#include "compare/contender.hpp"

namespace pushpull::bench::compare {

std::vector<entry> contenders() {
  std::vector<entry> all;
  for (auto const& part : {our_contenders(), hand_written_contenders(), thrust_contenders(), eigen_contenders()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace pushpull::bench::compare
