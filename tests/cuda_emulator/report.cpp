#include "report.hpp"

#include <cxxabi.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace emulator {
namespace {

std::map<std::string, unsigned long>& reports() {
  static auto& never_ends = *new std::map<std::string, unsigned long>;  // programs release memory at exit
  return never_ends;
}

}  // namespace

void report(std::string const& text) {
  std::string kind = text.substr(0, text.find("\n    PTX line"));
  std::erase_if(kind, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (++reports()[kind] == 1) std::fprintf(stderr, "== emulator: %s\n", text.c_str());
}

bool reported_anything() { return !reports().empty(); }

void summarize_reports() {
  unsigned long total = 0;
  for (auto const& [kind, count] : reports()) total += count;
  if (total > 0) std::fprintf(stderr, "== emulator: %lu reports of %zu kinds\n", total, reports().size());
}

std::string demangled(std::string const& name) {
  int status = 0;
  char* const text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string found = status == 0 && text != nullptr ? text : name;
  std::free(text);
  return found;
}

}  // namespace emulator
