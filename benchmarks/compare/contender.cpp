#include "compare/contender.hpp"

#include <algorithm>
#include <numeric>
#include <sstream>

namespace pushpull::bench::compare {

std::int64_t task::moved_bytes() const {
  std::int64_t const states = rule == "sgd" ? 0 : (rule == "momentum" ? 1 : 2);
  auto const arrays = static_cast<std::int64_t>(gradients + mirrors);
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) *
         (arrays * (element == "float" ? 4 : 2) + 8 * (1 + states));
}

void task::expect_step() const {
  if (operation != "step") throw unsupported("no " + operation);
}

void task::expect_float() const {
  if (element != "float") throw unsupported("no gradients of " + element);
}

task parse_task(std::string const& line) {
  task t;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    auto const equals = word.find('=');
    if (equals == std::string::npos) throw std::invalid_argument("name=value expected, got " + word);
    std::string const name = word.substr(0, equals), value = word.substr(equals + 1);
    if (name == "operation") {
      t.operation = value;
    } else if (name == "rule") {
      t.rule = value;
    } else if (name == "element") {
      t.element = value;
    } else if (name == "gradients") {
      t.gradients = std::stoul(value);
    } else if (name == "mirrors") {
      t.mirrors = std::stoul(value);
    } else if (name == "rows") {
      t.rows = std::stoll(value);
    } else if (name == "row_length") {
      t.row_length = std::stoll(value);
    } else if (name == "given_rows") {
      t.given_rows = std::stoll(value);
    } else if (name == "sizes" || name == "columns") {  // 64,2000x5000: one tensor of 64 elements, then 5000 of 2000
      auto& numbers = name == "sizes" ? t.sizes : t.columns;
      std::istringstream runs(value);
      for (std::string run; std::getline(runs, run, ',');) {
        auto const times = run.find('x');
        std::size_t const count = times == std::string::npos ? 1 : std::stoul(run.substr(times + 1));
        numbers.insert(numbers.end(), count, std::stoll(run));
      }
    } else {
      throw std::invalid_argument("no part of a task is called " + name);
    }
  }
  return t;
}

std::array<float, period> const& input_table() {
  static std::array<float, period> const table = [] {
    std::array<float, period> values{};
    for (std::uint32_t i = 0; i < period; ++i) {
      std::uint32_t const x = i * 2654435761U + 12345U;
      values[i] = static_cast<float>(x >> 25) / 128.0F - 0.5F;
    }
    return values;
  }();
  return table;
}

std::vector<std::int64_t> row_ids(task const& t) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(t.given_rows));
  for (std::int64_t i = 0; i < t.given_rows; ++i) ids[static_cast<std::size_t>(i)] = i * 7919 % t.rows;
  return ids;
}

}  // namespace pushpull::bench::compare
