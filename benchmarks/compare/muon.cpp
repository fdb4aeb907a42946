// This library's Muon, if there is a BLAS for it.
#include <memory>

#include "compare/contender.hpp"
#include "compare/parameter_store_step.hpp"

#ifdef PUSHPULL_BENCH_BLAS
#include <pushpull/update/muon.hpp>
#endif

namespace pushpull::bench::compare {

std::unique_ptr<contender> our_muon([[maybe_unused]] task const& t) {
#ifdef PUSHPULL_BENCH_BLAS
  update::muon const rule{.learning_rate = 2e-2};
  return std::make_unique<parameter_store_step<update::muon>>(t, rule);
#else
  throw unsupported("no muon without a BLAS: CMake found none with cblas.h");
#endif
}

}  // namespace pushpull::bench::compare
