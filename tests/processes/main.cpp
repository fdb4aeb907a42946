// The main function of test programs that run on several ranks: Catch2 on every rank, and the first failure on any rank
// ends the job, so that no rank waits for one that has left a test.
#include <pushpull/comm/mpi.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_all.hpp>
#define PUSHPULL_TEST_LISTENER EventListenerBase
#define PUSHPULL_TEST_ASSERTION_ENDED void
#define PUSHPULL_TEST_GO_ON
#else
#define CATCH_CONFIG_RUNNER
#define CATCH_CONFIG_NO_POSIX_SIGNALS  // mpirun ends the other ranks by a signal
#include <catch2/catch.hpp>
#define PUSHPULL_TEST_LISTENER TestEventListenerBase
#define PUSHPULL_TEST_ASSERTION_ENDED bool
#define PUSHPULL_TEST_GO_ON true
#endif

namespace {

int rank = 0;

struct abort_at_failure : Catch::PUSHPULL_TEST_LISTENER {
  using Catch::PUSHPULL_TEST_LISTENER::PUSHPULL_TEST_LISTENER;

  PUSHPULL_TEST_ASSERTION_ENDED assertionEnded(Catch::AssertionStats const& stats) override {
    auto const& result = stats.assertionResult;
    if (result.isOk()) return PUSHPULL_TEST_GO_ON;
    std::string text = result.getSourceInfo().file + (":" + std::to_string(result.getSourceInfo().line)) +
                       ": failed: " + result.getExpressionInMacro() + "\n  " + result.getExpandedExpression() + "\n";
    for (auto const& info : stats.infoMessages) text += "  " + info.message + "\n";
    std::fprintf(stderr, "rank %d: %s", rank, text.c_str());
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    std::_Exit(EXIT_FAILURE);
  }
};
CATCH_REGISTER_LISTENER(abort_at_failure)

int run(int argc, char* argv[]) {
  pushpull::comm::mpi const world;
  rank = world.rank();
  if (rank != 0 && std::freopen("/dev/null", "w", stdout) == nullptr) return EXIT_FAILURE;
  return Catch::Session().run(argc, argv);
}

}  // namespace

int main(int argc, char* argv[]) {
  // A program may initialise MPI itself, and for calls of one thread at a time. It then also finalises it.
  bool const serialized = std::getenv("PUSHPULL_TEST_MPI_SERIALIZED") != nullptr;
  if (serialized) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);  // as docs/writing_a_communicator.md says
    if (provided != MPI_THREAD_SERIALIZED) std::puts("MPI does not provide MPI_THREAD_SERIALIZED but more");
  }
  int const failed = run(argc, argv);
  if (serialized) MPI_Finalize();
  return failed;
}
