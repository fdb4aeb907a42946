/// @file
/// The passes over memory of users: tensors of any length and alignment, rows, the phases before a pass, encoders, copies.
/// ptx_test.cpp looks for accesses of the wrong memory in them.
#include <pushpull/pushpull.cuh>

namespace {

namespace compress = pushpull::compress;
namespace pass = pushpull::pass;
namespace update = pushpull::update;
using execution = pass::cuda_execution;
using pushpull::bfloat16;
using pushpull::reduce::sum;

template <class F>
void launch(F const& f) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads>>>(f, std::int64_t{1});
}
template <class Sums, class F>
void launch_leaves(F const& f) {
  pushpull::detail::leaf_kernel<<<1, pushpull::detail::leaf_threads>>>(f, static_cast<Sums*>(nullptr));
}

/// A model's usual types: gradients and mirrors `G`, the rest floats.
template <class G>
using types_of =
    pass::element_types<G, float, float, float, std::conditional_t<pushpull::detail::Encoded<G>, float, G>>;

/// One tensor of a caller, and several; rows with a gradient, and all rows.
template <class Rule, class Types, class Reduction = sum>
void launch_pass() {
  using pass::memory;
  launch(pass::body<Rule, Reduction, Types, execution, memory::foreign>{});
  launch(pass::body<Rule, Reduction, Types, execution, memory::foreign, pass::detail::run_table>{});
}
template <class Rule, class Types>
void launch_rows() {
  using pass::memory;
  launch(pass::body<Rule, sum, Types, execution, memory::rows, pass::detail::present_rows>{});
  launch(pass::body<Rule, sum, Types, execution, memory::rows, pass::detail::all_rows>{});
}

/// Norms, over tensors of a caller and over arenas.
template <class Rule, class Types, std::size_t Phase>
void launch_phase() {
  using sums = pass::detail::phase_sums<Rule, Phase>;
  using pass::memory;
  launch_leaves<sums>(pass::pre_reduction_body<Rule, sum, Types, execution, memory::foreign, Phase>{});
  launch_leaves<sums>(
      pass::pre_reduction_body<Rule, sum, Types, execution, memory::arenas, Phase, pass::detail::run_table>{});
}

/// Sums over rows and columns.
template <class Rule, class Types, std::size_t Phase>
void launch_matrix() {
  constexpr std::size_t stage = pushpull::detail::factored_number<Rule, Phase>;
  using run = typename pass::matrix_plan<pushpull::cuda_device, Rule, Types>::run_type;
  using A = typename Types::accumulation;
  launch_leaves<double>(pass::detail::row_sums<Rule, Types, execution, Phase>{});
  launch(pass::detail::short_row_sums<Rule, Types, execution, Phase>{});
  launch(pass::detail::column_sums<Rule, Types, execution, Phase>{});
  launch(pass::detail::move_numbers<run, A, stage, true>{});
  launch_leaves<double>(pass::detail::row_number_sums<run, A, stage>{});
  launch(pass::detail::average_rows<run, A, stage>{});
}

template <class Compressor>
void launch_quantizer() {
  launch(compress::encode_body<Compressor, execution>{{}, {nullptr, nullptr, 0}, nullptr, nullptr});
  launch_pass<update::momentum, types_of<typename Compressor::template encoded_type<float>>>();
}
template <class E, class T>
void launch_cast() {
  launch(compress::detail::cast_body<E, T, execution>{{nullptr, nullptr, 0}, nullptr, nullptr, nullptr});
}
template <class T>
void launch_selection() {
  launch(compress::detail::accumulate_body<T, execution>{{nullptr, nullptr, 0}});
  launch(compress::detail::count_blocks<execution>{});
  launch(compress::detail::take_values<execution>{});
}

void launch_all() {
  using floats = types_of<float>;
  using narrow = types_of<bfloat16>;
  using rounded = pass::element_types<bfloat16, float, bfloat16, bfloat16, bfloat16, true, true>;
  launch_pass<update::adam, floats>();
  launch_pass<update::adam, narrow>();
  launch_pass<update::adam, rounded>();
  launch_rows<update::adam, floats>();
  launch_rows<update::adam, narrow>();
  launch_rows<update::momentum, rounded>();

  using clipped = decltype(update::clip_global_norm(1) | update::momentum{});
  launch_pass<clipped, floats>();
  launch_phase<clipped, floats, 0>();
  launch_phase<clipped, narrow, 0>();
  launch_phase<clipped, rounded, 0>();
  launch_phase<clipped, types_of<compress::one_bit_code>, 0>();
  launch_phase<update::lamb, floats, 0>();

  launch_pass<pass::leave_reduced<0>, narrow>();
  launch_pass<update::adafactor, narrow>();
  launch_matrix<update::adafactor, narrow, 0>();
  launch_phase<update::adafactor, narrow, 1>();

  launch_quantizer<compress::two_bit>();
  launch_quantizer<compress::one_bit>();
  launch_cast<pushpull::half, float>();
  launch_cast<bfloat16, float>();
  launch_cast<pushpull::float8_e4m3, float>();
  launch_cast<pushpull::float8_e5m2, bfloat16>();
  launch_pass<update::momentum, types_of<compress::scaled_code<pushpull::float8_e5m2>>>();
  launch_selection<float>();
  launch_selection<pushpull::half>();
  launch_pass<update::momentum, types_of<compress::sparse_code>>();

  // Stores without a rule, pulls, fills and copies.
  using integers = pass::element_types<std::uint8_t, std::int64_t, std::uint8_t, std::uint8_t, std::uint8_t>;
  launch_pass<pass::assign, integers, pushpull::reduce::max>();
  launch_rows<pass::assign, integers>();
  launch_rows<pass::hold, pass::element_types<float, float, float, float, float>>();
  launch_pass<pass::accumulate_more, pass::element_types<float, float, float, float, float>>();
  launch_pass<pass::hold, pass::element_types<double, double, double, double, pushpull::float8_e4m3>>();
  launch_pass<pass::forward, pass::element_types<pushpull::half, double, double, double, double>>();
}

}  // namespace

// The pointer keeps the launches.
void (*pushpull_test_layouts)() = &launch_all;
