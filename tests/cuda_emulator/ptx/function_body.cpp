#include "ptx/function_body.hpp"

#include <cstdlib>

#include "ptx/lexer.hpp"

namespace emulator {

void function_body::declare_registers(std::string const& prefix, int n) {
  scopes_.back().runs.push_back({prefix, static_cast<std::int32_t>(f_.initial.size()), n});
  for (int k = 0; k < n; ++k) fresh();
}

std::int32_t function_body::find_register(std::string const& name) const {
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s) {
    if (auto const it = s->registers.find(name); it != s->registers.end()) return it->second;
    for (auto const& run : s->runs) {
      if (name.size() <= run.prefix.size() || name.compare(0, run.prefix.size(), run.prefix) != 0) continue;
      char* end = nullptr;
      long const n = std::strtol(name.c_str() + run.prefix.size(), &end, 10);
      if (*end == 0 && n < run.count) return run.first + static_cast<std::int32_t>(n);
    }
  }
  return -1;
}

bool function_body::find_symbol(std::string const& name, std::uint64_t& value) const {
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s) {
    if (auto const it = s->symbols.find(name); it != s->symbols.end()) {
      value = it->second;
      return true;
    }
  }
  auto const global = module_.globals.find(name);
  if (global == module_.globals.end()) return false;
  value = global->second.address;
  return true;
}

std::int32_t function_body::constant(std::uint64_t value) {
  auto const [it, added] = constants_.try_emplace(value, 0);
  if (added) it->second = fresh(true, value);
  return it->second;
}

std::int32_t function_body::fresh(bool defined, std::uint64_t value) {
  f_.initial.push_back({value, defined ? 0 : ~std::uint64_t{0}});
  return static_cast<std::int32_t>(f_.initial.size() - 1);
}

std::int32_t function_body::read_value(std::vector<std::string> const& words, std::size_t& i, operand& o) {
  bool const minus = words.at(i) == "-", complement = words.at(i) == "!";
  if (minus || complement) ++i;
  std::string const& word = words.at(i++);
  if (word == "_") return -1;
  if (is_number(word)) return constant(minus ? 0 - number(word) : number(word));
  if (complement) o.negated = true;
  if (auto const r = find_register(word); r >= 0) return r;
  if (word == "WARP_SZ") return constant(32);
  if (word[0] == '%') {
    auto const [it, added] = specials_.try_emplace(word, 0);
    if (added) {
      it->second = fresh(true);
      f_.special.emplace_back(it->second, word);
    }
    return it->second;
  }
  std::uint64_t address = 0;
  if (find_symbol(word, address)) {
    if (i + 1 < words.size() && words[i] == "+" && is_number(words[i + 1])) {
      address += number(words[i + 1]);
      i += 2;
    }
    return constant(address);
  }
  o.name = word;
  return -2;
}

operand function_body::read_operand(std::vector<std::string> const& words, std::size_t& i) {
  operand o;
  if (words.at(i) == "{") {
    o.kind = operand::vector;
    ++i;
    while (words.at(i) != "}") {
      o.list.push_back(read_value(words, i, o));
      if (words.at(i) == ",") ++i;
    }
    ++i;
  } else if (words[i] == "[") {
    o.kind = operand::address;
    ++i;
    o.reg = read_value(words, i, o);
    while (words.at(i) == "+" || words[i] == "-") {
      bool minus = words[i++] == "-";
      if (words.at(i) == "-") {
        minus = !minus;
        ++i;
      }
      auto const n = static_cast<std::int64_t>(number(words.at(i++)));
      o.offset += minus ? -n : n;
    }
    while (words.at(i) != "]") ++i;  // a cache policy
    ++i;
  } else {
    o.reg = read_value(words, i, o);
    if (i < words.size() && words[i] == "|") {
      ++i;
      o.second = read_value(words, i, o);
    }
  }
  return o;
}

}  // namespace emulator
