// Succeeds if the library is the version that the first argument names.
#include <iostream>
#include <pushpull/pushpull.hpp>
#include <string>

int main(int argc, char** argv) {
  std::string const numbers = std::to_string(PUSHPULL_VERSION_MAJOR) + '.' + std::to_string(PUSHPULL_VERSION_MINOR) +
                              '.' + std::to_string(PUSHPULL_VERSION_PATCH);
  std::cout << "pushpull " << PUSHPULL_VERSION_STRING << '\n';
  return argc == 2 && numbers == argv[1] && numbers == PUSHPULL_VERSION_STRING ? 0 : 1;
}
