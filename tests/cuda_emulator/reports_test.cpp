/// @file
/// The emulator reports one mistake of each kind, and nothing about a program without mistakes.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "support/catch.hpp"

namespace {

struct outcome {
  int status = 0;
  std::string output;
};

/// The self-test's program with its argument, on three devices that are peers, unless the settings say otherwise.
outcome run(std::string const& program, std::string const& settings = "") {
  std::string const command =
      "PUSHPULL_EMULATOR_DEVICES=3 PUSHPULL_EMULATOR_STRICT=1 " + settings + " " + SELFTEST + " " + program + " 2>&1";
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error{"cannot start " + command};
  outcome result;
  std::array<char, 4096> part{};
  while (std::fgets(part.data(), part.size(), pipe) != nullptr) result.output += part.data();
  result.status = WEXITSTATUS(pclose(pipe));
  return result;
}

struct mistake {
  char const *program, *report;
};
constexpr mistake mistakes[] = {
    {"race", "race: written while thread"},
    {"race_of_blocks", "race: written while thread"},
    {"race_in_shared_memory", "shared memory: read without a barrier after thread"},
    {"race_of_readers", "race: "},
    {"race_of_readers_in_shared_memory", "shared memory: "},
    {"race_after_atomic", "without a barrier after thread"},
    {"race_of_streams", "unordered with what wrote it"},
    {"out_of_bounds", "is nobody's"},
    {"uninitialised_branch", "a branch or guard depends on uninitialised memory"},
    {"uninitialised_address", "an address depends on uninitialised memory"},
    {"uninitialised_copy", "has uninitialised byte 0"},
    {"uninitialised_argument", "a branch or guard depends on uninitialised memory"},
    {"uninitialised_result", "has uninitialised byte 0"},
    {"freed", "behind the start of freed cudaMalloc"},
    {"freed_twice", "cudaFree of what was not allocated"},
    {"misaligned", "misaligned address"},
    {"host_memory", "not memory of the device"},
    {"local_as_global", "an access to global memory with the generic address of local memory"},
    {"no_peer_access", "memory of device 0 accessed by device 1 without peer access"},
    {"stream_of_other_device", "launch on device 1 into a stream of device 0"},
    {"event_of_other_device", "an event of device 0 recorded in a stream of device 1"},
    {"ended_event", "an event that does not exist"},
    {"left_barrier", "a barrier that some threads of the block have left"},
    {"absent_lanes", "deadlock: an instruction of warps whose mask names lanes that do not come"},
    {"too_many_threads", "launch of 1 blocks of 2048 threads"},
    {"too_much_shared_memory", "launch with 49156 bytes of dynamic shared memory, of which 49152 are allowed"},
    {"capture_and_synchronize", "not allowed while a stream is captured: cudaStreamSynchronize of a captured stream"},
    {"capture_and_query", "not allowed while a stream is captured: cudaStreamQuery"},
    {"capture_and_allocate", "not allowed while a stream is captured: cudaMalloc"},
    {"capture_pageable_copy", "whose memory is pageable"},
    {"capture_unjoined", "with a stream that the first one has not waited for"},
    {"capture_fork_alone", "with a stream that the first one has not waited for"},
    {"capture_waits_outside", "a wait for an event that was recorded outside of the capture"},
    {"capture_event_query", "cudaEventQuery of an event that was recorded in a capture"},
    {"capture_and_legacy_stream", "the legacy stream, which would wait for a captured one"},
    {"race_in_graph", "unordered with what wrote it"},
    {"race_with_graph", "unordered with what wrote it"},
    {"copy_out_of_bounds", "copy from memory of 1200 bytes: byte 1024 is nobody's"},
};

}  // namespace

TEST_CASE("kernels compute what is known, in any order of threads, and nothing is reported") {
  for (int seed = 0; seed < 20; ++seed) {
    std::string const settings = "PUSHPULL_EMULATOR_SEED=" + std::to_string(seed);
    outcome const right = run("", settings);
    INFO(settings << "\n" << right.output);
    REQUIRE(right.status == 0);
    REQUIRE(right.output.find("0 wrong results") != std::string::npos);
    REQUIRE(right.output.find(settings + ", 3 devices, peers") != std::string::npos);
    REQUIRE(right.output.find("reports of") == std::string::npos);
    for (char const* const program : {"ordered_streams", "peer_access"}) {
      outcome const ordered = run(program, settings);
      INFO(ordered.output);
      REQUIRE(ordered.status == 0);
      REQUIRE(ordered.output.find("cudaSuccess") != std::string::npos);
    }
  }
}

TEST_CASE("every kind of mistake is reported, whatever the order, and ends a strict program with 97") {
  for (int seed = 0; seed < 4; ++seed) {
    for (auto const& [program, report] : mistakes) {
      outcome const wrong = run(program, "PUSHPULL_EMULATOR_SEED=" + std::to_string(seed));
      INFO("seed " << seed << ", " << program << ":\n" << wrong.output);
      CHECK(wrong.status == 97);
      CHECK(wrong.output.find(report) != std::string::npos);
    }
  }
}

TEST_CASE("a copy of pinned memory takes place when its turn comes, at once or later") {
  for (char const* const program : {"pinned_source", "pinned_target"}) {
    bool at_once = false, later = false;
    for (int seed = 1; seed <= 40; ++seed) {
      outcome const right = run(program, "PUSHPULL_EMULATOR_SEED=" + std::to_string(seed));
      INFO(program << ", seed " << seed << "\n" << right.output);
      REQUIRE(right.status == 0);
      bool const first =
          right.output.find(program == std::string("pinned_source") ? "copied 7" : "copied 1") != std::string::npos;
      REQUIRE((first || right.output.find(program == std::string("pinned_source") ? "copied 8" : "copied 7") !=
                            std::string::npos));
      (first ? at_once : later) = true;
    }
    CHECK(at_once);
    CHECK(later);
  }
}

TEST_CASE("a launch that does not end is ended") {
  outcome const endless = run("endless", "PUSHPULL_EMULATOR_STEPS=1000000");
  INFO(endless.output);
  REQUIRE(endless.status == 97);
  REQUIRE(endless.output.find("a launch that does not end") != std::string::npos);
}

TEST_CASE("devices that are no peers refuse access to each other") {
  outcome const refused = run("peer_access", "PUSHPULL_EMULATOR_PEERS=0");
  INFO(refused.output);
  REQUIRE(refused.status == 97);
  REQUIRE(refused.output.find("3 devices, no peers") != std::string::npos);
  REQUIRE(refused.output.find("without peer access") != std::string::npos);
}

TEST_CASE("a program that is not strict goes on, and a failed kernel is an error of the runtime") {
  outcome const lenient = run("misaligned", "PUSHPULL_EMULATOR_STRICT=0");
  INFO(lenient.output);
  REQUIRE(lenient.status == 0);
  REQUIRE(lenient.output.find("cudaErrorIllegalAddress") != std::string::npos);
}

TEST_CASE("the summary counts launches, kernels and instructions") {
  outcome const counted = run("race", "PUSHPULL_EMULATOR_SUMMARY=1");
  INFO(counted.output);
  REQUIRE(counted.output.find("1 launches of 1 kernels, ") != std::string::npos);
}
