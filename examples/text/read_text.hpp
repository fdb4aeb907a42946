/// @file
/// The text that examples learn from: a file, or the King James Bible.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace example_text {

/// For everything that the person at the keyboard can mend: exit code 2.
class input_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The whole text: of a file, or of the Bible, a verse per line. @throws input_error if it cannot be read
inline std::string read_text(std::optional<std::filesystem::path> const& path) {
  std::string text;
  if (path) {
    std::ifstream file{*path, std::ios::binary};
    std::ostringstream all;
    if (!file || !(all << file.rdbuf())) throw input_error{"--text: " + path->string() + " cannot be read"};
    return all.str();
  }
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> const pipe{popen("bible -f gen1:1-rev22:21 2>/dev/null", "r"),
                                                             pclose};
  char part[1 << 16];
  while (pipe) {
    auto const bytes = std::fread(part, 1, sizeof part, pipe.get());
    if (bytes == 0) break;
    text.append(part, bytes);
  }
  if (text.empty())
    throw input_error{"the default text needs the Debian package bible-kjv; or name a file with --text"};
  return text;
}

}  // namespace example_text
