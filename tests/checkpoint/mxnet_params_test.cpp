/// @file
/// Files of arrays that MXNet 1.9.1 wrote, older and newer layouts, and damaged files, which are refused.
#include <pushpull/checkpoint/mxnet_params.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include <pushpull/checkpoint/safetensors_copy.hpp>

#include "checkpoint/reference/mxnet_params.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

namespace pp = pushpull;
namespace cp = pushpull::checkpoint;
using strings = std::vector<std::string>;

std::string from_hex(std::string_view digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  return bytes;
}

/// The bytes of numbers, one after the other.
std::string raw(auto... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<char const*>(&numbers), sizeof(numbers)), ...);
  return bytes;
}
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

/// A list of one array, with a name.
std::string listed(std::string const& record, std::string const& name = "arg:w") {
  return raw(u64{0x112}, u64{0}, u64{1}) + record + raw(u64{1}, u64{name.size()}) + name;
}
std::string const on_a_gpu = raw(i32{2}, i32{0});
constexpr u32 v1 = 0xF993FAC8, v2 = 0xF993FAC9, v3 = 0xF993FACA;

cp::mxnet_params read(std::string const& content, u64 max_dense_bytes = 1 << 20) {
  static pp::test::temporary_folder const folder;
  return cp::read_mxnet_params(pp::test::write_file(folder.file("x.params"), content), max_dense_bytes);
}
/// Why a file is refused; empty if it is read.
std::string complaint(std::string const& content) {
  try {
    read(content);
    return "";
  } catch (pp::file_error const& error) {
    return error.what();
  }
}
bool refused(std::string const& content, std::string const& expected) {
  auto const found = complaint(content);
  UNSCOPED_INFO(found);
  return found.find(expected) != std::string::npos;
}

template <class T = float>
std::vector<T> values(cp::mxnet_params const& file, std::string const& name) {
  auto const& entry = file.find(name);
  std::vector<T> result(entry.shape.size());
  cp::copy(entry, pp::tensor_view(result.data(), entry.shape));
  return result;
}

}  // namespace

TEST_CASE("files of MXNet 1.9.1 are read, whatever their element types", "[checkpoint][mxnet]") {
  auto const file = read(from_hex(pp::test::named_arrays));
  CHECK(file.names() == strings{"arg:float16", "arg:float32", "arg:float64", "arg:int32", "arg:int64", "arg:int8",
                                "arg:no_rows", "arg:rows", "arg:uint8", "aux:one"});
  std::vector<double> const expected{1, 2, 3, 4, 5, 6};
  for (auto const* name : {"arg:float16", "arg:float32", "arg:float64", "arg:int32", "arg:uint8"}) {
    CHECK(file.find(name).shape == pp::shape{2, 3});
    CHECK(values<double>(file, name) == expected);
  }
  CHECK(values<std::int64_t>(file, "arg:int64") == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6});
  CHECK((file.find("arg:int8").dtype == "I8" && file.find("arg:int8").bytes.size() == 6));
  CHECK(values(file, "aux:one") == std::vector<float>{7.5F});
  CHECK(values(file, "arg:rows") == std::vector<float>{0, 0, 1, 2, 0, 0, 3, 4});
  CHECK(values(file, "arg:no_rows") == std::vector<float>(6));
  CHECK(file.metadata().empty());

  auto const unnamed = read(from_hex(pp::test::unnamed_arrays));
  CHECK(unnamed.names() == strings{"0", "1"});
  CHECK(values(unnamed, "0") == std::vector<float>{1, 2, 3});
  CHECK(unnamed.find("1").shape == pp::shape{1, 1});

  auto const numpy = read(from_hex(pp::test::numpy_arrays));
  CHECK(numpy.names() == strings{"empty", "flags", "matrix", "scalar"});
  CHECK(numpy.find("empty").shape == pp::shape{0, 3});
  CHECK(numpy.find("flags").dtype == "BOOL");
  CHECK(values<std::int32_t>(numpy, "matrix") == std::vector<std::int32_t>{1, 2});
  CHECK(numpy.find("scalar").shape == pp::shape{});
  CHECK(values(numpy, "scalar") == std::vector<float>{2.5F});

  CHECK(refused(from_hex(pp::test::compressed_rows), "none in compressed rows (CSR), expected at byte 32"));
}

TEST_CASE("all layouts of MXNet's arrays are read", "[checkpoint][mxnet]") {
  auto const w = raw(i32{0}, 5.0F, 6.0F);
  for (auto const& header : {raw(u32{2}, u32{1}, u32{2}), raw(v1, i32{2}, i64{1}, i64{2}),
                             raw(v2, i32{0}, i32{2}, i64{1}, i64{2}), raw(v3, i32{0}, i32{2}, i64{1}, i64{2})}) {
    auto const file = read(listed(header + on_a_gpu + w));
    CHECK(file.find("arg:w").shape == pp::shape{1, 2});
    CHECK(values(file, "arg:w") == std::vector<float>{5, 6});
  }
  auto const bfloat16 = read(listed(raw(v3, i32{0}, i32{0}) + on_a_gpu + raw(i32{12}, std::uint16_t{0x3F80})));
  CHECK(values<float>(bfloat16, "arg:w") == std::vector<float>{1});
  for (auto const& empty : {raw(u32{0}), raw(v1, i32{0}), raw(v2, i32{0}, i32{0}), raw(v3, i32{0}, i32{-1})})
    CHECK(read(listed(empty)).find("arg:w").shape == pp::shape{0});
  CHECK(read(raw(u64{0x112}, u64{0}, u64{0}, u64{0})).entries().empty());
  CHECK(read(raw(u64{0x112}, u64{0}, u64{3}, u32{0}, u32{0}, u32{0}, u64{0})).entries().size() == 3);
}

TEST_CASE("damaged and hostile files of arrays are refused", "[checkpoint][mxnet]") {
  for (auto const* whole : {pp::test::named_arrays, pp::test::unnamed_arrays, pp::test::numpy_arrays}) {
    auto const bytes = from_hex(whole);
    std::size_t const step = bytes.size() > 500 ? 7 : 1;
    for (std::size_t size = 0; size < bytes.size(); size += step) CHECK_FALSE(complaint(bytes.substr(0, size)).empty());
    CHECK(refused(bytes + '\0', "the end expected"));
    std::mt19937 random(3);
    for (int i = 0; i < 100; ++i) {  // nothing but errors of ours, whatever is damaged
      auto damaged = bytes;
      for (int n = 0; n < 1 + i % 3; ++n) damaged[random() % damaged.size()] = static_cast<char>(random());
      complaint(damaged);
    }
  }
  auto const head = raw(u64{0x112}, u64{0}), w = on_a_gpu + raw(i32{0}, 5.0F, 6.0F);
  auto const v2_of = [](auto... shape) { return raw(v2, i32{0}, i32{sizeof...(shape)}, i64{shape}...); };
  CHECK(refused(raw(u64{0x113}, u64{0}, u64{0}, u64{0}), "a list of arrays expected at byte 8"));
  CHECK(refused(head + raw(~u64{0}), "18446744073709551615 arrays expected"));
  CHECK(refused(head + raw(u64{0}, u64{1}, u64{1}) + "x", "no name, or one for each array"));
  CHECK(refused(listed(v2_of(i64{1} << 62, 2) + w), "a shape of less than 2^63 elements"));
  CHECK(refused(listed(v2_of(i64{1} << 62) + w), "less than 2^64 bits"));
  CHECK(refused(listed(v2_of(i64{1} << 40) + w), "4398046511104 more bytes"));
  CHECK(refused(listed(v2_of(-1) + w), "an extent of at least 0"));
  CHECK(refused(listed(v2_of(1, 1, 1, 1, 1, 1, 1, 1, 2) + w), "a rank of 0 to 8"));
  CHECK(refused(listed(v2_of(2) + on_a_gpu + raw(i32{13}, 5.0F, 6.0F)), "the number of an element type"));
  CHECK(refused(listed(v2_of(2) + w, "\xFF"), "a name in UTF-8"));
  CHECK(refused(head + raw(u64{2}) + v2_of(2) + w + v2_of(2) + w + raw(u64{2}, u64{1}) + "a" + raw(u64{1}) + "a",
                "different names"));
  auto const rows = [&](i64 all, i64 stored, i64 row) {
    return listed(raw(v2, i32{1}, i32{1}, stored, i32{1}, all) + on_a_gpu +
                  raw(i32{0}, i32{6}, i32{1}, i64{1}, 5.0F, row));
  };
  CHECK(values(read(rows(3, 1, 2)), "arg:w") == std::vector<float>{0, 0, 5});
  CHECK(refused(rows(3, 1, 3), "row numbers below 3"));
  CHECK(refused(rows(3, 1, -1), "row numbers below 3"));
  CHECK(refused(rows(3, 2, 0), "as many rows as row numbers"));
  CHECK(refused(rows(i64{1} << 50, 1, 0), "row-sparse arrays of at most 1048576 bytes as dense ones expected"));
  auto const large =
      raw(v2, i32{1}, i32{1}, i64{0}, i32{1}, i64{150000}) + on_a_gpu + raw(i32{0}, i32{6}, i32{1}, i64{0});
  CHECK(refused(head + raw(u64{2}) + large + large + raw(u64{0}), "got 600000 after 600000: raise max_dense_bytes"));
  CHECK(refused("DJL@" + std::string(40, 'x'), "arrays of MXNet expected, got a model of DJL"));
  CHECK_THROWS_AS(cp::read_mxnet_params("/nowhere/x.params"), pp::file_error);
}
