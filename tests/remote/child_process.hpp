/// @file
/// This program again, in a process of its own that runs one hidden test case.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace pushpull::test {

/// Killed when it ends, or the thread that made it. Lines that the child writes by `tell` are read by `line`.
class child_process {
 public:
  /// @param test  The name of a test case with the tag [.child]. @param variables  Added to the environment.
  child_process(std::string test, std::map<std::string, std::string> variables) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    variables["PUSHPULL_TEST_PIPE"] = std::to_string(ends[1]);
    std::vector<std::string> texts;
    for (char** e = environ; *e != nullptr; ++e) texts.emplace_back(*e);
    for (auto const& [name, value] : variables) texts.push_back(name + "=" + value);
    std::vector<char*> environment;
    for (std::string& text : texts) environment.push_back(text.data());
    environment.push_back(nullptr);
    std::string program = "/proc/self/exe";
    char* const arguments[] = {program.data(), test.data(), nullptr};
    id_ = ::fork();
    if (id_ < 0) throw std::runtime_error("fork");
    if (id_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);                    // if the parent cannot
      ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);  // results are told by the exit status
      ::execve("/proc/self/exe", arguments, environment.data());
      ::_exit(127);
    }
    ::close(ends[1]);
    lines_ = ::fdopen(ends[0], "r");
  }
  child_process(child_process const&) = delete;
  child_process& operator=(child_process const&) = delete;
  ~child_process() {
    send(SIGKILL);
    wait();
    std::fclose(lines_);
  }

  void send(int signal) {
    if (id_ > 0) ::kill(id_, signal);
  }
  /// Returns when it is stopped, which takes a while on a busy machine.
  void stop() {
    send(SIGSTOP);
    int status = 0;
    while (id_ > 0 && ::waitpid(id_, &status, WUNTRACED) < 0 && errno == EINTR) {
    }
  }
  /// The next line that the child told; empty when there are no more.
  std::string line() {
    std::string text;
    for (int c; (c = std::fgetc(lines_)) != EOF && c != '\n';) text += static_cast<char>(c);
    return text;
  }
  /// The last line that the child told.
  std::string last_line() {
    std::string last;
    for (std::string next = line(); !next.empty(); next = line()) last = next;
    return last;
  }
  /// Whether it ends well.
  bool wait() {
    if (id_ <= 0) return succeeded_;
    int status = 0;
    while (::waitpid(id_, &status, 0) < 0 && errno == EINTR) {
    }
    id_ = 0;
    return succeeded_ = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }

 private:
  pid_t id_ = 0;
  bool succeeded_ = false;
  std::FILE* lines_ = nullptr;
};

/// In a child: writes a line to the parent.
inline void tell(std::string text) {
  static int const pipe = std::atoi(std::getenv("PUSHPULL_TEST_PIPE"));
  text += '\n';
  if (::write(pipe, text.data(), text.size()) < 0) std::abort();
}
inline std::string variable(char const* name) {
  char const* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace pushpull::test
