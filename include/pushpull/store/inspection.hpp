/// @file
/// States and step counts of a key, gathered from and handed to the owners of its slices.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <pushpull/concepts/factored.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/pass/factored_plan.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/backoff.hpp>
#include <pushpull/store/coded_parts.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/tensor/copy_bytes.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The names, a repeated one with its number behind a point.
template <class Names>
std::vector<std::string> numbered_names(Names const& names) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < names.size(); ++i) {
    auto const before = std::count(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(i), names[i]);
    result.push_back(std::string(names[i]) + (before > 0 ? "." + std::to_string(before + 1) : ""));
  }
  return result;
}

/// Updates of the key so far. Waits.
template <class Table, class Controls>
std::int64_t read_steps(Table const& table, Controls const& controls, typename Table::record const& r) {
  std::int64_t t = r.updates;  // all there is to know of a key without elements
  if constexpr (Table::collective)
    if (table.is_distributed() && r.size() > 0 &&
        !controls.empty())  // ranks without a part of the key count on device 0
      copy_bytes(cpu_device<>(), &t, table.devices().front(), &controls.front().clocks()[r.index].t, sizeof(t));
  for_each_shard(table, r, [&](auto const& shard) {
    copy_bytes(cpu_device<>(), &t, shard.device(), &controls[shard.device_number()].clocks()[r.index].t, sizeof(t));
  });
  return t;
}

/// Whether any step has updated the key. Waits if only launches of graphs may have, which the host does not see.
template <class Table, class Controls>
bool is_updated(Table const& table, Controls const& controls, typename Table::record const& r) {
  return r.updates > 0 || (r.captures != 0 && read_steps(table, controls, r) > 0);
}

/// Makes the key's next update number t + 1. Waits.
template <class Table, class Controls>
void write_steps(Table const& table, Controls const& controls, typename Table::record& r, std::int64_t t) {
  for (std::size_t n = 0; n < table.devices().size(); ++n)  // a device that holds no part of it counts nothing
    controls[n].set_steps(r.index, t,
                          [&](std::int64_t* to) { copy_bytes(table.devices()[n], to, cpu_device<>(), &t, sizeof(t)); });
  r.updates = t;
  r.history = static_cast<std::uint64_t>(t) * 0x9E3779B97F4A7C15U;  // keys set to one t may share a clock again
  // But not where graphs go on counting one of them, or have counted another since.
  if (r.captures != 0) r.captures = joined_history(r.captures, ~static_cast<std::uint64_t>(r.index));
}

/// The shape of state number `s` of the key: its own, or that of a list of rows or columns or of a matrix.
template <class Rule, class Record>
pushpull::shape state_shape(Record const& r, std::size_t s) {
  if constexpr (factor_state_count<Rule> != 0)
    if (s + 1 > state_count<Rule>) return pass::factor_shape<Rule>(r.shape, s - state_count<Rule>);
  return r.shape;
}

/// f(device, memory, first, size) for each local part of state number `s`: elements [first, first + size) of it lie there.
template <class Rule, class Table, class F>
void for_each_part_of_state(Table const& table, typename Table::record& r, std::size_t s, F const& f) {
  using S = typename Table::state_type;
  for_each_shard(table, r, [&](auto const& shard) {
    if constexpr (factor_state_count<Rule> != 0)
      if (s + 1 > state_count<Rule>) {
        auto const sizes = pass::factor_sizes<Rule>(r.shape);
        S* first = factor_states<Rule, S>(shard.device(), r);
        for (std::size_t k = 0; k < s - state_count<Rule>; ++k) first += sizes[k];
        return f(shard.device(), first, std::int64_t{0}, sizes[s - state_count<Rule>]);
      }
    f(shard.device(), shard.state(s), shard.offset(), shard.size());
  });
}

/// Copies the elements of state number `s` that this process holds to host memory. Waits.
/// @param to  Element number `begin` of the state.
template <class Rule, class Table>
void copy_local_state(Table const& table, typename Table::record& r, std::size_t s, typename Table::state_type* to,
                      std::int64_t begin = 0) {
  using S = typename Table::state_type;
  for_each_part_of_state<Rule>(
      table, r, s, [&](auto const& device, auto const& from, std::int64_t first, std::int64_t size) {
        if constexpr (CodedStates<typename Table::stored_state>) {
          read_coded_part<typename Table::stored_state, state_count<Rule>>(device, from, s, size, to + (first - begin));
        } else {
          copy_bytes(cpu_device<>(), to + (first - begin), device, static_cast<S const*>(from),
                     static_cast<std::size_t>(size) * sizeof(S));
        }
      });
}
/// The part of a sum of micro-batches that this process owns: the total of the sums of all ranks, in their order. All ranks
/// call it. Waits.
/// @param to  Its first element.
template <class Table>
void add_rank_sums(Table const& table, typename Table::record const& r, typename Table::accumulation_type* to) {
  using A = typename Table::accumulation_type;
  topology const& all = table.owners();
  slice const own = part_of_rank(table, r, all.rank());
  auto const count = static_cast<std::size_t>(std::max<std::int64_t>(own.size(), 0));
  A const* sum = r.arena->rank_sum(table.devices().front()) + r.offset;
  std::vector<A> on_host;
  if constexpr (!HostDevice<typename Table::device_type>) {
    on_host.resize(r.shape.size());
    copy_bytes(cpu_device<>(), on_host.data(), table.devices().front(), sum, on_host.size() * sizeof(A));
    sum = on_host.data();
  }
  std::vector<A> received(count * all.ranks());
  std::vector<A const*> sums;
  auto const call = table.ranks().make_host_messages();
  for (std::size_t rank = 0; rank < all.ranks(); ++rank) {
    sums.push_back(rank == all.rank() ? sum + own.begin : received.data() + rank * count);
    if (rank == all.rank()) continue;
    call->receive(received.data() + rank * count, count * sizeof(A), static_cast<int>(rank));
    slice const theirs = part_of_rank(table, r, rank);
    if (theirs.size() > 0)
      call->send(sum + theirs.begin, static_cast<std::size_t>(theirs.size()) * sizeof(A), static_cast<int>(rank));
  }
  call->start_exchange();
  wait_until_ready(*call);
  if (count == 0) return;
  std::vector<cpu_device<>> const host(1);
  fused_step<cpu_device<>, pass::forward, reduce::sum, pass::element_types<A, A, A, A, A>, pass::memory::foreign> step(
      1);
  typename decltype(step)::run_type run{};
  run.size = own.size();
  step.add(0, run, sums, std::span<A* const>(&to, 1));
  step.commit(host);
  step.run(host);
}

/// Same as copy_local_state, of the sum of the key's micro-batches, which has some. All ranks call it.
template <class Table>
void copy_local_sum(Table const& table, typename Table::record const& r, typename Table::accumulation_type* to,
                    std::int64_t begin = 0) {
  if constexpr (Table::collective)
    if (table.is_distributed()) {
      slice const own = part_of_rank(table, r, table.owners().rank());
      return add_rank_sums(table, r, own.size() > 0 ? to + (own.begin - begin) : to);
    }
  for_each_shard(table, r, [&](auto const& shard) {
    copy_bytes(cpu_device<>(), to + (shard.offset() - begin), shard.device(), shard.reduced(),
               static_cast<std::size_t>(shard.size()) * sizeof(*to));
  });
}

/// Where each rank holds a part of an array of the key's: elements from the other ranks. Waits. All ranks call it.
/// @param elements  If they are fewer or more than the key's, the rank that owns the key holds all of them.
template <class Table, class E>
void gather_parts([[maybe_unused]] Table const& table, [[maybe_unused]] typename Table::record const& r,
                  [[maybe_unused]] std::vector<E>& elements) {
  if constexpr (Table::collective) {
    if (!table.is_distributed() || elements.empty()) return;
    bool const by_element = elements.size() == r.shape.size();
    std::vector<comm::byte_range> ranges;
    for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
      slice part = part_of_rank(table, r, rank);
      if (!by_element && part.size() > 0) part = {0, static_cast<std::int64_t>(elements.size())};
      auto const bytes = [](std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(E); };
      ranges.push_back(part.size() > 0 ? comm::byte_range{bytes(part.begin), bytes(part.end)} : comm::byte_range{});
    }
    auto const call = table.ranks().make_host_messages();
    call->gather(elements.data(), ranges);
    call->start_gathers();
    wait_until_ready(*call);
  }
}

/// The elements of state number `s`. Waits.
template <class Rule, class Table>
auto read_state(Table const& table, typename Table::record& r, std::size_t s) {
  using S = typename Table::state_type;
  std::vector<S> elements(state_shape<Rule>(r, s).size());
  copy_local_state<Rule>(table, r, s, elements.data());
  gather_parts(table, r, elements);
  return elements;
}

/// Sets the elements of state number `s` that this process holds. Waits.
template <class Rule, class Table>
void write_state(Table const& table, typename Table::record& r, std::size_t s, saved_range const& from) {
  using S = typename Table::state_type;
  for_each_part_of_state<Rule>(
      table, r, s, [&](auto const& device, auto const& to, std::int64_t first, std::int64_t size) {
        if constexpr (CodedStates<typename Table::stored_state>) {
          write_coded_part<typename Table::stored_state, state_count<Rule>>(device, to, s, size,
                                                                            from.at(first, sizeof(S)));
        } else {
          copy_bytes(device, to, cpu_device<>(), from.at(first, sizeof(S)), static_cast<std::size_t>(size) * sizeof(S));
        }
      });
}
/// The memory that this takes. It may fail for lack of it.
template <class Rule, class Table>
void make_room_for_state(Table const& table, typename Table::record& r, std::size_t s) {
  for_each_part_of_state<Rule>(table, r, s, [](auto const&...) {});
}

/// The sum of the key's micro-batches, zero where there are none. Waits.
template <class Table>
auto read_sum(Table const& table, typename Table::record const& r) {
  using A = typename Table::accumulation_type;
  std::vector<A> elements(r.shape.size());
  if (r.accumulated()) copy_local_sum(table, r, elements.data());
  gather_parts(table, r, elements);
  return elements;
}

/// The memory that it takes. It may fail for lack of it.
template <class Table>
void make_room_for_sum(Table const& table, typename Table::record const& r) {
  if constexpr (Table::collective)
    if (table.is_distributed()) return void(r.arena->rank_sum(table.devices().front()));
  for_each_shard(table, r, [](auto const& shard) { shard.reduced(); });
}
/// Sets the elements of it that this process holds: of several ranks, rank 0 takes all, and the others' sums are zero. There
/// is room. Waits.
template <class Table>
void write_sum(Table const& table, typename Table::record const& r, saved_range const& from) {
  using A = typename Table::accumulation_type;
  if constexpr (Table::collective)
    if (table.is_distributed()) {
      auto const& device = table.devices().front();
      A* const sum = r.arena->rank_sum(device) + r.offset;
      std::size_t const bytes = r.shape.size() * sizeof(A);
      if (table.owners().rank() != 0) return device.fill_zero(sum, bytes);
      return copy_bytes(device, sum, cpu_device<>(), from.at(0, sizeof(A)), bytes);
    }
  for_each_shard(table, r, [&](auto const& shard) {
    copy_bytes(shard.device(), shard.reduced(), cpu_device<>(), from.at(shard.offset(), sizeof(A)),
               static_cast<std::size_t>(shard.size()) * sizeof(A));
  });
}

}  // namespace pushpull::detail
