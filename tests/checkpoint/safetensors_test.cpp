/// @file
/// What is written comes back, in the bytes that the format prescribes.
#include <pushpull/checkpoint/safetensors.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/container.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
using pp::test::container;
using pp::test::read_file;
using pp::test::temporary_folder;
using pp::test::write_file;

/// `n` elements with the bits of 1, 2, 3...
template <class T>
std::vector<T> counted(std::size_t n) {
  std::vector<T> elements(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t const bits = i + 1;
    std::memcpy(static_cast<void*>(&elements[i]), &bits, sizeof(T));
  }
  return elements;
}

std::string text_of(std::span<std::byte const> bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

void require_same(cp::entry const& a, cp::entry const& b) {
  CHECK(a.name == b.name);
  CHECK(a.dtype == b.dtype);
  CHECK(a.shape == b.shape);
  CHECK(text_of(a.bytes) == text_of(b.bytes));
}

}  // namespace

TEMPLATE_TEST_CASE("tensors of every element type come back, empty ones and scalars too", "[checkpoint]", float, double,
                   pp::half, pp::bfloat16, std::int32_t, std::int64_t, std::uint8_t) {
  temporary_folder const folder;
  std::vector<TestType> const elements = counted<TestType>(24);
  auto const view = [&](pp::shape const& shape) { return pp::tensor_view(elements.data(), shape); };
  std::vector<cp::entry> const entries{
      cp::entry_of("cube", view({2, 3, 4})),
      cp::entry_of("empty", view({3, 0})),
      cp::entry_of("list", elements),
      cp::entry_of("eight", view({1, 2, 1, 3, 1, 2, 1, 2})),
      cp::entry_of("scalar", view(pp::shape{})),
      cp::entry_of("", view({1})),
  };
  cp::write_safetensors(folder.file("x"), entries, {{"step", "12"}});

  cp::safetensors_file const file(folder.file("x"));
  REQUIRE(file.path() == folder.file("x"));
  REQUIRE(file.metadata() == cp::metadata_map{{"step", "12"}});
  REQUIRE(file.names() == std::vector<std::string>{"", "cube", "eight", "empty", "list", "scalar"});
  for (auto const& e : entries) {
    REQUIRE(file.contains(e.name));
    require_same(file.find(e.name), e);
    CHECK(reinterpret_cast<std::uintptr_t>(file.find(e.name).bytes.data()) % alignof(TestType) == 0);
  }
}

TEST_CASE("the payload of a NaN, infinities and the sign of zero come back", "[checkpoint]") {
  temporary_folder const folder;
  std::array const bits{0x7FC00001U, 0xFFC12345U, 0x7F800001U, 0x7F800000U, 0xFF800000U, 0x80000000U, 1U};
  std::array<float, 7> values{};
  std::memcpy(values.data(), bits.data(), sizeof(values));
  cp::write_safetensors(folder.file("x"), std::array{cp::entry_of("values", values)});
  cp::safetensors_file const file(folder.file("x"));
  REQUIRE(std::memcmp(file.find("values").bytes.data(), bits.data(), sizeof(bits)) == 0);
}

TEST_CASE("a file without tensors holds metadata, or nothing", "[checkpoint]") {
  temporary_folder const folder;
  cp::write_safetensors(folder.file("nothing"), {});
  REQUIRE(read_file(folder.file("nothing")) == container("{}" + std::string(54, ' ')));
  REQUIRE(cp::safetensors_file(folder.file("nothing")).entries().empty());
  REQUIRE(cp::safetensors_file(folder.file("nothing")).metadata().empty());

  cp::metadata_map const metadata{{"", ""}, {"quote \" and \\ and \n", "größe \u20ac"}};
  cp::write_safetensors(folder.file("metadata"), {}, metadata);
  REQUIRE(cp::safetensors_file(folder.file("metadata")).metadata() == metadata);
}

TEST_CASE("a written file has the bytes that the format prescribes", "[checkpoint]") {
  temporary_folder const folder;
  std::array<float, 2> const f{1, -2};
  std::array<std::uint8_t, 3> const bytes{7, 8, 9};
  std::array<std::int64_t, 1> const i{-1};
  // Not in the order of the file, which has the widest elements first.
  cp::write_safetensors(
      folder.file("x"),
      std::array{cp::entry_of("u", bytes), cp::entry_of("f2", f),
                 cp::entry_of("f1", pp::tensor_view(f.data(), pp::shape{1, 1})), cp::entry_of("i", i)},
      {{"format_version", "1"}});
  std::string const json = R"({"__metadata__":{"format_version":"1"},)"
                           R"("i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                           R"("f1":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]},)"
                           R"("f2":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},)"
                           R"("u":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}})";
  REQUIRE(json.size() == 259);
  std::string const data("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\x80\x3F\0\0\x80\x3F\0\0\0\xC0\7\10\11", 23);
  REQUIRE(read_file(folder.file("x")) == container(json + std::string(312 - 259, ' '), data));
}

TEST_CASE("what other writers may do is read", "[checkpoint]") {
  temporary_folder const folder;
  auto const read = [&](std::string const& json, std::string const& data) {
    return cp::safetensors_file(write_file(folder.file("x"), container(json, data)));
  };
  SECTION("white space between tokens, fields in any order, tensors in any order") {
    auto const file = read(
        "{\t\"b\" : {\n\"shape\":[1, 2], \"data_offsets\":[4,6],\r \"dtype\":\"F8_E4M3\"},"
        R"("a":{"data_offsets":[0,4],"dtype":"F32","shape":[]}})",
        "abcdef");
    require_same(file.find("b"), {"b", "F8_E4M3", {1, 2}, std::as_bytes(std::span("ef", 2))});
    require_same(file.find("a"), {"a", "F32", {}, std::as_bytes(std::span("abcd", 4))});
  }
  SECTION("escapes in names") {
    REQUIRE(read(R"({"\u0061\/\"\u20ac\ud83d\ude00":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})", "")
                .contains("a/\"\u20ac\U0001F600"));
  }
  SECTION("empty tensors where others meet") {
    auto const file = read(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                           R"("b":{"dtype":"F64","shape":[0,9],"data_offsets":[2,2]},)"
                           R"("c":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                           "abc");
    REQUIRE(file.find("b").bytes.empty());
    REQUIRE(text_of(file.find("c").bytes) == "c");
  }
  SECTION("elements narrower than a byte") {
    auto const file = read(R"({"a":{"dtype":"F4","shape":[3,2],"data_offsets":[0,3]},)"
                           R"("b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[3,6]}})",
                           "abcdef");
    REQUIRE(text_of(file.find("b").bytes) == "def");
  }
  SECTION("no metadata and empty metadata") {
    REQUIRE(read("{}", "").metadata().empty());
    REQUIRE(read(R"({"__metadata__":{}}    )", "").metadata().empty());
  }
}

TEST_CASE("every dtype of the format has its size", "[checkpoint]") {
  std::pair<std::size_t, std::vector<std::string>> const sizes[] = {
      {4, {"F4"}},
      {6, {"F6_E2M3", "F6_E3M2"}},
      {8, {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}},
      {16, {"I16", "U16", "F16", "BF16"}},
      {32, {"I32", "U32", "F32"}},
      {64, {"F64", "I64", "U64", "C64"}}};
  for (auto const& [bits, names] : sizes)
    for (auto const& name : names) CHECK(cp::dtype_bits(name) == bits);
  CHECK(!cp::dtype_bits("f32"));
  CHECK(!cp::dtype_bits(""));
}

TEST_CASE("a file keeps its tensors when it moves", "[checkpoint]") {
  temporary_folder const folder;
  std::vector<float> const elements(100, 3.5F);
  cp::write_safetensors(folder.file("x"), std::array{cp::entry_of("x", elements)});
  cp::safetensors_file first(folder.file("x"));
  cp::entry const before = first.find("x");
  cp::safetensors_file const second(std::move(first));
  require_same(second.find("x"), before);
  REQUIRE(second.find("x").bytes.data() == before.bytes.data());
  static_assert(!std::is_copy_constructible_v<cp::safetensors_file>);
}

TEST_CASE("what was read can be written again", "[checkpoint]") {
  temporary_folder const folder;
  std::vector<double> const elements = counted<double>(10);
  cp::write_safetensors(folder.file("x"), std::array{cp::entry_of("a", elements), cp::entry_of("b", elements)});
  cp::safetensors_file const file(folder.file("x"));
  cp::write_safetensors(folder.file("x"), file.entries(), file.metadata());
  cp::write_safetensors(folder.file("y"), file.entries(), file.metadata());
  REQUIRE(read_file(folder.file("x")) == read_file(folder.file("y")));
}

TEST_CASE("readers see one whole file or another, whoever writes meanwhile", "[checkpoint]") {
  temporary_folder const folder;
  auto const write = [&](std::size_t n) {
    std::vector<std::uint64_t> const bits(n, n);
    cp::entry const e{"x", "U64", {static_cast<std::int64_t>(n)}, std::as_bytes(std::span(bits))};
    cp::write_safetensors(folder.file("x"), std::array{e});
  };
  write(1);
  std::jthread const small([&] {
    for (int i = 0; i < 20; ++i) write(5);
  });
  std::jthread const large([&] {
    for (int i = 0; i < 20; ++i) write(30'000);
  });
  for (int i = 0; i < 100; ++i) {
    cp::safetensors_file const file(folder.file("x"));
    auto const& e = file.find("x");
    std::vector<std::uint64_t> bits(e.shape.size());
    std::memcpy(bits.data(), e.bytes.data(), e.bytes.size());
    REQUIRE(std::count(bits.begin(), bits.end(), bits.size()) == e.shape[0]);
  }
}

TEST_CASE("elements of an entry are copied to a tensor of its element type and shape, and to no other",
          "[checkpoint]") {
  pp::test::temporary_folder const folder;
  auto const path = folder.file("x");
  std::vector<float> const weight{1, 2, 3, 4, 5, 6}, empty;
  cp::write_safetensors(path, std::vector{cp::entry_of("w", pp::tensor_view(weight.data(), pp::shape{2, 3})),
                                          cp::entry_of("empty", empty)});
  cp::safetensors_file const file(path);
  std::vector<float> to(6), none;
  copy(file.find("w"), pp::tensor_view(to.data(), pp::shape{2, 3}));
  REQUIRE(to == weight);
  copy(file.find("empty"), none);
  REQUIRE_THROWS_AS(copy(file.find("w"), to), pp::file_error);
  std::vector<std::int32_t> integers(6, 7);
  REQUIRE_THROWS_WITH(copy(file.find("w"), pp::tensor_view(integers.data(), pp::shape{2, 3})),
                      Catch::Contains("I32 of shape (2, 3) expected, the file has \"F32\""));
  REQUIRE(integers.front() == 7);
}

namespace {

/// An entry with the elements of `values`, at an address that suits no wide element.
template <class T, std::size_t N>
struct misplaced_entry {
  std::array<std::byte, N * sizeof(T) + 1> bytes{};
  cp::entry entry;

  explicit misplaced_entry(std::array<double, N> const& values)
      : entry{"x", std::string(cp::safetensors_dtype<T>::name), {static_cast<std::int64_t>(N)}, {}} {
    for (std::size_t i = 0; i < N; ++i) {
      T const element = pp::convert<T>(values[i]);
      std::memcpy(&bytes[i * sizeof(T) + 1], static_cast<void const*>(&element), sizeof(T));
    }
    entry.bytes = std::span(bytes).subspan(1);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("narrower elements of a file are read into a float tensor, exactly", "[checkpoint]", pp::bfloat16,
                   pp::half, pp::float8_e4m3, pp::float8_e5m2, std::uint8_t) {
  std::array<double, 4> const values{0, 1.5 * !std::integral<TestType>, 3, 96};
  misplaced_entry<TestType, 4> const file(values);
  std::array<float, 4> to{};
  std::array<double, 4> fine{};
  copy(file.entry, to);
  copy(file.entry, fine);
  REQUIRE(std::equal(values.begin(), values.end(), to.begin()));
  REQUIRE(fine == values);
}

TEST_CASE("wider elements of a file are refused, unless rounding was asked for", "[checkpoint]") {
  misplaced_entry<double, 2> const file({1.0 / 3, 7});
  std::array<float, 2> to{-1, -1};
  REQUIRE_THROWS_WITH(copy(file.entry, to), Catch::Contains("F32 of shape (2) expected, the file has \"F64\"") &&
                                                Catch::Contains("conversion::rounded"));
  REQUIRE(to == std::array<float, 2>{-1, -1});
  copy(file.entry, to, cp::conversion::rounded);
  REQUIRE(to == std::array<float, 2>{1.0F / 3, 7});
  std::array<pp::bfloat16, 2> narrow{};
  misplaced_entry<float, 2> const floats({0.5, 7});
  REQUIRE_THROWS_AS(copy(floats.entry, narrow), pp::file_error);
  copy(floats.entry, narrow, cp::conversion::rounded);
  REQUIRE(pp::convert<float>(narrow[1]) == 7);
  misplaced_entry<std::int32_t, 2> const integers({16777217, 7});
  REQUIRE_THROWS_AS(copy(integers.entry, to), pp::file_error);
  std::array<double, 2> fine{};
  copy(integers.entry, fine);
  REQUIRE(fine[0] == 16777217);
  std::array<float, 3> longer{};
  REQUIRE_THROWS_AS(copy(file.entry, longer, cp::conversion::rounded), pp::file_error);
  cp::entry const foreign{"x", "F8_E8M0", {2}, std::as_bytes(std::span("ab", 2))};
  REQUIRE_THROWS_WITH(copy(foreign, to, cp::conversion::rounded), Catch::Contains("a type that no tensor has"));
}
