// The main function of programs in which rank 1 of a job does something wrong.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <string>

namespace pushpull::test {

/// Calls the fault that the first argument names. @returns  The status of the program.
inline int run_fault(std::map<std::string, void (*)()> const& faults, int argc, char* argv[]) {
  auto const fault = faults.find(argc > 1 ? argv[1] : "");
  if (fault == faults.end()) {
    std::puts("unknown fault");
    return EXIT_SUCCESS;  // the tests expect a failure
  }
  try {
    fault->second();
  } catch (std::exception const& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace pushpull::test
