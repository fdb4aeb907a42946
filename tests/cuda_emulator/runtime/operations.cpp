#include "runtime/operations.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <utility>

namespace emulator {
namespace {

struct operation {
  std::uint32_t stream, sequence;
  std::string what;
  vector_clock clock;
};

std::deque<operation>& operations() {
  static auto& never_ends = *new std::deque<operation>(1);  // programs release memory at exit
  return never_ends;
}

}  // namespace

void join(vector_clock& a, vector_clock const& b) {
  if (a.size() < b.size()) a.resize(b.size());
  for (std::size_t k = 0; k < b.size(); ++k) a[k] = std::max(a[k], b[k]);
}

std::uint32_t add_operation(std::uint32_t stream, std::uint32_t sequence, std::string what, vector_clock const& clock) {
  operations().push_back({stream, sequence, std::move(what), clock});
  return static_cast<std::uint32_t>(operations().size() - 1);
}

bool is_ordered(std::uint32_t first, std::uint32_t second) {
  operation const &a = operations()[first], &b = operations()[second];
  if (a.stream == b.stream) return a.sequence <= b.sequence;
  return a.stream < b.clock.size() && b.clock[a.stream] >= a.sequence;
}

std::string describe_operation(std::uint32_t number) {
  operation const& x = operations()[number];
  return "number " + std::to_string(x.sequence) + " of stream " + std::to_string(x.stream) + ", " + x.what;
}

}  // namespace emulator
