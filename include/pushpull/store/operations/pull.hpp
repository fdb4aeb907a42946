/// @file
/// A pull: one pass per device that reads stored values once and writes them to all outputs.
#pragma once

#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <type_traits>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/capture.hpp>
#include <pushpull/store/exchange/gathered_outputs.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keyed_state.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// To outputs of element type U. @tparam Table  The store's key_table. @tparam From  Of masters, or of mirrors.
template <class Table, class U, class From = typename Table::W>
using pull_step = fused_step<
    typename Table::device_type, pass::hold, reduce::sum,
    pass::element_types<typename Table::T, std::common_type_t<accumulation_t<U>, accumulation_t<From>>, From, From, U>,
    pass::memory::foreign>;

/// A pull into outputs of element type U. In a store of several ranks it reads this rank's mirrors, and takes part in no
/// call to other ranks. Of keys without mirrors, or where mirrors are rounded and outputs are not of their type, owners write
/// their parts of the outputs, which all ranks gather.
template <class Table, class U>
class pull final : public gathered_operation<typename Table::device_type> {
  using D = typename Table::device_type;
  using T = typename Table::T;
  using W = typename Table::W;
  using record = typename Table::record;
  /// Whether outputs show no more than mirrors do.
  static constexpr bool reads_mirrors = std::is_same_v<U, T> || std::is_same_v<W, T>;

 public:
  gathered_call<typename Table::key_view, D, U> gathered;

  explicit pull(keyed_state<Table>& contents)
      : gathered_operation<D>(contents.devices()),
        contents_(contents),
        call_(contents.keys),
        step_(contents.devices().size()),
        mirror_step_(contents.devices().size()) {}

  void find_keys() override {
    {
      std::shared_lock const lock(contents_.mutex.mutex);
      call_.take(contents_.keys, gathered);
    }
    contents_.expect_in_step(gathered.caller());
    gathers_ = false;
    call_.for_each_key([&](auto& r) {
      this->reads(r.order);
      gathers_ = gathers_ || !reads_mirror(r);
    });
    if (gathers_) contents_.write_collectives(*this);
  }
  std::int64_t work() const override { return call_.work(); }
  char const* name() const override { return gathered.caller(); }
  void list_keys(profile::detail::key_list& list) const override {
    call_.for_each_key([&](record const& r) { list.add(typename Table::key_view(r.key)); });
  }

  void prepare() override {
    if (this->is_captured()) call_.capture();
    lay_out_aside(this->is_captured(), contents_.devices(), [&] { lay_out(); });
  }
  progress run() override {
    bool const is_distributed = contents_.keys.is_distributed();
    if constexpr (Table::collective)
      if (std::exchange(is_gathering_, false)) {
        outputs_.finish(contents_.keys);
        return progress::done();
      }
    call_.launch(contents_.keys, effect::reads, [&] {
      if constexpr (Table::collective && reads_mirrors)
        if (is_distributed) mirror_step_.run(contents_.devices());
      if (!is_distributed || gathers_) step_.run(contents_.devices());
    });
    if constexpr (Table::collective)
      if (is_distributed && gathers_) {
        contents_.in_step([&] { messages_->start_gathers(); });
        is_gathering_ = true;
        return progress::waiting_for(*messages_);
      }
    return progress::done();
  }

 private:
  static bool reads_mirror(record const& r) { return reads_mirrors && r.arena->resident(); }

  void lay_out() {
    auto const& table = contents_.keys;
    call_.begin(table, effect::reads);
    is_gathering_ = false;
    if constexpr (Table::collective)
      if (table.is_distributed()) {
        if constexpr (reads_mirrors) {
          call_.choose(reads_mirror);
          call_.lay_out_copies(table, mirror_step_, [](record const& r) { return Table::mirror(r, 0); });
          call_.choose([](record const& r) { return !reads_mirror(r); });
        }
        if (gathers_) contents_.in_step([&] { lay_out_gather(); });
        return;
      }
    call_.lay_out(table, step_, effect::reads);
  }
  /// The keys that are chosen: owners write their parts of the outputs.
  void lay_out_gather() {
    auto const& table = contents_.keys;
    if (messages_ == nullptr) messages_ = table.ranks().make_messages();
    messages_->clear();
    outputs_.clear();
    record const* key = nullptr;
    call_.for_each_key_and_output([&](record const& r) { key = &r; },
                                  [&](operand<U, D>& output) { outputs_.add(table, *key, output, *messages_); });
    call_.lay_out(table, step_, effect::reads);
  }

  struct no_step {
    explicit no_step(std::size_t) {}
  };

  keyed_state<Table>& contents_;
  laid_out_call<Table, D, T, U> call_;
  pull_step<Table, U> step_;
  // Not [[no_unique_address]]: nvcc 13 fails with an internal error where such a member has one.
  std::conditional_t<Table::collective && reads_mirrors, pull_step<Table, U, T>, no_step> mirror_step_;
  struct no_outputs {};
  [[no_unique_address]] std::conditional_t<Table::collective, gathered_outputs<Table>, no_outputs> outputs_;
  std::unique_ptr<messages> messages_;  // of outputs that are gathered
  bool gathers_ = false;                // in a store of several ranks
  bool is_gathering_ = false;
};

}  // namespace pushpull::detail
