/// @file
/// An assignment: stored values are replaced by tensors of any element type.
#pragma once

#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/keyed_state.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/operations/swap.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Gives keys the values, of element type U, that are their only sources. All keys of the call or none. In a store of
/// several ranks the values of rank 0 count.
/// @tparam Table  The store's key_table.
template <class Table, class U>
class assign final : public gathered_operation<typename Table::device_type> {
  using D = typename Table::device_type;
  using T = typename Table::T;
  using W = typename Table::W;
  using record = typename Table::record;

 public:
  /// What resets the states of a key's rule, which is unknown here; null: they stay.
  using reset = void (*)(keyed_state<Table>& contents, record& r);

  gathered_call<typename Table::key_view, D, U> gathered;

  assign(keyed_state<Table>& contents, reset states)
      : gathered_operation<D>(contents.devices()),
        contents_(contents),
        reset_(states),
        call_(contents.keys),
        step_(contents.devices().size()) {}

  /// @throws also duplicate_key if a key stands twice
  void find_keys() override {
    {
      std::shared_lock const lock(contents_.mutex.mutex);
      call_.take(contents_.keys, gathered);
    }
    contents_.expect_in_step("assign");
    call_.take_ranks(contents_.keys, sources_of::rank_0);
    contents_.write_collectives(*this);
    std::vector<record*> keys;
    call_.for_each_key([&](record& r) { keys.push_back(&r); });
    expect_different("assign", keys);
    for (record* const r : keys) this->writes(r->order);
  }
  std::int64_t work() const override { return call_.work(); }
  char const* name() const override { return gathered.caller(); }
  void list_keys(profile::detail::key_list& list) const override {
    call_.for_each_key([&](record const& r) { list.add(typename Table::key_view(r.key)); });
  }

  void prepare() override {
    call_.for_each_key([](record& r) { expect_weights("assign", typename Table::key_view(r.key), r); });
    if (reset_ != nullptr)
      contents_.captured.expect_whole_runs("assign", [&](auto const& f) { call_.for_each_key(f); });
    contents_.in_step([&] {
      call_.begin(contents_.keys, effect::assigns);
      call_.lay_out(contents_.keys, step_, effect::assigns);
    });
  }
  progress run() override {
    awaited* const event = contents_.in_step([&] {
      return call_.launch_part(contents_.keys, effect::assigns, [&]() -> std::optional<std::span<double>> {
        step_.run(contents_.devices());
        return std::nullopt;
      });
    });
    if (event != nullptr) return progress::waiting_for(*event);
    if (reset_ != nullptr) {
      call_.for_each_key([&](record& r) { reset_(contents_, r); });
      join(contents_.devices());
    }
    return progress::done();
  }

 private:
  keyed_state<Table>& contents_;
  reset reset_;
  laid_out_call<Table, D, U, T> call_;
  fused_step<D, pass::assign, reduce::sum,
             pass::element_types<U, std::common_type_t<accumulation_t<U>, accumulation_t<W>>, W, W, T>,
             pass::memory::foreign>
      step_;
};

}  // namespace pushpull::detail
