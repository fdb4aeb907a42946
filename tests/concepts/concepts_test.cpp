/// @file
/// Every concept: what we ship models it, and one missing piece is enough not to. If this compiles, it passed.
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <string>
#include <vector>

#include "support/archetypes.hpp"
#include "support/catch.hpp"

namespace {

namespace pp = pushpull;
namespace archetype = pushpull::test::archetype;

struct no_synchronize : archetype::device {
  void synchronize() const = delete;
};
struct id_is_text : archetype::device {
  std::string id() const { return ""; }
};
struct deallocate_throws : archetype::device {
  void deallocate(void*, std::size_t) const {}
};
struct no_copy : archetype::device {
  void copy(void*, void const*, std::size_t) const = delete;
};
struct allocate_integers : archetype::device {
  int* allocate(std::size_t) const { return nullptr; }
};
static_assert(pp::Device<archetype::device> && pp::HostDevice<archetype::device>);
static_assert(pp::Device<pp::cpu_device<>> && pp::Device<pp::cpu_device<pp::serial_system>>);
static_assert(!pp::Device<no_synchronize> && !pp::Device<id_is_text> && !pp::Device<deallocate_throws>);
static_assert(!pp::Device<no_copy> && !pp::Device<allocate_integers> && !pp::Device<int>);

struct no_shape : archetype::tensor {
  void shape() const = delete;
};
struct bool_elements : archetype::tensor {
  using value_type = bool;
};
static_assert(pp::Tensor<archetype::tensor> && pp::Tensor<pp::tensor<float>> &&
              pp::Tensor<pp::tensor_view<float const>>);
static_assert(!pp::Tensor<no_shape> && !pp::Tensor<bool_elements> && !pp::Tensor<std::vector<float>>);
static_assert(pp::TensorLike<std::vector<float>&> && !pp::TensorLike<std::vector<std::string>&>);

struct no_state_names {
  template <class S, class V>
  void operator()(S const&, V&, V const&) const noexcept {}
};
struct a_state_too_few : archetype::updater {
  static constexpr auto state_names = pp::states("a", "b");
};
struct not_trivially_copyable : archetype::updater {
  std::vector<float> memory;
};
struct rule_may_throw : archetype::updater {
  template <class S, class V>
  void operator()(S const&, V& w, V g, V& a) const {
    w -= a += g;
  }
};
template <bool IsNoexcept>
struct numbered_rule {
  static constexpr auto state_names = pp::states();
  struct numbers {
    float at(std::int64_t) const noexcept(IsNoexcept) { return 1; }
  };
  numbers prepare(pp::step<float> const&) const { return {}; }  // may throw: then there was no such step
  template <class V>
  void operator()(float rate, V& w, V g) const noexcept {
    w -= rate * g;
  }
};
static_assert(pp::Updater<archetype::updater> && pp::Updater<pp::update::adam> && pp::Updater<pp::update::nesterov>);
static_assert(!pp::Updater<no_state_names> && !pp::Updater<a_state_too_few> && !pp::Updater<not_trivially_copyable>);
static_assert(!pp::Updater<pp::update::rescale>);
static_assert(!pp::Updater<rule_may_throw>);
static_assert(pp::Updater<numbered_rule<true>> && !pp::Updater<numbered_rule<false>>);

struct gradient_by_value : archetype::transform {
  template <class S, class V>
  void operator()(S const&, V const&, V) const = delete;
};
struct transform_may_throw : archetype::transform {
  template <class S, class V>
  void operator()(S const&, V const&, V& g) const {
    g *= 2;
  }
};
static_assert(!pp::GradientTransform<transform_may_throw>);
static_assert(pp::GradientTransform<archetype::transform> && pp::GradientTransform<pp::update::clip_value>);
static_assert(!pp::GradientTransform<pp::update::sgd> && !pp::GradientTransform<gradient_by_value>);
static_assert(pp::PreReduction<pp::update::clip_global_norm> && !pp::PreReduction<archetype::transform>);
using clipped = decltype(pp::update::clip_global_norm(1) | archetype::transform{} | archetype::updater{});
static_assert(pp::Updater<clipped> && pp::PreReduction<clipped> && clipped::state_names.size() == 1);

struct not_const : archetype::learning_rate_schedule {
  double operator()(std::int64_t) { return 1; }
};
struct float_value {
  float operator()(std::int64_t) const { return 1; }
};
struct schedule_with_a_list : archetype::learning_rate_schedule {
  std::vector<double> values;
};
static_assert(pp::LearningRateSchedule<archetype::learning_rate_schedule>);
static_assert(
    pp::LearningRateSchedule<decltype(0.5 * pp::lr_schedule::constant{} * archetype::learning_rate_schedule{})>);
static_assert(!pp::LearningRateSchedule<not_const> && !pp::LearningRateSchedule<float_value>);
static_assert(!pp::LearningRateSchedule<schedule_with_a_list> && !pp::LearningRateSchedule<pp::lr_schedule::plateau>);
struct own_learning_rate : archetype::updater {
  double learning_rate = 1;
};
using scheduled = decltype(pp::update::rescale(1) | archetype::transform{} | own_learning_rate{} |
                           pp::update::learning_rate(archetype::learning_rate_schedule{}));
static_assert(pp::Updater<scheduled> && scheduled::state_names.size() == 1 && !pp::PreReduction<scheduled>);

struct no_finish : archetype::reduction {
  void finish(auto const&, int) const = delete;
};
struct no_policy_kind {
  template <class V>
  V operator()(V a, V) const noexcept {
    return a;
  }
  template <class V>
  V finish(V a, int) const noexcept {
    return a;
  }
};
struct finish_may_throw : archetype::reduction {
  pp::pack<float> finish(pp::pack<float> a, int) const { return a; }
};
static_assert(pp::Reduction<archetype::reduction> && pp::Reduction<pp::reduce::max>);
static_assert(!pp::Reduction<no_finish> && !pp::Reduction<finish_may_throw> && !pp::Reduction<no_policy_kind>);

struct no_size {
  using policy_kind = pp::communicator_tag;
  int rank() const { return 0; }
  void barrier() const {}
};
struct no_barrier {
  using policy_kind = pp::communicator_tag;
  int rank() const { return 0; }
  int size() const { return 1; }
};
struct least_communicator : no_barrier {
  void barrier() const {}
};
struct moves_only : least_communicator {
  moves_only(moves_only&&) = default;
};
static_assert(pp::Communicator<pp::comm::single> && pp::Communicator<pp::comm::any_communicator>);
static_assert(pp::Communicator<least_communicator> && !pp::Communicator<moves_only>);
static_assert(!pp::Communicator<no_size> && !pp::Communicator<no_barrier>);
static_assert(pp::Compressor<pp::compress::none> && !pp::Compressor<no_size>);

using least_store = pp::kv_store<float, archetype::device, archetype::updater, archetype::reduction>;
static_assert(pp::ResidentStore<least_store> && pp::Store<least_store> && !pp::Store<int>);
static_assert(pp::ResidentStore<pp::kv_store<float, pp::cpu_device<>>> &&
              pp::Store<pp::any_store<pp::cpu_device<>, pp::compressors<>, float>>);

}  // namespace

TEST_CASE("stores need no more than their concepts promise", "[concepts]") {
  least_store store{{archetype::device{}}, archetype::updater{}};
  pp::parameter_store parameters{store};
  std::vector<float> w(10, 3.0F);
  parameters.add("w", w);
  std::fill_n(parameters.grad("w", std::size_t{0}).data(), 10, 1.0F);
  parameters.update_all();
  parameters.close();
  REQUIRE(w == std::vector<float>(10, 2.0F));
  store.init("v", archetype::tensor{});
  store.push("v", w = std::vector<float>(1, 1.0F));
  store.pull("v", w).wait();
  REQUIRE(w[0] == -1.0F);
}
