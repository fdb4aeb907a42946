#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/interop/dlpack.hpp>
#include <pushpull/pushpull.hpp>

#include "support/catch.hpp"
#include "support/message_of.hpp"

namespace pp = pushpull;
namespace interop = pushpull::interop;

namespace {

/// What another library exports: counts the calls of its deleter.
template <class M>
struct producer {
  std::vector<std::int64_t> extents, strides;
  std::shared_ptr<int> deleted = std::make_shared<int>(0);
  M managed{};

  producer(void* data, DLDataType type, std::vector<std::int64_t> shape, std::vector<std::int64_t> of_strides = {})
      : extents(std::move(shape)), strides(std::move(of_strides)) {
    managed.dl_tensor = {data,
                         {static_cast<DLDeviceType>(1), 0},
                         static_cast<std::int32_t>(extents.size()),
                         type,
                         extents.data(),
                         strides.empty() ? nullptr : strides.data(),
                         0};
    managed.manager_ctx = this;
    managed.deleter = [](M* self) { ++*static_cast<producer*>(self->manager_ctx)->deleted; };
    if constexpr (std::is_same_v<M, DLManagedTensorVersioned>) managed.version = {1, 3};
  }
};

constexpr DLDataType float32{2, 32, 1};

}  // namespace

TEMPLATE_TEST_CASE("an imported tensor is the producer's memory, and its deleter is called once", "[interop]",
                   DLManagedTensor, DLManagedTensorVersioned) {
  std::vector<float> values(7 * 5, 1);
  producer<TestType> p(values.data(), float32, {7, 5});
  {
    auto first = interop::from_dlpack<float>(&p.managed);
    STATIC_REQUIRE(pp::Tensor<decltype(first)>);
    REQUIRE(first.data() == values.data());
    REQUIRE(first.shape() == pp::shape{7, 5});
    auto moved = std::move(first);
    REQUIRE(*p.deleted == 0);
    pp::kv_store store{pp::cpu_devices(1), pp::update::sgd{.learning_rate = 1}};
    store.init("w", moved);
    store.push("w", moved);
    store.pull("w", moved);
    store.wait();
    REQUIRE(std::ranges::count(values, 0.0F) == 35);  // 1 - 1: written in place
    std::thread([owned = std::move(moved)] {}).join();
  }
  REQUIRE(*p.deleted == 1);
}

TEMPLATE_TEST_CASE("an import respects offsets, strides of single elements and empty shapes", "[interop]",
                   DLManagedTensor, DLManagedTensorVersioned) {
  std::vector<double> values(12);
  SECTION("offset") {
    producer<TestType> p(values.data(), {2, 64, 1}, {4});
    p.managed.dl_tensor.byte_offset = 3 * sizeof(double);
    REQUIRE(interop::from_dlpack<double>(&p.managed).data() == values.data() + 3);
  }
  SECTION("an axis of one element may have any stride") {
    producer<TestType> p(values.data(), {2, 64, 1}, {3, 1, 4}, {4, 99, 1});
    REQUIRE(interop::from_dlpack<double const>(&p.managed).shape() == pp::shape{3, 1, 4});
  }
  SECTION("empty") {
    producer<TestType> p(nullptr, {2, 64, 1}, {3, 0, 4}, {7, 7, 7});
    auto const empty = interop::from_dlpack<double>(&p.managed);
    REQUIRE(empty.size() == 0);
    REQUIRE(empty.data() == nullptr);
    REQUIRE(*p.deleted == 0);
    {
      auto const ended = interop::from_dlpack<double>(&p.managed);
    }
    REQUIRE(*p.deleted == 1);  // also without memory
  }
  SECTION("a scalar") {
    producer<TestType> p(values.data(), {2, 64, 1}, {});
    REQUIRE(interop::from_dlpack<double>(&p.managed).size() == 1);
  }
}

TEMPLATE_TEST_CASE("a refused import says why, and the tensor stays the caller's", "[interop]", DLManagedTensor,
                   DLManagedTensorVersioned) {
  std::vector<float> values(13);
  producer<TestType> p(values.data(), float32, {3, 4});
  DLTensor& t = p.managed.dl_tensor;
  auto const message = [&] {
    return pp::test::message_of<pp::error>([&] { interop::from_dlpack<float>(&p.managed); });
  };
  SECTION("another element type") {
    t.dtype = {4, 16, 1};
    REQUIRE(message() == "from_dlpack: elements of type float32 expected, got bfloat16");
    REQUIRE_THROWS_AS(interop::from_dlpack<float>(&p.managed), pp::dtype_mismatch);
    t.dtype = {2, 32, 4};
    REQUIRE(message() == "from_dlpack: elements of type float32 expected, got float32x4");
  }
  SECTION("another device") {
    t.device = {static_cast<DLDeviceType>(2), 3};
    REQUIRE(message() == "from_dlpack: a tensor in memory of cpu:0 expected, got one in cuda:3");
    REQUIRE_THROWS_AS(interop::from_dlpack<float>(&p.managed), pp::unknown_device);
  }
  SECTION("elements with gaps") {
    p.strides = {5, 1};
    t.strides = p.strides.data();
    REQUIRE(message() ==
            "from_dlpack: contiguous elements in row-major order expected, got stride 5 instead of 4 on axis 0 of "
            "shape (3, 4); make the "
            "tensor "
            "contiguous first");
    p.strides = {1, 3};  // column-major
    REQUIRE_THROWS_AS(interop::from_dlpack<float>(&p.managed), pp::shape_mismatch);
  }
  SECTION("an address between elements") {
    t.byte_offset = 2;
    REQUIRE_THROWS_AS(interop::from_dlpack<float>(&p.managed), pp::invalid_argument);
  }
  SECTION("no memory") {
    t.data = nullptr;
    REQUIRE_THROWS_AS(interop::from_dlpack<float>(&p.managed), pp::invalid_argument);
  }
  if constexpr (std::is_same_v<TestType, DLManagedTensorVersioned>) {
    SECTION("read-only memory is imported as const alone") {
      p.managed.flags = 1;
      REQUIRE(message() ==
              "from_dlpack: a tensor that can be written expected, got a read-only one; import it as const");
      REQUIRE(*p.deleted == 0);
      interop::from_dlpack<float const>(&p.managed);
      REQUIRE(*p.deleted == 1);
      interop::visit_dlpack<double const, float const>(&p.managed,
                                                       [](auto const& read) { REQUIRE(read.size() == 12); });
      REQUIRE(*p.deleted == 2);
      *p.deleted = 0;
    }
    SECTION("a version that nobody here knows") {
      p.managed.version = {2, 0};
      REQUIRE(message() == "from_dlpack: DLPack 1 expected, got version 2.0");
    }
  }
  REQUIRE(*p.deleted == 0);
}

TEST_CASE("visit_dlpack calls with the producer's element type", "[interop]") {
  alignas(8) std::array<std::byte, 64> memory{};
  auto const name_of = [&](DLDataType type) {
    producer<DLManagedTensor> p(memory.data(), type, {4});
    return interop::visit_dlpack(&p.managed, [](auto const& t) {
      return std::string(pp::dtype_traits<typename std::remove_cvref_t<decltype(t)>::value_type>::name);
    });
  };
  REQUIRE(name_of({2, 32, 1}) == "float32");
  REQUIRE(name_of({2, 64, 1}) == "float64");
  REQUIRE(name_of({2, 16, 1}) == "float16");
  REQUIRE(name_of({4, 16, 1}) == "bfloat16");
  REQUIRE(name_of({10, 8, 1}) == "float8_e4m3fn");
  REQUIRE(name_of({12, 8, 1}) == "float8_e5m2");
  REQUIRE(name_of({0, 32, 1}) == "int32");
  REQUIRE(name_of({0, 64, 1}) == "int64");
  REQUIRE(name_of({1, 8, 1}) == "uint8");
  REQUIRE_THROWS_AS(name_of({5, 64, 1}), pp::dtype_mismatch);
  producer<DLManagedTensor> p(memory.data(), {0, 32, 1}, {4});
  REQUIRE_THROWS_AS((interop::visit_dlpack<float, double>(&p.managed, [](auto const&) {})), pp::dtype_mismatch);
  REQUIRE(*p.deleted == 1);  // it is the visitor's from the call on
  auto const fails = [](auto const&) { throw std::runtime_error("no"); };
  REQUIRE_THROWS_AS(interop::visit_dlpack(&p.managed, fails), std::runtime_error);
  REQUIRE(*p.deleted == 2);
}

TEMPLATE_TEST_CASE("an exported tensor is ours, and keeps its owner until the deleter is called", "[interop]",
                   DLManagedTensor, DLManagedTensorVersioned) {
  auto const values = std::make_shared<std::vector<float>>(6, 2.0F);
  pp::tensor_view<float> const view(values->data(), pp::shape{2, 3});
  TestType* const exported = interop::to_dlpack<TestType>(view, values).release();
  REQUIRE(values.use_count() == 2);
  DLTensor const& t = exported->dl_tensor;
  REQUIRE(t.data == values->data());
  REQUIRE(t.ndim == 2);
  REQUIRE(std::vector<std::int64_t>(t.shape, t.shape + 2) == std::vector<std::int64_t>{2, 3});
  REQUIRE(std::vector<std::int64_t>(t.strides, t.strides + 2) == std::vector<std::int64_t>{3, 1});
  REQUIRE(static_cast<int>(t.device.device_type) == 1);
  REQUIRE(static_cast<int>(t.dtype.code) == 2);
  std::thread([&] { exported->deleter(exported); }).join();
  REQUIRE(values.use_count() == 1);

  pp::tensor<float> owned(pp::cpu_device<>(), pp::shape{0});
  auto const empty = interop::to_dlpack<TestType>(std::move(owned));
  REQUIRE(empty->dl_tensor.data == nullptr);
  pp::tensor<float> moved(pp::cpu_device<>(), pp::shape{5});
  float* const data = moved.data();
  auto back = interop::from_dlpack<float>(interop::to_dlpack<TestType>(std::move(moved)).release());
  REQUIRE(back.data() == data);
}

TEST_CASE("an exported view of const elements is read-only", "[interop]") {
  std::vector<float> const values(3);
  auto const exported = interop::to_dlpack(pp::tensor_view<float const>(values.data(), pp::shape{3}));
  REQUIRE((exported->flags & 1U) == 1U);
  REQUIRE(exported->version.major == 1);
}
