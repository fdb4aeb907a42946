// The main function of every test program.
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>

int main(int argc, char* argv[]) { return Catch::Session().run(argc, argv); }
#else
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif

// oneTBB's library is not compiled with the thread sanitizer, which therefore does not see that a parallel loop ends
// after its iterations. So it gets no threads of its own here, and races are looked for with thread_system.hpp.
#if defined(__SANITIZE_THREAD__)
#include <tbb/global_control.h>

static tbb::global_control const no_workers{tbb::global_control::max_allowed_parallelism, 1};
#endif
