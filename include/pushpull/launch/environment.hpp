/// @file
/// The place of this process in its job, as its launcher describes it by environment variables.
#pragma once

#include <array>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace launch {

/// MXNet's names for the processes of a job with servers. Jobs without servers have workers only.
enum class process_role { worker, server, scheduler };

/// The place of a process in its job.
struct process {
  std::string launcher = {};  ///< "pushpull", "open_mpi", "pmi", "torchrun", "slurm", "dmlc"; empty if there is none
  int rank = 0;               ///< -1 if the launcher does not number this process
  int ranks = 1;
  int local_rank = 0;        ///< among the ranks of this machine; -1 if the launcher does not say
  int local_ranks = 1;       ///< 0 if the launcher does not say
  std::string address = {};  ///< where the processes of the job meet; empty if the launcher does not say
  int port = 0;              ///< 0 if the launcher does not say
  std::string host = {};     ///< this machine's address in MXNet's job; empty if the launcher does not say
  process_role role = process_role::worker;
  int servers = 0;  ///< of MXNet's job; 0 for all other launchers
};

}  // namespace launch

namespace detail {

/// Reads variables through `lookup(name) -> char const*`, which is null for those that are not set.
template <class Lookup>
class launch_variables {
 public:
  explicit launch_variables(Lookup const& lookup) : lookup_(lookup) {}

  /// Empty if it is not set.
  std::string text(char const* name) const {
    char const* const value = lookup_(name);
    return value == nullptr ? std::string() : std::string(value);
  }
  bool has(char const* name) const { return !text(name).empty(); }

  /// @throws invalid_argument unless it is not set or a number in [least, most].
  std::optional<int> number(char const* name, int least, int most) const {
    std::string const value = text(name);
    if (value.empty()) return std::nullopt;
    int n = 0;
    auto const [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
    expects<invalid_argument>(
        error == std::errc() && end == value.data() + value.size() && n >= least && n <= most, [&] {
          std::string const range = most == INT_MAX
                                        ? std::to_string(least) + " or more"
                                        : "in [" + std::to_string(least) + ", " + std::to_string(most) + "]";
          return "launch::environment: " + std::string(name) + ": a number " + range + " expected, got \"" + value +
                 "\"";
        });
    return n;
  }

 private:
  Lookup const& lookup_;
};

/// The variables of a launcher that numbers all processes.
struct launcher_names {
  char const* launcher;
  char const* sign;  ///< set by this launcher alone
  char const* rank;
  char const* ranks;
  char const* local_rank;
  char const* local_ranks;
};

/// In the order in which they are asked: a script's own variables come first; torchrun may run inside of a job of another
/// launcher. Slurm comes last, since it also sets its variables for a script that starts the processes by other means.
inline constexpr std::array<launcher_names, 6> launchers{{
    {"pushpull", "PUSHPULL_RANK", "PUSHPULL_RANK", "PUSHPULL_RANKS", "PUSHPULL_LOCAL_RANK", "PUSHPULL_LOCAL_RANKS"},
    {"torchrun", "TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"open_mpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"pmi", "PMI_RANK", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"torchrun", "WORLD_SIZE", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"slurm", "SLURM_PROCID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
}};

template <class Lookup>
launch::process numbered_process(launch_variables<Lookup> const& variables) {
  launch::process p;
  for (launcher_names const& names : launchers) {
    if (!variables.has(names.sign) || !variables.has(names.rank)) continue;
    auto const ranks = variables.number(names.ranks, 1, INT_MAX);
    expects<invalid_argument>(ranks.has_value(), [&] {
      return "launch::environment: " + std::string(names.ranks) + " expected, since " + names.rank +
             " is set; it is not set";
    });
    p.launcher = names.launcher;
    p.ranks = *ranks;
    p.rank = variables.number(names.rank, 0, *ranks - 1).value_or(0);
    p.local_ranks = variables.number(names.local_ranks, 1, INT_MAX).value_or(0);
    // Slurm's steps inherit the number of tasks per node from their job, which may have another.
    bool const is_hint = p.launcher == "slurm";
    int const most = is_hint || p.local_ranks == 0 ? *ranks : p.local_ranks;
    p.local_rank = variables.number(names.local_rank, 0, most - 1).value_or(-1);
    if (is_hint && p.local_ranks > 0 && p.local_rank >= p.local_ranks) {
      p.local_rank = -1;
      p.local_ranks = 0;
    }
    break;
  }
  expects<invalid_argument>(p.launcher == "pushpull" || !variables.has("PUSHPULL_RANKS"), [] {
    return std::string("launch::environment: PUSHPULL_RANK expected, since PUSHPULL_RANKS is set; it is not set");
  });
  // Others do not set them. Kubernetes sets MASTER_PORT for a service named master.
  if (p.launcher == "pushpull" || p.launcher == "torchrun" || p.launcher == "slurm") {
    p.address = variables.text("MASTER_ADDR");
    p.port = variables.number("MASTER_PORT", 1, 65535).value_or(0);
  }
  return p;
}

/// Whether MXNet's variables describe this process. Programs of one machine set DMLC_NUM_SERVER=0, and what is left over from
/// another job does not take a rank from a process that a launcher has numbered.
template <class Lookup>
bool has_servers(launch_variables<Lookup> const& variables, launch::process const& p) {
  if (variables.has("DMLC_ROLE")) return true;
  if (!p.launcher.empty() && !variables.has("DMLC_NUM_WORKER")) return false;
  return variables.number("DMLC_NUM_SERVER", 0, INT_MAX).value_or(0) > 0;
}

/// MXNet's variables name the role, which is that of a worker if they do not; the scheduler or another launcher may number the workers.
template <class Lookup>
void read_dmlc(launch_variables<Lookup> const& variables, launch::process& p) {
  std::string const role = variables.has("DMLC_ROLE") ? variables.text("DMLC_ROLE") : "worker";
  expects<invalid_argument>(role == "worker" || role == "server" || role == "scheduler", [&] {
    return "launch::environment: DMLC_ROLE: worker, server or scheduler expected, got \"" + role + "\"";
  });
  int const numbered = p.launcher.empty() ? 0 : p.ranks;
  p.launcher = "dmlc";
  auto const workers = variables.number("DMLC_NUM_WORKER", 1, INT_MAX);
  expects<invalid_argument>(workers.has_value(), [&] {
    return "launch::environment: DMLC_NUM_WORKER expected, since " +
           std::string(variables.has("DMLC_ROLE") ? "DMLC_ROLE" : "DMLC_NUM_SERVER") + " is set; it is not set";
  });
  p.ranks = *workers;
  p.servers = variables.number("DMLC_NUM_SERVER", 0, INT_MAX).value_or(0);
  p.address = variables.text("DMLC_PS_ROOT_URI");
  p.port = variables.number("DMLC_PS_ROOT_PORT", 1, 65535).value_or(0);
  p.host = variables.text("DMLC_NODE_HOST");
  if (role == "worker") {
    if (auto const id = variables.number("DMLC_WORKER_ID", 0, p.ranks - 1))
      p.rank = *id;
    else if (numbered != p.ranks)
      p.rank = -1;
  } else {
    p.role = role == "server" ? launch::process_role::server : launch::process_role::scheduler;
    p.rank = -1;
  }
  if (numbered == 0) {
    p.local_rank = -1;
    p.local_ranks = 0;
  }
}

}  // namespace detail

namespace launch {

/// Reads what a script (PUSHPULL_RANK, PUSHPULL_RANKS, PUSHPULL_LOCAL_RANK), Open MPI, MPICH and others that speak PMI,
/// torchrun, Slurm or MXNet's launchers have set. Without a launcher:
/// rank 0 of 1. `lookup(name)` returns the value of a variable, or null. Variables that are empty count as not set.
/// @throws invalid_argument naming the variable and its value
template <class Lookup>
process environment(Lookup const& lookup) {
  pushpull::detail::launch_variables<Lookup> const variables(lookup);
  process p = pushpull::detail::numbered_process(variables);
  if (p.launcher != "pushpull" && pushpull::detail::has_servers(variables, p))
    pushpull::detail::read_dmlc(variables, p);
  return p;
}

/// Reads the environment of this process.
inline process environment() {
  return environment([](char const* name) { return std::getenv(name); });
}

}  // namespace launch
}  // namespace pushpull
