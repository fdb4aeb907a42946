/// @file
/// The types that a kv_store's element type, device and policies amount to, and what is wrong with them.
#pragma once

#include <concepts>
#include <type_traits>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/registers/state_codec.hpp>
#include <pushpull/registers/stochastic_rounding.hpp>
#include <pushpull/schedule/immediate_schedule.hpp>
#include <pushpull/schedule/task_schedule.hpp>
#include <pushpull/store/exchange/hierarchy.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/store/state_codecs.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

template <ElementType T, Device D, class... Policies>
struct kv_store_types {
  using value_type = T;
  using device_type = D;
  static_assert(check_policies<Policies...>::value);
  using key_policy = pick_t<key_tag, string_keys, Policies...>;
  using element_policy = pick_t<element_tag, element::uniform, Policies...>;

  using key_type = typename key_policy::key_type;
  using key_view = typename key_policy::key_view;
  using reduction_type = pick_t<reduction_tag, reduce::sum, Policies...>;
  using compressor_type = pick_t<compressor_tag, compress::none, Policies...>;
  using communicator_type = pick_t<communicator_tag, comm::single, Policies...>;
  using master_type = typename element_policy::template master_type<T>;
  using state_type = typename element_policy::template state_type<T>;
  using accumulation_type = std::common_type_t<accumulation_t<T>, accumulation_t<master_type>>;
  using updater_type = typename check_updater<typename pick_updater<Policies...>::type, accumulation_type>::type;
  using placement_type = pick_t<placement_tag, placement::slices, Policies...>;
  using hierarchy_type = pick_t<hierarchy_tag, hierarchy::nodes, Policies...>;
  /// Whether the communicator adds up resident gradients.
  static constexpr bool reduces = requires { requires hierarchy_type::reduces; };
  /// Whether calls return when their work is finished.
  static constexpr bool is_synchronous = std::same_as<pick_t<execution_tag, asynchronous, Policies...>, synchronous>;
  /// Streams order what they are given; the host needs a schedule.
  using schedule_type = std::conditional_t<HostDevice<D> && !is_synchronous, task_schedule, immediate_schedule>;
  /// Whether push applies a rule.
  static constexpr bool has_updater = !std::same_as<updater_type, no_updater>;
  using accumulation_policy = pick_t<accumulation_tag, no_accumulation, Policies...>;
  /// Whether several pushes make a step.
  static constexpr bool accumulates = !std::same_as<accumulation_policy, no_accumulation>;
  static_assert(!accumulates || has_updater, "kv_store: accumulate needs an Updater, whose steps it delays");
  static_assert(
      !accumulates || AdditiveReduction<reduction_type>,
      "kv_store: accumulate adds micro-batches, which an AdditiveReduction does: reduce::sum or reduce::mean");
  static_assert(Reduction<reduction_type>,
                "kv_store: the reduction does not model Reduction, whose operator and finish are noexcept");
  static_assert(Compressor<compressor_type>, "kv_store: the compressor does not model Compressor");
  static_assert(Communicator<communicator_type>,
                "kv_store: the communicator does not model Communicator: rank(), size() and barrier(), all const");
  static_assert(!has_updater || (FloatingElement<T> && FloatingElement<master_type> && FloatingElement<state_type>),
                "kv_store: an Updater needs floating-point elements of at least 16 bits");

  using rule_type = std::conditional_t<has_updater, updater_type, pass::assign>;
  using codec_policy = pick_t<state_codec_tag, plain_states, Policies...>;
  /// What states are in memory: elements, or codes.
  using stored_state = typename stored_states<codec_policy, rule_type, state_type>::type;
  static constexpr bool coded = CodedStates<stored_state>;
  static_assert(
      !coded || (std::same_as<accumulation_type, float> && std::same_as<state_type, float>),
      "kv_store: state_codecs need a store that computes in float and whose states are floats: element::master<float>");
  static_assert(std::same_as<codec_policy, plain_states> || factored_count<rule_type> == 0,
                "kv_store: state_codecs do not take Factored rules, such as adafactor and centralize");
  /// Whether keys are not cut: a rule that asks for numbers of rows and columns finds them on one device.
  static constexpr bool whole_keys = placement_type::whole_keys || factored_count<rule_type> != 0;
  static constexpr bool stochastic = requires { requires element_policy::stochastic_rounding; };
  static_assert(!stochastic || pass::can_round_stochastically<master_type, accumulation_type> ||
                    pass::can_round_stochastically<state_type, accumulation_type>,
                "kv_store: element::stochastic rounds masters or states of type half or bfloat16, computed in float");
  using types = pass::element_types<T, accumulation_type, master_type, stored_state, T, stochastic, accumulates>;
  /// Whether the ranks of a communicator own the keys together.
  static constexpr bool collective = is_collective<communicator_type, D>;
  /// The same for all rules.
  using table_type =
      key_table<key_policy, D, pass::element_types<T, accumulation_type, master_type, stored_state, T>, collective>;
  using record = typename table_type::record;
  using encoded_type = typename compressor_type::template encoded_type<T>;
  static constexpr bool compressed = !std::same_as<encoded_type, T>;
  static_assert(!reduces || (FloatingElement<T> && AdditiveReduction<reduction_type> && !compressed),
                "kv_store: hierarchy::reduce_scatter adds gradients of a floating-point type: it needs reduce::sum or "
                "reduce::mean, and no Compressor");
  static_assert(!reduces || !collective || ReducesSlices<communicator_type, D>,
                "kv_store: hierarchy::reduce_scatter needs a communicator with reduce_scatter, such as comm::nccl");
  static_assert(compressor_type::template takes<T>,
                "kv_store: this Compressor does not take gradients of the store's element type (two_bit and one_bit "
                "take float; cast takes what is wider than its own type; top_k takes float, half and bfloat16)");
  static_assert(!compressed || std::same_as<accumulation_type, float>,
                "kv_store: a Compressor needs a store that computes in float");
  using step_types =
      pass::element_types<encoded_type, accumulation_type, master_type, stored_state, T, stochastic, accumulates>;
  /// Of a pass that adds to the sums of micro-batches.
  using accumulation_types =
      pass::element_types<encoded_type, accumulation_type, accumulation_type, accumulation_type, T>;
};

}  // namespace pushpull::detail
