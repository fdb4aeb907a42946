/// @file
/// A pull: one pass per device that reads stored values once and writes them to all outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// To outputs of element type U. @tparam Types  A kv_store_types. @tparam From  Of masters, or of mirrors.
template <class Types, class U, class From = typename Types::master_type>
using pull_step =
    fused_step<typename Types::device_type, pass::hold, reduce::sum,
               pass::element_types<typename Types::value_type,
                                   std::common_type_t<accumulation_t<U>, accumulation_t<From>>, From, From, U>,
               pass::memory::foreign>;

/// A pull into outputs of element type U. In a store of several ranks it reads this rank's mirrors, and takes part in no
/// call to other ranks; but where mirrors are rounded and outputs are not of their type, all ranks gather the masters.
template <class Types, class U>
class pull final : public gathered_operation<typename Types::device_type> {
  using D = typename Types::device_type;
  using W = typename Types::master_type;
  using record = typename Types::record;
  /// Whether outputs show no more than mirrors do.
  static constexpr bool reads_mirrors =
      std::is_same_v<U, typename Types::value_type> || std::is_same_v<W, typename Types::value_type>;

 public:
  gathered_call<typename Types::key_view, D, U> gathered;

  explicit pull(store_contents<Types>& contents)
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
    if constexpr (!reads_mirrors) contents_.write_collectives(*this);
    call_.for_each_key([&](auto& r) { this->reads(r.order); });
  }
  std::int64_t work() const override { return call_.work(); }

  void prepare() override {
    auto const& table = contents_.keys;
    call_.begin(table, effect::reads);
    if constexpr (Types::collective)
      if (table.is_distributed()) {
        if constexpr (reads_mirrors) {
          call_.lay_out_copies(table, mirror_step_, [](record const& r) { return table_type::mirror(r, 0); });
        } else {
          contents_.in_step([&] { lay_out_masters(); });
        }
        return;
      }
    call_.lay_out(table, step_, effect::reads);
  }
  progress run() override {
    if constexpr (Types::collective && !reads_mirrors)
      if (messages_ != nullptr && !std::exchange(is_gathered_, true)) {
        copy_all(contents_.devices(), copies_);
        contents_.in_step([&] { messages_->start_gathers(); });
        return progress::waiting_for(*messages_);
      }
    call_.launch(contents_.keys, effect::reads, [&] {
      if constexpr (Types::collective && reads_mirrors)
        if (contents_.keys.is_distributed()) return mirror_step_.run(contents_.devices());
      step_.run(contents_.devices());
    });
    return progress::done();
  }

 private:
  using table_type = typename Types::table_type;

  /// Gathers the masters of each key in memory of this operation's own, where the pass reads them.
  void lay_out_masters() {
    auto const& table = contents_.keys;
    if (messages_ == nullptr) messages_ = table.ranks().make_messages();
    messages_->clear();
    masters_.clear();
    copies_.clear();
    is_gathered_ = false;
    call_.lay_out_copies(table, step_, [&](record const& r) {
      auto const bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(W); };
      auto* const whole = static_cast<W*>(masters_.take(table.devices().front(), bytes(r.size())));
      for_each_shard(table, r, [&](auto const& shard) {
        copies_.push_back({shard.device_number(), whole + shard.offset(), shard.master(), bytes(shard.size())});
      });
      std::vector<comm::byte_range> ranges(table.owners().ranks());
      for (std::size_t rank = 0; rank < ranges.size(); ++rank) {
        slice const part = part_of_rank(table, r, rank);
        if (part.size() > 0) ranges[rank] = {bytes(part.begin), bytes(part.end)};
      }
      messages_->gather(whole, ranges);
      return whole;
    });
  }

  struct no_step {
    explicit no_step(std::size_t) {}
  };

  store_contents<Types>& contents_;
  laid_out_call<table_type, D, typename Types::value_type, U> call_;
  pull_step<Types, U> step_;
  [[no_unique_address]] std::conditional_t<Types::collective && reads_mirrors,
                                           pull_step<Types, U, typename Types::value_type>, no_step> mirror_step_;
  std::unique_ptr<messages> messages_;  // those of masters that are gathered
  staging<D> masters_{contents_.keys.staged().front()};
  std::vector<staged_copy> copies_;
  bool is_gathered_ = false;
};

}  // namespace pushpull::detail
