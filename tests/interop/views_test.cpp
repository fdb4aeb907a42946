#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <Eigen/Core>
#include <cuda/std/array>
#include <cuda/std/mdspan>
#include <pushpull/interop/adopted_tensor.hpp>
#include <pushpull/interop/mdspan.hpp>
#include <pushpull/tensor/tensor_view.hpp>

#include "support/catch.hpp"

namespace pp = pushpull;

TEST_CASE("an mdspan of contiguous elements is a tensor over its memory", "[interop]") {
  std::vector<float> values(24);
  namespace cs = cuda::std;
  cs::mdspan<float, cs::dextents<int, 3>> const whole(values.data(), 2, 3, 4);
  auto const view = pp::view_of(whole);
  REQUIRE(view.data() == values.data());
  REQUIRE(view.shape() == pp::shape{2, 3, 4});
  cs::mdspan<float const, cs::extents<std::size_t, 4, 6>> const constant(values.data());
  STATIC_REQUIRE(std::is_same_v<decltype(pp::view_of(constant)), pp::tensor_view<float const>>);
  REQUIRE(pp::view_of(constant).shape() == pp::shape{4, 6});
  cs::mdspan<float, cs::dextents<int, 1>, cs::layout_left> const vector(values.data(), 24);
  REQUIRE(pp::view_of(vector).size() == 24);
  REQUIRE(pp::view_of(cs::mdspan<float, cs::dextents<int, 2>>(nullptr, 0, 3)).size() == 0);
}

TEST_CASE("an mdspan with gaps, or in column-major order, is refused", "[interop]") {
  std::vector<float> values(24);
  namespace cs = cuda::std;
  using matrix = cs::dextents<int, 2>;
  REQUIRE_THROWS_AS(pp::view_of(cs::mdspan<float, matrix, cs::layout_left>(values.data(), 2, 3)), pp::shape_mismatch);
  REQUIRE(pp::view_of(cs::mdspan<float, matrix, cs::layout_left>(values.data(), 1, 3)).shape() == pp::shape{1, 3});
  using strided = cs::layout_stride::mapping<matrix>;
  auto const of = [&](int outer, int inner) {
    return cs::mdspan<float, matrix, cs::layout_stride>(values.data(),
                                                        strided(matrix(2, 3), cs::array<int, 2>{outer, inner}));
  };
  REQUIRE_THROWS_AS(pp::view_of(of(6, 2)), pp::shape_mismatch);
  REQUIRE_THROWS_AS(pp::view_of(of(5, 1)), pp::shape_mismatch);
  REQUIRE(pp::view_of(of(3, 1)).data() == values.data());
}

TEST_CASE("Eigen's matrices, maps and blocks are tensors if their elements are contiguous", "[interop]") {
  Eigen::MatrixXf matrix = Eigen::MatrixXf::Zero(4, 6);  // column-major
  REQUIRE(pp::view_of(matrix).data() == matrix.data());
  REQUIRE(pp::view_of(matrix).size() == 24);
  auto column = matrix.col(2);
  REQUIRE(pp::view_of(column).data() == matrix.data() + 8);
  auto columns = matrix.middleCols(1, 3);
  REQUIRE(pp::view_of(columns).size() == 12);
  auto row = matrix.row(1);
  REQUIRE_THROWS_AS(pp::view_of(row), pp::shape_mismatch);
  auto block = matrix.block(0, 0, 3, 2);
  REQUIRE_THROWS_AS(pp::view_of(block), pp::shape_mismatch);
  auto one = matrix.block(1, 1, 1, 1);
  REQUIRE(pp::view_of(one).size() == 1);
  Eigen::Map<Eigen::VectorXf> const map(matrix.data(), 24);
  REQUIRE(pp::view_of(map).data() == matrix.data());
  Eigen::Map<Eigen::VectorXf, 0, Eigen::InnerStride<2>> const gaps(matrix.data(), 12);
  REQUIRE_THROWS_AS(pp::view_of(gaps), pp::shape_mismatch);
}

TEST_CASE("adopted memory is freed once, by its last owner", "[interop]") {
  int freed = 0;
  auto const deleter = [&freed](double* p) {
    ++freed;
    delete[] p;
  };
  double* const memory = new double[6];
  {
    pp::interop::adopted_tensor tensor(memory, pp::shape{2, 3}, pp::cpu_device<>(), deleter);
    STATIC_REQUIRE(pp::Tensor<decltype(tensor)>);
    REQUIRE(tensor.data() == memory);
    auto moved = std::move(tensor);
    REQUIRE(freed == 0);
    std::thread([owned = std::move(moved)] {}).join();
    REQUIRE(freed == 1);
  }
  REQUIRE(freed == 1);
}
