// Linked with one unit per header: see CMakeLists.txt.
#include <pushpull/pushpull.hpp>

int main() {}
