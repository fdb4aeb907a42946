#include <pushpull/launch/environment.hpp>

#include <map>
#include <string>

#include "support/catch.hpp"

namespace {

namespace launch = pushpull::launch;
using variables = std::map<std::string, std::string>;

launch::process read(variables const& set) {
  return launch::environment([&](char const* name) {
    auto const place = set.find(name);
    return place == set.end() ? nullptr : place->second.c_str();
  });
}

std::string error_of(variables const& set) {
  try {
    read(set);
  } catch (pushpull::invalid_argument const& e) {
    return e.what();
  }
  return "no error";
}

variables with(variables set, std::string const& name, std::string const& value) {
  set[name] = value;
  return set;
}

variables const open_mpi{{"OMPI_COMM_WORLD_RANK", "3"},
                         {"OMPI_COMM_WORLD_SIZE", "4"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
variables const slurm{{"SLURM_PROCID", "5"}, {"SLURM_NTASKS", "6"}, {"SLURM_LOCALID", "2"}};
variables const torchrun{{"RANK", "1"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "node0"},
                         {"MASTER_PORT", "29500"}};
variables const worker{{"DMLC_ROLE", "worker"},          {"DMLC_NUM_WORKER", "4"},      {"DMLC_NUM_SERVER", "2"},
                       {"DMLC_PS_ROOT_URI", "10.0.0.1"}, {"DMLC_PS_ROOT_PORT", "9000"}, {"DMLC_WORKER_ID", "2"}};

}  // namespace

TEST_CASE("a process without a launcher is rank 0 of 1", "[launch]") {
  for (auto const& set : {variables{}, variables{{"OMPI_COMM_WORLD_RANK", ""}, {"RANK", "3"}, {"PMI_SIZE", "4"}}}) {
    auto const p = read(set);
    REQUIRE(p.launcher.empty());
    REQUIRE((p.rank == 0 && p.ranks == 1 && p.local_rank == 0 && p.local_ranks == 1));
    REQUIRE((p.address.empty() && p.port == 0 && p.servers == 0 && p.role == launch::process_role::worker));
  }
}

TEST_CASE("launchers number their processes", "[launch]") {
  auto p = read(open_mpi);
  REQUIRE(p.launcher == "open_mpi");
  REQUIRE((p.rank == 3 && p.ranks == 4 && p.local_rank == 1 && p.local_ranks == 2));

  p = read({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "1"}});
  REQUIRE(p.launcher == "pmi");
  REQUIRE((p.rank == 2 && p.ranks == 3 && p.local_rank == 0 && p.local_ranks == 1));

  p = read(slurm);
  REQUIRE(p.launcher == "slurm");
  REQUIRE((p.rank == 5 && p.ranks == 6 && p.local_rank == 2 && p.local_ranks == 0));

  p = read(torchrun);
  REQUIRE(p.launcher == "torchrun");
  REQUIRE((p.rank == 1 && p.ranks == 8 && p.local_rank == 1 && p.local_ranks == 4));
  REQUIRE((p.address == "node0" && p.port == 29500));

  auto script = torchrun;
  script.insert({{"PUSHPULL_RANK", "2"}, {"PUSHPULL_RANKS", "3"}, {"TORCHELASTIC_RUN_ID", "none"}});
  p = read(script);
  REQUIRE(p.launcher == "pushpull");
  REQUIRE((p.rank == 2 && p.ranks == 3 && p.local_rank == -1 && p.local_ranks == 0));
  script["DMLC_ROLE"] = "worker";  // left over by another launcher
  p = read(script);
  REQUIRE((p.launcher == "pushpull" && p.rank == 2 && p.ranks == 3));
}

TEST_CASE("a launcher inside of the job of another one counts", "[launch]") {
  auto both = open_mpi;
  both.insert(slurm.begin(), slurm.end());
  REQUIRE(read(both).launcher == "open_mpi");
  auto torch = torchrun;
  torch.insert(slurm.begin(), slurm.end());
  REQUIRE(read(torch).launcher == "torchrun");
  torch.insert(open_mpi.begin(), open_mpi.end());
  REQUIRE(read(torch).launcher == "open_mpi");  // RANK and WORLD_SIZE may describe what runs mpirun
  torch["TORCHELASTIC_RUN_ID"] = "none";
  REQUIRE(read(torch).launcher == "torchrun");
}

TEST_CASE("MXNet's variables give a role, the servers and where the scheduler is", "[launch]") {
  auto p = read(worker);
  REQUIRE(p.launcher == "dmlc");
  REQUIRE((p.role == launch::process_role::worker && p.rank == 2 && p.ranks == 4 && p.servers == 2));
  REQUIRE((p.address == "10.0.0.1" && p.port == 9000));
  REQUIRE((p.local_rank == -1 && p.local_ranks == 0));

  p = read(with(worker, "DMLC_ROLE", "server"));
  REQUIRE((p.role == launch::process_role::server && p.rank == -1 && p.ranks == 4));
  p = read(with(worker, "DMLC_ROLE", "scheduler"));
  REQUIRE((p.role == launch::process_role::scheduler && p.rank == -1));

  auto unnumbered = with(worker, "DMLC_WORKER_ID", "");
  REQUIRE(read(unnumbered).rank == -1);
  REQUIRE(read(with(unnumbered, "DMLC_NUM_WORKER", "1")).rank == -1);  // more may come late
  unnumbered.insert(open_mpi.begin(), open_mpi.end());                 // four ranks of mpirun are the four workers
  p = read(unnumbered);
  REQUIRE((p.rank == 3 && p.local_rank == 1 && p.local_ranks == 2));
  REQUIRE(read(with(unnumbered, "DMLC_NUM_WORKER", "3")).rank == -1);
}

TEST_CASE("MXNet's workers need no role, and say where they are", "[launch]") {
  auto const p = read(with(with(worker, "DMLC_ROLE", ""), "DMLC_NODE_HOST", "10.0.0.7"));
  REQUIRE((p.launcher == "dmlc" && p.role == launch::process_role::worker && p.servers == 2 && p.ranks == 4));
  REQUIRE(p.host == "10.0.0.7");
  REQUIRE(error_of(with(worker, "DMLC_NUM_WORKER", "")) ==
          "launch::environment: DMLC_NUM_WORKER expected, since DMLC_ROLE is set; it is not set");
  REQUIRE(error_of({{"DMLC_NUM_SERVER", "2"}}) ==
          "launch::environment: DMLC_NUM_WORKER expected, since DMLC_NUM_SERVER is set; it is not set");
  for (auto launched : {variables{}, torchrun}) {  // of another job, or of one without servers
    auto const before = read(launched);
    launched["DMLC_NUM_SERVER"] = "0";
    launched["DMLC_NUM_WORKER"] = "7";
    auto const alone = read(launched);
    REQUIRE((alone.launcher == before.launcher && alone.rank == before.rank && alone.ranks == before.ranks));
  }
  auto const left_over = read(with(torchrun, "DMLC_NUM_SERVER", "2"));
  REQUIRE((left_over.launcher == "torchrun" && left_over.ranks == read(torchrun).ranks));
}

TEST_CASE("variables that no launcher of this process has set are passed over, unless ranks would train alone",
          "[launch]") {
  auto const p = read({{"MASTER_PORT", "tcp://10.0.171.239:6379"}, {"MASTER_ADDR", "x"}});  // as Kubernetes sets it
  REQUIRE((p.launcher.empty() && p.address.empty() && p.port == 0));
  auto const step = read(with(with(slurm, "SLURM_LOCALID", "5"), "SLURM_NTASKS_PER_NODE", "4"));
  REQUIRE((step.rank == 5 && step.local_rank == -1 && step.local_ranks == 0));
  REQUIRE(read(with(slurm, "SLURM_NTASKS_PER_NODE", "4")).local_ranks == 4);
  REQUIRE(error_of({{"PUSHPULL_RANKS", "4"}}) ==
          "launch::environment: PUSHPULL_RANK expected, since PUSHPULL_RANKS is set; it is not set");
}

TEST_CASE("a value that is no number, or out of range, is refused by the name of its variable", "[launch]") {
  for (std::string const value : {"x", "1x", " 1", "-1", "4", "99999999999"})
    REQUIRE(error_of(with(open_mpi, "OMPI_COMM_WORLD_RANK", value)) ==
            "launch::environment: OMPI_COMM_WORLD_RANK: a number in [0, 3] expected, got \"" + value + "\"");
  REQUIRE(error_of(with(open_mpi, "OMPI_COMM_WORLD_SIZE", "0")) ==
          "launch::environment: OMPI_COMM_WORLD_SIZE: a number 1 or more expected, got \"0\"");
  REQUIRE(error_of(with(open_mpi, "OMPI_COMM_WORLD_SIZE", "")) ==
          "launch::environment: OMPI_COMM_WORLD_SIZE expected, since OMPI_COMM_WORLD_RANK is set; it is not set");
  REQUIRE(error_of(with(open_mpi, "OMPI_COMM_WORLD_LOCAL_RANK", "2")) ==
          "launch::environment: OMPI_COMM_WORLD_LOCAL_RANK: a number in [0, 1] expected, got \"2\"");
  REQUIRE(error_of(with(torchrun, "MASTER_PORT", "65536")) ==
          "launch::environment: MASTER_PORT: a number in [1, 65535] expected, got \"65536\"");
  REQUIRE(error_of(with(worker, "DMLC_ROLE", "master")) ==
          "launch::environment: DMLC_ROLE: worker, server or scheduler expected, got \"master\"");
  REQUIRE(error_of(with(worker, "DMLC_WORKER_ID", "4")) ==
          "launch::environment: DMLC_WORKER_ID: a number in [0, 3] expected, got \"4\"");
  REQUIRE(error_of(with(worker, "DMLC_NUM_SERVER", "two")) ==
          "launch::environment: DMLC_NUM_SERVER: a number 0 or more expected, got \"two\"");
}

TEST_CASE("the environment of this process is read", "[launch]") {
  auto const p = launch::environment();
  REQUIRE((p.rank >= -1 && p.rank < p.ranks));
}
