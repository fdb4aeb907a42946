/// @file
/// Files that break the format, by design or by accident, are refused and harm nobody.
#include <pushpull/checkpoint/safetensors.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "checkpoint/container.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
using pp::test::container;
using pp::test::temporary_folder;
using pp::test::write_file;

/// What the reader says against a file; empty if it reads it.
std::string complaint(std::filesystem::path const& path) {
  try {
    cp::safetensors_file const file(path);
    return "";
  } catch (pp::file_error const& error) {
    REQUIRE(std::string(error.what()).starts_with(path.string() + ": "));
    return std::string(error.what()).substr(path.string().size() + 2);
  }
}

std::string complaint_about(std::string const& content) {
  temporary_folder const folder;
  return complaint(write_file(folder.file("x.safetensors"), content));
}

/// One tensor "w" of these fields, before `data` bytes.
std::string tensor(std::string const& dtype, std::string const& shape, std::string const& offsets, std::size_t data) {
  return container(R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
                   std::string(data, 'x'));
}

struct hostile {
  std::string content, complaint;
};

std::string with_length(std::uint64_t length, std::string bytes) {
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes;
}

std::vector<hostile> const files{
    // the length of the header
    {"", "at least 8 bytes expected, got 0"},
    {std::string(7, '\0'), "at least 8 bytes expected, got 7"},
    {std::string(8, '\0'), "begins with '{'"},
    {with_length(3, container("{}")), "a header of at most 2 bytes expected, got 3"},
    {with_length(1ULL << 40, container("{}")), "a header of at most 2 bytes expected, got 1099511627776"},
    {with_length(~0ULL, container("{}")), "got 18446744073709551615"},
    {with_length(~0ULL - 7, container("{}")), "got 18446744073709551608"},
    {with_length(1ULL << 63, container("{}")), "got 9223372036854775808"},
    {with_length(1, container("{}")), "'}' and spaces expected at the end of the header, got byte 123"},
    // JSON
    {container(" {}"), "begins with '{'"},
    {container("\xEF\xBB\xBF{}"), "begins with '{'"},
    {container("[]"), "begins with '{'"},
    {container("{} {}"), "JSON expected"},
    {container("{}\n"), "'}' and spaces expected at the end of the header, got byte 10"},
    {container("{}x"), "'}' and spaces expected at the end"},
    {container(std::string("{}\0}", 4)), "begins with '{'"},
    {container("{"), "'}' and spaces expected at the end"},
    {container("{]}"), "JSON expected"},
    {container("{/**/}"), "JSON expected"},
    {container(R"({"w":{},})"), "dtype, shape and data_offsets expected, got less"},
    {container(R"({"__metadata__":{},})"), "JSON expected"},
    {container("{\"\xFF\":{}}"), "JSON expected"},
    {container("{\"\xC0\xAF\":{}}"), "JSON expected"},
    {container("{\"\xED\xA0\x80\":{}}"), "JSON expected"},
    {container(R"({"\ud800":{}})"), "JSON expected"},
    {container("{\"a\nb\":{}}"), "JSON expected"},
    {container(R"({"__metadata__":{"a":")"
               "\xFF"
               R"("}})"),
     "JSON expected"},
    // kinds of values
    {container(R"({"w":null})"), "tensor \"w\": an object expected, got null"},
    {container(R"({"w":true})"), "an object expected, got a boolean"},
    {container(R"({"w":"x"})"), "an object expected, got the text \"x\""},
    {container(R"({"w":3})"), "an object expected, got the number 3"},
    {container(R"({"w":[]})"), "an object expected, got an array"},
    {container(R"({"w":{"dtype":{}}})"), "\"dtype\": text expected, got an object"},
    {container(R"({"w":{"dtype":3}})"), "\"dtype\": text expected, got the number 3"},
    {container(R"({"w":{"shape":3}})"), "\"shape\": an array expected, got the number 3"},
    {container(R"({"w":{"shape":"x"}})"), "\"shape\": an array expected, got the text \"x\""},
    {container(R"({"w":{"shape":null}})"), "\"shape\": an array expected, got null"},
    {container(R"({"w":{"shape":[[1]]}})"), "\"shape\": unsigned integers expected, got an array"},
    {container(R"({"w":{"shape":[{}]}})"), "\"shape\": unsigned integers expected, got an object"},
    {container(R"({"w":{"shape":["1"]}})"), "\"shape\": unsigned integers expected, got the text \"1\""},
    {container(R"({"w":{"data_offsets":[null]}})"), "\"data_offsets\": unsigned integers expected, got null"},
    // fields
    {container(R"({"w":{}})"), "dtype, shape and data_offsets expected, got less"},
    {container(R"({"w":{"dtype":"U8","shape":[0]}})"), "dtype, shape and data_offsets expected, got less"},
    {container(R"({"w":{"dtype":"U8","data_offsets":[0,0]}})"), "dtype, shape and data_offsets expected, got less"},
    {container(R"({"w":{"shape":[0],"data_offsets":[0,0]}})"), "dtype, shape and data_offsets expected, got less"},
    {container(R"({"w":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})"), "dtype expected once"},
    {container(R"({"w":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})"), "shape expected once"},
    {container(R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}})"), "expected, got \"x\""},
    // names
    {container(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],)"
               R"("data_offsets":[1,2]}})",
               "ab"),
     "different names expected, got two tensors \"w\""},
    {container(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0077":{"dtype":"U8","shape":[1],)"
               R"("data_offsets":[1,2]}})",
               "ab"),
     "different names expected, got two tensors \"w\""},
    // metadata
    {container(R"({"__metadata__":{},"__metadata__":{}})"), "\"__metadata__\": one such object expected, got two"},
    {container(R"({"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"), "text expected, got an array"},
    {container(R"({"__metadata__":[]})"), "\"__metadata__\": an object expected, got an array"},
    {container(R"({"__metadata__":null})"), "an object expected, got null"},
    {container(R"({"__metadata__":{"a":1}})"), "\"a\": text expected, got the number 1"},
    {container(R"({"__metadata__":{"a":null}})"), "\"a\": text expected, got null"},
    {container(R"({"__metadata__":{"a":true}})"), "\"a\": text expected, got a boolean"},
    {container(R"({"__metadata__":{"a":{}}})"), "\"a\": text expected, got an object"},
    {container(R"({"__metadata__":{"a":"x","a":"y"}})"), "\"a\" expected once, got twice"},
    // dtypes
    {tensor(R"("F33")", "[1]", "[0,4]", 4), "tensor \"w\": a dtype of the format expected, got \"F33\""},
    {tensor(R"("f32")", "[1]", "[0,4]", 4), "tensor \"w\": a dtype of the format expected, got \"f32\""},
    {tensor(R"("")", "[1]", "[0,4]", 4), "tensor \"w\": a dtype of the format expected, got \"\""},
    {tensor(R"("F4")", "[3]", "[0,1]", 1), "whole bytes expected, got (3) elements of 4 bits"},
    {tensor(R"("F6_E2M3")", "[5]", "[0,3]", 3), "whole bytes expected, got (5) elements of 6 bits"},
    // numbers
    {tensor(R"("U8")", "[-1]", "[0,1]", 1), "unsigned integers expected, got a negative number"},
    {tensor(R"("U8")", "[-0]", "[0,0]", 0), "unsigned integers expected, got a negative number"},
    {tensor(R"("U8")", "[1.0]", "[0,1]", 1), "unsigned integers expected, got the number \"1.0\""},
    {tensor(R"("U8")", "[1e0]", "[0,1]", 1), "unsigned integers expected, got the number \"1e0\""},
    {tensor(R"("U8")", "[1e999]", "[0,1]", 1), "JSON expected"},
    {tensor(R"("U8")", "[01]", "[0,1]", 1), "JSON expected"},
    {tensor(R"("U8")", "[+1]", "[0,1]", 1), "JSON expected"},
    {tensor(R"("U8")", "[NaN]", "[0,1]", 1), "JSON expected"},
    {tensor(R"("U8")", "[1]", "[0.0,1]", 1), "\"data_offsets\": unsigned integers expected, got the number \"0.0\""},
    {tensor(R"("U8")", "[1]", "[-1,0]", 1), "\"data_offsets\": unsigned integers expected, got a negative number"},
    {tensor(R"("U8")", "[18446744073709551616]", "[0,0]", 0), "got the number \"18446744073709551616\""},
    {tensor(R"("U8")", "[18446744073709551615]", "[0,0]", 0), "an extent below 2^63 expected"},
    {tensor(R"("U8")", "[9223372036854775808]", "[0,0]", 0), "an extent below 2^63 expected"},
    // shapes
    {tensor(R"("U8")", "[4294967296,4294967296]", "[0,0]", 0), "more than 2^63 - 1 elements"},
    {tensor(R"("U8")", "[4294967296,4294967297]", "[0,4294967296]", 0), "more than 2^63 - 1 elements"},
    {tensor(R"("F64")", "[2305843009213693952]", "[0,0]", 0), "less than 2^64 bits expected"},
    {tensor(R"("U8")", "[1,1,1,1,1,1,1,1,1]", "[0,1]", 1), "at most 8 extents expected"},
    // offsets
    {tensor(R"("U8")", "[1]", "[1,0]", 1), "data that begins before its end expected, got [1, 0]"},
    {tensor(R"("U8")", "[1]", "[]", 1), "two data_offsets expected, got 0"},
    {tensor(R"("U8")", "[1]", "[0]", 1), "two data_offsets expected, got 1"},
    {tensor(R"("U8")", "[1]", "[0,1,2]", 1), "two data_offsets expected, got more"},
    {tensor(R"("F32")", "[2]", "[0,4]", 4), "tensor \"w\": 8 bytes expected for (2) elements of F32, got 4"},
    {tensor(R"("F32")", "[]", "[0,8]", 8), "4 bytes expected for () elements of F32, got 8"},
    {tensor(R"("F32")", "[0]", "[0,4]", 4), "0 bytes expected for (0) elements of F32, got 4"},
    {tensor(R"("U8")", "[4]", "[0,4]", 3), "4 bytes of data expected, got 3"},
    {tensor(R"("U8")", "[4]", "[0,4]", 5), "4 bytes of data expected, got 5"},
    {tensor(R"("U8")", "[1152921504606846976]", "[0,1152921504606846976]", 5), "1152921504606846976 bytes of data"},
    {tensor(R"("U8")", "[1]", "[18446744073709551614,18446744073709551615]", 1), "data from byte 0 expected"},
    {tensor(R"("U8")", "[4]", "[1,5]", 5), "data from byte 0 expected, where the tensor before it ends, got 1"},
    {tensor(R"("U8")", "[0]", "[1,1]", 1), "data from byte 0 expected, where the tensor before it ends, got 1"},
    {container("{}", "x"), "0 bytes of data expected, got 1"},
    {container(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
               R"("data_offsets":[1,3]}})",
               "abc"),
     "tensor \"b\": data from byte 2 expected, where the tensor before it ends, got 1"},
    {container(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
               R"("data_offsets":[0,2]}})",
               "ab"),
     "data from byte 2 expected, where the tensor before it ends, got 0"},
    {container(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],)"
               R"("data_offsets":[1,1]}})",
               "ab"),
     "data from byte 2 expected, where the tensor before it ends, got 1"},
    {container(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],)"
               R"("data_offsets":[3,5]}})",
               "abcde"),
     "tensor \"b\": data from byte 2 expected, where the tensor before it ends, got 3"},
};

}  // namespace

TEST_CASE("a file that breaks a rule is refused, and the message says which", "[checkpoint]") {
  for (auto const& file : files) {
    INFO(file.content.substr(std::min<std::size_t>(file.content.size(), 8)));
    std::string const message = complaint_about(file.content);
    INFO(message);
    CHECK(message.find(file.complaint) != std::string::npos);
  }
}

TEST_CASE("what is no file, or none that can be read, is refused", "[checkpoint]") {
  temporary_folder const folder;
  CHECK(complaint(folder.file("missing")).starts_with("cannot open for reading: "));
  CHECK(complaint(folder.file("")).starts_with("a regular file expected"));
  REQUIRE(::mkfifo(folder.file("pipe").c_str(), 0600) == 0);
  CHECK(complaint(folder.file("pipe")).starts_with("a regular file expected"));
  CHECK(complaint("/dev/zero").starts_with("a regular file expected"));
  CHECK(complaint("").starts_with("cannot open for reading: "));
}

TEST_CASE("a tensor that the file has not is an error", "[checkpoint]") {
  temporary_folder const folder;
  cp::safetensors_file const file(write_file(folder.file("x"), tensor(R"("U8")", "[1]", "[0,1]", 1)));
  REQUIRE(!file.contains("v"));
  REQUIRE(!file.contains(""));
  REQUIRE(!file.contains("x"));
  REQUIRE_THROWS_AS(file.find("v"), pp::file_error);
  REQUIRE_THROWS_WITH(file.find("v"),
                      Catch::Matchers::Contains("a tensor \"v\" expected, got 1 tensors of other names"));
}

TEST_CASE("a header beyond 100,000,000 bytes is refused before it is read", "[checkpoint]") {
  temporary_folder const folder;
  auto const path = write_file(folder.file("x"), with_length(100'000'001, container("{}")));
  std::filesystem::resize_file(path, 200'000'000);  // a hole: takes no space
  REQUIRE(complaint(path) == "a header of at most 100000000 bytes expected, got 100000001");
}

TEST_CASE("depth costs neither stack nor memory", "[checkpoint]") {
  std::string const deep(10'000'000, '[');
  REQUIRE(complaint_about(container(R"({"w":)" + deep + "}")).find("got an array") != std::string::npos);
  REQUIRE(complaint_about(container(R"({"w":{"shape":)" + deep + "}}")).find("got an array") != std::string::npos);
  std::string objects = R"({"w":)";
  for (int i = 0; i < 100'000; ++i) objects += R"({"dtype":)";
  REQUIRE(complaint_about(container(objects + "}")).find("got an object") != std::string::npos);
}

TEST_CASE("messages are short and hold no control characters, whatever the file holds", "[checkpoint]") {
  std::string const name(1'000'000, 'n');
  std::string const message = complaint_about(container("{\"" + name + R"(\u001b[31m":null})"));
  REQUIRE(message.size() < 300);
  std::string const escape = complaint_about(container(R"({"\u001b[31m":null})"));
  REQUIRE(escape.starts_with("tensor \"?[31m\": an object expected"));
  REQUIRE(complaint_about(container("{\"" + name + "\x01\":null}")).size() < 300);
  std::string const umlauts =
      complaint_about(container("{\"1" + std::string(100, '\xC3').replace(1, 0, "\xBC") + "\":null}"));
  REQUIRE(umlauts.size() < 300);
}

TEST_CASE("random damage to a file leads to a refusal or to tensors that can be read", "[checkpoint]") {
  temporary_folder const folder;
  std::vector<float> const f(6, 0.25F);
  std::vector<std::uint8_t> const u(5, 9);
  std::vector<cp::entry> const entries{cp::entry_of("fc1.weight", pp::tensor_view(f.data(), pp::shape{2, 3})),
                                       cp::entry_of("fc1.bias", f), cp::entry_of("mask", u),
                                       cp::entry_of("empty", pp::tensor_view(f.data(), pp::shape{0, 4}))};
  cp::write_safetensors(folder.file("x"), entries, {{"step", "7"}, {"optimizer", "adam"}});
  std::string const valid = pp::test::read_file(folder.file("x"));
  std::string const alphabet = R"({}[]",:0123456789-.eE\u"tfn )" + std::string("\0\x80\xFF\n", 4);
  int accepted = 0, refused = 0;
  for (unsigned seed = 0; seed < 6000; ++seed) {
    std::mt19937 random(seed);
    auto const below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
    std::string bytes = valid;
    std::uint64_t length = valid.size();
    std::memcpy(&length, valid.data(), sizeof(length));
    std::size_t const json_end = sizeof(length) + static_cast<std::size_t>(length);
    for (std::size_t damage = 1 + below(3); damage > 0; --damage) {
      std::size_t const at = below(bytes.size());
      // Inside the JSON, so that most damage is met there and not by the length.
      std::size_t const inside = sizeof(length) + below(std::min(bytes.size() - 1, json_end) - sizeof(length));
      switch (below(6)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8))); break;
        case 1: bytes.resize(std::max<std::size_t>(at, 16)); break;
        case 2: bytes[inside] = alphabet[below(alphabet.size())]; break;
        case 3:
          bytes.insert(inside, 1, alphabet[below(alphabet.size())]);
          ++length;
          break;
        case 4:
          bytes.erase(inside, 1);
          --length;
          break;
        default:
          bytes.insert(inside, bytes.substr(inside, below(60)));
          length += bytes.size() - valid.size();
          break;
      }
    }
    if (seed % 2 == 0) std::memcpy(bytes.data(), &length, sizeof(length));
    INFO("seed " << seed);
    try {
      cp::safetensors_file const file(write_file(folder.file("damaged"), bytes));
      std::size_t total = 0;
      unsigned sum = 0;
      for (auto const& e : file.entries()) {
        total += e.bytes.size();
        for (std::byte const b : e.bytes) sum += std::to_integer<unsigned>(b);
      }
      REQUIRE(total < bytes.size());
      REQUIRE(sum <= 255 * total);
      ++accepted;
    } catch (pp::file_error const&) {
      ++refused;
    }
  }
  CHECK(accepted > 100);
  CHECK(refused > 2000);
}
