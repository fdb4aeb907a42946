/// @file
/// Pages show only code that is compiled elsewhere, and output that a program printed.
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

namespace fs = std::filesystem;
fs::path const root{PUSHPULL_SOURCE_DIR};

std::string contents(fs::path const& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The code of the first fenced block of `language` at or after `from`.
std::string fenced(std::string const& page, std::string const& language, std::size_t from = 0) {
  std::string const fence = "```" + language + "\n";
  std::size_t const begin = page.find(fence, from);
  if (begin == std::string::npos) throw std::runtime_error("no block " + fence);
  std::size_t const first = begin + fence.size();
  return page.substr(first, page.find("```", first) - first);
}

/// What stands between `// example-begin name` and `// example-end name`, less the indentation of the marks.
std::string example(std::string const& source, std::string const& name) {
  std::size_t const mark = source.find("// example-begin " + name + "\n");
  if (mark == std::string::npos) throw std::runtime_error("no example " + name);
  std::size_t const line = source.rfind('\n', mark) + 1;
  std::string const indentation = source.substr(line, mark - line);
  std::size_t const first = source.find('\n', mark) + 1;
  std::istringstream lines(source.substr(first, source.find("// example-end " + name, first) - first));
  std::string code, text;
  while (std::getline(lines, text)) {
    if (text.starts_with(indentation)) text.erase(0, indentation.size());
    if (!lines.eof()) code += text + "\n";
  }
  return code;
}

std::string output_of(std::string const& command) {
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  std::string text;
  std::array<char, 256> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) text += part.data();
  if (pclose(pipe) != 0) throw std::runtime_error("failed: " + command);
  return text;
}

}  // namespace

TEST_CASE("the README's first program is examples/quick_start, and prints what the README says", "[readme]") {
  std::string const page = contents(root / "README.md");
  REQUIRE(fenced(page, "cpp") == contents(root / "examples/quick_start/main.cpp"));
  REQUIRE(fenced(page, "text") == output_of(PUSHPULL_QUICK_START));
}

TEST_CASE("every other snippet is part of a compiled file", "[readme]") {
  std::vector<fs::path> pages{root / "README.md"};
  for (auto const& entry : fs::directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  int snippets = 0;
  for (auto const& path : pages) {
    INFO(path.string());
    std::string const page = contents(path);
    std::string const mark = "<!-- snippet: ";
    std::size_t blocks = path == pages.front() ? 1 : 0;  // the README's first one is a whole file
    for (std::size_t at = page.find(mark); at != std::string::npos; at = page.find(mark, at + 1)) {
      std::istringstream words(page.substr(at + mark.size(), page.find(" -->", at) - at - mark.size()));
      std::string file, name;
      words >> file >> name;
      INFO(file << " " << name);
      REQUIRE(fenced(page, "cpp", at) == example(contents(root / file), name));
      ++snippets;
      ++blocks;
    }
    std::size_t fences = 0;
    for (std::size_t at = page.find("```cpp"); at != std::string::npos; at = page.find("```cpp", at + 1)) ++fences;
    REQUIRE(fences == blocks);
  }
  REQUIRE(snippets >= 5);
}
