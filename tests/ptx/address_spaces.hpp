/// @file
/// Which accesses of global memory in a kernel's PTX get an address of another memory: a thread's own, a block's shared
/// memory, or the kernel's arguments.
#pragma once

#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace pushpull::test {

/// The names in a line of PTX: opcodes with their modifiers, registers, labels, variables.
inline std::vector<std::string> ptx_names(std::string_view line) {
  std::vector<std::string> names(1);
  for (char const c : line.substr(0, line.find("//"))) {
    if (std::string_view(" \t,;{}[]()+<>!").find(c) == std::string_view::npos) {
      names.back() += c;
    } else if (!names.back().empty()) {
      names.emplace_back();
    }
  }
  if (names.back().empty()) names.pop_back();
  if (!names.empty() && names[0][0] == '@') names.erase(names.begin());  // a predicate
  return names;
}

/// The lines of one kernel that read or write global memory at an address that was computed from one of another memory.
/// Loads end a computation: what they give is data. @param entry  From `.entry` on.
inline std::vector<std::string> misplaced_accesses(std::string const& entry) {
  std::set<std::string, std::less<>> elsewhere;  // variables of other memory, and registers that hold their addresses
  auto const starts = [](std::string const& name, std::string_view with) { return name.rfind(with, 0) == 0; };
  auto const accesses = [&](std::string const& name) {
    for (char const* const kind : {"ld.", "st.", "atom.", "red."})
      if (starts(name, kind)) return true;
    return false;
  };
  std::vector<std::string> found;
  for (std::size_t known = std::string::npos; known != elsewhere.size();) {  // again, for loops that jump back
    known = elsewhere.size();
    found.clear();
    std::istringstream lines(entry);
    for (std::string line; std::getline(lines, line);) {
      auto const names = ptx_names(line);
      if (names.size() < 2) continue;
      std::string const& first = names[0];
      if (first == ".local" || first == ".shared" || first == ".param") {
        elsewhere.insert(names.back().find_first_not_of("0123456789") == std::string::npos ? names[names.size() - 2]
                                                                                           : names.back());
      } else if (accesses(first)) {
        bool const global = first.find(".global") != std::string::npos;
        std::size_t const at = line.find('[');
        if (!global || at == std::string::npos) continue;
        auto const address = ptx_names(std::string_view(line).substr(at));
        if (!address.empty() && elsewhere.contains(address[0])) found.push_back(line);
      } else if (starts(first, "cvta.local") || starts(first, "cvta.shared") || starts(first, "cvta.param")) {
        elsewhere.insert(names[1]);
      } else if (!starts(first, "setp") && !starts(first, "call")) {
        for (std::size_t i = 2; i < names.size(); ++i)
          if (elsewhere.contains(names[i])) elsewhere.insert(names[1]);
      }
    }
  }
  return found;
}

}  // namespace pushpull::test
