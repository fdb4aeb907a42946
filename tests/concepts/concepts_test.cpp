/// @file
/// Every concept: what we ship models it, and one missing piece is enough not to. If this compiles, it passed.
#include <cstddef>
#include <cstdint>
#include <pushpull/pushpull.hpp>
#include <span>
#include <string>
#include <string_view>
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

struct no_size : archetype::communicator {
  int size() const = delete;
};
struct no_barrier : archetype::communicator {
  void barrier() const = delete;
};
struct no_kind_of_policy {
  int rank() const { return 0; }
  int size() const { return 1; }
  void barrier() const {}
};
struct moves_only : archetype::communicator {
  moves_only(moves_only&&) = default;
};
static_assert(pp::Communicator<pp::comm::single> && pp::Communicator<pp::comm::any_communicator>);
static_assert(pp::Communicator<archetype::communicator> && !pp::Communicator<moves_only>);
static_assert(!pp::Communicator<no_size> && !pp::Communicator<no_barrier> && !pp::Communicator<no_kind_of_policy>);

struct no_ready : archetype::communication_request {
  bool ready() = delete;
};
struct no_wait : archetype::communication_request {
  void wait() = delete;
};
struct stays : archetype::communication_request {
  stays(stays&&) = delete;
};
static_assert(pp::CommunicationRequest<archetype::communication_request>);
static_assert(!pp::CommunicationRequest<no_ready> && !pp::CommunicationRequest<no_wait>);
static_assert(!pp::CommunicationRequest<stays>);

struct fail_may_throw : archetype::groups_calls {
  void fail(std::string_view) const {}
};
struct group_without_end : archetype::groups_calls {
  struct group_type {};
  group_type group() const { return {}; }
};
struct group_of_another_type : archetype::groups_calls {
  int group() const { return 0; }
};
struct moves_no_memory_of_the_host : archetype::exchanges_slices {
  template <class D>
  static constexpr bool moves_memory_of = !pp::HostDevice<D>;
};
static_assert(pp::GroupsCalls<archetype::groups_calls> && !pp::GroupsCalls<archetype::communicator>);
static_assert(!pp::GroupsCalls<fail_may_throw> && !pp::GroupsCalls<group_without_end>);
static_assert(!pp::GroupsCalls<group_of_another_type>);
static_assert(pp::MovesMemoryOf<archetype::groups_calls, archetype::device>);
static_assert(!pp::MovesMemoryOf<archetype::groups_calls, int>);
static_assert(!pp::MovesMemoryOf<moves_no_memory_of_the_host, archetype::device>);

struct exchanges_at_once : archetype::groups_calls {
  void exchange(group_type&, std::span<pp::comm::transfer const>, std::span<pp::comm::transfer const>) const {}
};
struct gathers_integers : archetype::groups_calls {
  archetype::communication_request gather(group_type&, int*, std::span<pp::comm::byte_range const>) const { return {}; }
};
struct sums_floats : archetype::groups_calls {
  archetype::communication_request sum(group_type&, float*, std::size_t) const { return {}; }
};
static_assert(pp::ExchangesSlices<archetype::exchanges_slices, archetype::device>);
static_assert(!pp::ExchangesSlices<archetype::groups_calls, archetype::device>);
static_assert(!pp::ExchangesSlices<exchanges_at_once, archetype::device>);
static_assert(!pp::ExchangesSlices<moves_no_memory_of_the_host, archetype::device>);
static_assert(pp::GathersSlices<archetype::gathers_slices, archetype::device>);
static_assert(!pp::GathersSlices<archetype::groups_calls, archetype::device>);
static_assert(!pp::GathersSlices<gathers_integers, archetype::device>);
static_assert(pp::MovesMemoryOfEachDevice<archetype::moves_memory_of_each_device, archetype::device>);
static_assert(!pp::MovesMemoryOfEachDevice<archetype::collective_communicator, archetype::device>);
static_assert(pp::SumsDoubles<archetype::sums_doubles, archetype::device>);
static_assert(!pp::SumsDoubles<archetype::groups_calls, archetype::device>);
static_assert(!pp::SumsDoubles<sums_floats, archetype::device>);

struct gathers_texts : archetype::communicator {
  std::vector<std::string> gather_all(std::span<std::byte const>) const { return {}; }
};
static_assert(pp::BroadcastsBytes<archetype::broadcasts_bytes> && !pp::BroadcastsBytes<archetype::gathers_bytes>);
static_assert(pp::GathersBytes<archetype::gathers_bytes> && !pp::GathersBytes<archetype::broadcasts_bytes>);
static_assert(!pp::GathersBytes<gathers_texts>);

struct no_arrive : archetype::shares_memory {
  void arrive(group_type&) const = delete;
};
struct memory_of_integers : archetype::shares_memory {
  struct shared_memory {
    int* at(int) const { return nullptr; }
  };
  shared_memory allocate_shared(std::size_t) const { return {}; }
};
static_assert(pp::SharesMemory<archetype::shares_memory, archetype::device>);
static_assert(!pp::SharesMemory<archetype::groups_calls, archetype::device>);
static_assert(!pp::SharesMemory<no_arrive, archetype::device>);
static_assert(!pp::SharesMemory<memory_of_integers, archetype::device>);

struct no_exchange : archetype::collective_communicator {
  void exchange(group_type&, std::span<pp::comm::transfer const>, std::span<pp::comm::transfer const>) const = delete;
};
struct no_gather : archetype::collective_communicator {
  void gather(group_type&, void*, std::span<pp::comm::byte_range const>) const = delete;
};
struct no_sum : archetype::collective_communicator {
  void sum(group_type&, double*, std::size_t) const = delete;
};
struct no_broadcast : archetype::collective_communicator {
  void broadcast(std::span<std::byte>, int) const = delete;
};
struct no_gather_all : archetype::collective_communicator {
  void gather_all(std::span<std::byte const>) const = delete;
};
template <class C>
constexpr bool is_collective = pp::CollectiveCommunicator<C, archetype::device>;
static_assert(is_collective<archetype::collective_communicator> && is_collective<pp::comm::any_communicator>);
static_assert(!is_collective<no_exchange> && !is_collective<no_gather> && !is_collective<no_sum>);
static_assert(!is_collective<no_broadcast> && !is_collective<no_gather_all> && !is_collective<pp::comm::single>);
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
