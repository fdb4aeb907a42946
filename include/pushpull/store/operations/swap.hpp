/// @file
/// The exchange of stored weights with a state of the rule.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/heap_sort.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/inspection.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The rule of a swap: the weight becomes the state and the state the weight.
struct exchange {
  static constexpr auto state_names = states("exchanged");
  static constexpr bool timeless = true;
  static constexpr bool reads_gradient = false;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class S, class V>
  PUSHPULL_DEVICE_INLINE void operator()(S const&, V& w, V const&, V& state) const noexcept {
    V const weight = w;
    w = state;
    state = weight;
  }
};

/// @throws duplicate_key if a key stands twice in a call that takes each once
template <class Record>
void expect_different(char const* call, std::vector<Record*> keys) {
  heap_sort(keys, [](auto const* a, auto const* b) { return a->index < b->index; });
  auto const twice = std::adjacent_find(keys.begin(), keys.end());
  expects<duplicate_key>(twice == keys.end(), [&] {
    return std::string(call) + ": " + key_text((*twice)->key) + " stands twice in one call";
  });
}

/// Exchanges masters and a state of different keys, and notes which of the two is where: one pass per device. Resident
/// mirrors follow.
template <class Types>
class swap final : public operation {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using record = typename Types::record;
  using rule_type = typename Types::rule_type;
  static_assert(std::is_same_v<typename Types::master_type, typename Types::state_type>,
                "swap: masters and states have different element types, so that one of the two would be rounded");

 public:
  /// @param state  Number of the state. @param name  Its name, which keys note by its address.
  /// @throws duplicate_key if a key stands twice
  swap(store_contents<Types>& contents, std::vector<record*> keys, std::size_t state, std::string const& name)
      : contents_(contents), keys_(std::move(keys)), state_(state), name_(name), step_(contents.devices().size()) {
    expect_different("swap", keys_);
    if constexpr (Types::coded)
      expects<invalid_argument>(!Types::stored_state::is_code(state), [&] {
        return "swap: the state \"" + name + "\" is stored as codes, which weights would be rounded to";
      });
    contents.expect_in_step("swap");
    contents.write_collectives(*this);
    for (record* const r : keys_) writes(r->order);
  }

  char const* name() const override { return "swap"; }
  void list_keys(profile::detail::key_list& list) const override {
    for (record const* const r : keys_) list.add(typename Types::key_view(r->key));
  }

  void prepare() override {
    for (record* const r : keys_)
      if (r->swapped != &name_) expect_weights("swap", typename Types::key_view(r->key), *r);
    auto const& table = contents_.keys;
    std::vector<T*> mirrors;
    for (record const* const r : keys_) {
      if (!has_state(*r)) continue;
      for_each_shard(table, *r, [&](auto const& shard) {
        mirrors.clear();
        if (shard.resident()) {
          table.add_mirrors(mirrors, shard);
          table.add_mirror_copies(copies_, shard);
        }
        step_.add(shard.device_number(), shard.template swap_run<typename step_type::run_type>(state_), {}, mirrors);
      });
    }
    step_.commit(table.devices());
    if constexpr (Types::collective)
      if (table.is_distributed()) lay_out_mirrors();
  }
  progress run() override {
    if constexpr (Types::collective)
      if (messages_ != nullptr && part_++ == 0) {
        contents_.in_step([&] { messages_->start_exchange(); });  // of nothing: all ranks are in the operation
        return progress::waiting_for(*messages_);
      }
    if (part_ < 3) {
      step_.run(contents_.devices());
      copy_behind(contents_.devices(), copies_);
    }
    if constexpr (Types::collective)
      if (messages_ != nullptr)
        if (auto* const event = contents_.in_step([&] { return mirrors_.advance(contents_.keys, *messages_); }))
          return progress::waiting_for(*event);
    for (record* const r : keys_)
      std::atomic_ref(r->swapped).store(r->swapped == nullptr ? &name_ : nullptr, std::memory_order_release);
    return progress::done();
  }

 private:
  using W = typename Types::master_type;
  using step_type = fused_step<D, exchange, reduce::sum,
                               pass::element_types<T, typename Types::accumulation_type, W, typename Types::state_type,
                                                   T, Types::stochastic, Types::accumulates>,
                               pass::memory::foreign>;

  /// A key without updates has no state yet; the host does not know of steps that were skipped.
  bool has_state(record const& r) const {
    return MaySkip<rule_type> ? read_steps(contents_.keys, contents_.controls, r) > 0
                              : is_updated(contents_.keys, contents_.controls, r);
  }
  /// The other ranks' parts of the mirrors.
  void lay_out_mirrors() {
    auto const& table = contents_.keys;
    messages_ = table.ranks().make_messages();
    for (record const* const r : keys_) mirrors_.add(table, *r, *messages_);
    mirrors_.flush(table, *messages_);
  }
  void recycle() noexcept override {}

  struct nothing {};

  store_contents<Types>& contents_;
  std::vector<record*> keys_;
  std::size_t state_;
  std::string const& name_;
  step_type step_;
  std::vector<staged_copy> copies_;
  std::unique_ptr<messages> messages_;  // where there are several ranks
  [[no_unique_address]] std::conditional_t<Types::collective, mirror_exchange<typename Types::table_type>, nothing>
      mirrors_;
  int part_ = 0;  // of several ranks' operation: that runs next
};

}  // namespace pushpull::detail
