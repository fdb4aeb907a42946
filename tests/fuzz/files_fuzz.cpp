/// @file
/// Mutated files: the reader and load_optimizer_states read them or refuse them by a file_error, and a store that refused one
/// holds what it held.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/pushpull.hpp>

#include "fuzz/input.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
using pp::test::fuzz_check;
using pp::test::fuzz_input;
using vector = std::vector<float>;

auto const rule = pp::update::dynamic_loss_scale{} | pp::update::momentum{};

/// A store amid a step of micro-batches, whose states a file then holds.
class subject {
 public:
  subject() {
    store_.init(std::vector<std::string>{"a", "b/c", "empty"},
                std::vector<vector>{vector(5, 1.0F), vector(2, 2.0F), {}});
    for (int i = 0; i < 3; ++i) store_.push("a", vector(5, 0.5F)).wait();
    cp::save_optimizer_states(store_, path_);
    good_ = pp::test::read_file(path_);
    held_ = held();
  }

  std::string const& good() const { return good_; }

  /// Reads the file, first without a store.
  void read(std::string const& content, cp::load_options const& options) {
    pp::test::write_file(path_, content);
    bool readable = true;
    try {
      cp::safetensors_file const file(path_);
      std::size_t bytes = 0;
      for (auto const& e : file.entries()) {
        for (std::byte const& b : e.bytes) {
          [[maybe_unused]] std::byte const read = static_cast<std::byte const volatile&>(b);  // all of it is there
          ++bytes;
        }
        fuzz_check(&file.find(e.name) == &e, "an entry is found by its name");
      }
      fuzz_check(bytes <= content.size(), "entries lie in the file");
    } catch (pp::file_error const&) {
      readable = false;
    }
    try {
      cp::load_optimizer_states(store_, path_, options);
      fuzz_check(readable, "what the reader refuses is not loaded");
    } catch (pp::file_error const&) {
      fuzz_check(held() == held_, "a store that refuses a file holds what it held");
      return;
    }
    if (held() == held_) return;
    store_.push("a", vector(5, 0.5F)).wait();
    pp::test::write_file(path_, good_);
    cp::load_optimizer_states(store_, path_);
    fuzz_check(held() == held_, "a store takes the good file after any other");
  }

 private:
  using bits = std::vector<std::uint32_t>;  // NaN is equal to itself

  std::vector<bits> held() {
    std::vector<bits> result;
    for (char const* const key : {"a", "b/c", "empty"}) {
      auto const state = store_.state(key, "momentum_buffer");
      result.emplace_back(state.size());
      if (!state.empty()) std::memcpy(result.back().data(), state.data(), state.size() * sizeof(float));
      result.push_back(
          {static_cast<std::uint32_t>(store_.steps(key)), static_cast<std::uint32_t>(store_.micro_batches(key))});
    }
    for (double const number : store_.carried_numbers()) {
      result.emplace_back(2);
      std::memcpy(result.back().data(), &number, sizeof(number));
    }
    return result;
  }

  pp::test::temporary_folder folder_;
  std::filesystem::path path_ = folder_.file("states.safetensors");
  decltype(pp::kv_store{pp::cpu_devices(1), rule, pp::accumulate{2}, pp::synchronous{}}) store_{
      pp::cpu_devices(1), rule, pp::accumulate{2}, pp::synchronous{}};
  std::string good_;
  std::vector<bits> held_;
};

/// What the header is made of, and what it must not be made of.
constexpr std::string_view fragments[] = {"{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ":",
                                          "\"",
                                          "\\u0000",
                                          "\"a\"",
                                          "\"__metadata__\"",
                                          "\"dtype\"",
                                          "\"shape\"",
                                          "\"data_offsets\"",
                                          "\"F32\"",
                                          "\"F64\"",
                                          "\"I64\"",
                                          "\"BOOL\"",
                                          "0",
                                          "-1",
                                          "1e3",
                                          "4",
                                          "18446744073709551615",
                                          "9223372036854775807",
                                          "[0,0]",
                                          "[5]",
                                          "null",
                                          "true",
                                          " ",
                                          "\xFF",
                                          "{}",
                                          "\"a/steps\"",
                                          "\"carried\"",
                                          "momentum_buffer",
                                          "\"7\"",
                                          "nan",
                                          "\"rule\"",
                                          "gradient.sum",
                                          "9007199254740993"};

void mutate(std::string& content, fuzz_input& input) {
  std::size_t const at = content.empty() ? 0 : input.below(std::min<std::size_t>(content.size(), 65536));
  std::size_t const length = std::min(content.size() - at, 1 + input.below(16));
  switch (input.below(8)) {
    case 0:
      if (!content.empty()) content[at] = static_cast<char>(input.byte());
      break;
    case 1:
      if (!content.empty()) content[at] = static_cast<char>(content[at] ^ (1 << input.below(8)));
      break;
    case 2: content.erase(at, length); break;
    case 3: content.insert(at, fragments[input.below(std::size(fragments))]); break;
    case 4: content.replace(at, length, fragments[input.below(std::size(fragments))]); break;
    case 5:
      content.insert(at, content.substr(input.below(std::min<std::size_t>(content.size() + 1, 65536)), 64));
      break;
    case 6: content.resize(at); break;
    case 7: content += std::string(1 + input.below(9), static_cast<char>(input.byte())); break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static subject s;
  fuzz_input input({data, size});
  std::string content = s.good();
  auto const chosen = input.byte();
  if (size > 1 && (chosen & 1) != 0 && input.once_in(8)) {  // no file at all, but bytes
    content.assign(reinterpret_cast<char const*>(data) + 1, size - 1);
  } else {
    std::string header = content.substr(sizeof(std::uint64_t));
    std::uint64_t length = 0;
    std::memcpy(&length, content.data(), sizeof(length));
    std::string const rest = header.substr(length);
    header.resize(length);
    bool const whole = (chosen & 2) != 0;  // or the header alone, whose length then holds
    for (std::size_t n = 1 + input.below(8); n > 0; --n) mutate(whole ? content : header, input);
    if (!whole) {
      length = header.size();
      std::memcpy(content.data(), &length, sizeof(length));
      content.resize(sizeof(length));
      content += header + rest;
    }
  }
  s.read(content, {.new_keys = (chosen & 4) != 0,
                   .gone_keys = (chosen & 8) != 0,
                   .other_stages = (chosen & 16) != 0,
                   .other_rule = (chosen & 32) != 0,
                   .micro_batches = (chosen & 64) != 0});
  return 0;
}
