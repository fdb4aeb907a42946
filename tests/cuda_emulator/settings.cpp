#include "settings.hpp"

#include <cstdlib>
#include <random>
#include <string>

namespace emulator {
namespace {

char const* variable(char const* name) { return std::getenv((std::string("PUSHPULL_EMULATOR_") + name).c_str()); }

bool is_on(char const* name, bool otherwise) {
  char const* const value = variable(name);
  return value != nullptr ? *value != '0' : otherwise;
}

std::uint64_t number(char const* name, std::uint64_t otherwise) {
  char const* const value = variable(name);
  return value != nullptr ? std::strtoull(value, nullptr, 10) : otherwise;
}

}  // namespace

settings const& setting() {
  static settings const s{.races = is_on("RACES", true),
                          .undefined = is_on("UNDEFINED", true),
                          .trace = is_on("TRACE", false),
                          .summary = is_on("SUMMARY", false),
                          .lenient = is_on("LENIENT", false),
                          .contract = is_on("CONTRACT", false),
                          .strict = is_on("STRICT", false),
                          .peers = is_on("PEERS", true),
                          .devices = static_cast<int>(number("DEVICES", 1)),
                          .seed = number("SEED", 1 + std::random_device{}() % 1'000'000),
                          .steps = number("STEPS", 20'000'000'000)};
  return s;
}

}  // namespace emulator
