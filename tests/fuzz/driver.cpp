/// @file
/// Runs a fuzzer without libFuzzer: random inputs, each the function of a number that is printed if it fails.
///
/// fuzzer [runs [first]]: inputs number first, first + 1, ...; without arguments 1000 of them from 1 on.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size);
/// Of a sanitizer, if there is one.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*f)());

namespace {

unsigned long long current = 0;

void tell() { std::fprintf(stderr, "input %llu failed: run again with the arguments 1 %llu\n", current, current); }

void die(int signal) {
  tell();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

/// Longer programs are rarer: short ones end before one fault hides another.
std::vector<std::uint8_t> input(unsigned long long number) {
  std::mt19937_64 random(number);
  std::vector<std::uint8_t> bytes(16U << (random() % 7));
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::uint8_t>(random()); });
  return bytes;
}

}  // namespace

int main(int count, char** arguments) {
  unsigned long long const runs = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 1000;
  unsigned long long const first = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(tell);
  for (int const signal : {SIGABRT, SIGALRM, SIGFPE, SIGSEGV})
    if (__sanitizer_set_death_callback == nullptr || signal == SIGABRT || signal == SIGALRM) std::signal(signal, die);
  std::printf("inputs %llu to %llu\n", first, first + runs - 1);
  std::fflush(stdout);
  for (current = first; current < first + runs; ++current) {
    alarm(300);  // a call that hangs
    auto const bytes = input(current);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%llu inputs, 0 failures\n", runs);
}
