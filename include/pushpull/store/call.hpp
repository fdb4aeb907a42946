/// @file
/// One call on a store: the keys it names, the tensors it brings, and the runs that they become.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/key_table.hpp>
#include <pushpull/store/operands.hpp>

namespace pushpull::detail {

/// Gathers keys and tensors, checks them, and only then lays out runs. Kept from call to call: in the steady state nothing
/// is allocated.
/// @tparam Table  The store's key_table.
/// @tparam G, M   Element types of sources and outputs.
template <class Table, Device D, class G, class M>
class call {
 public:
  using record = typename Table::record;
  using key_view = typename Table::key_view;

  explicit call(std::size_t devices) : staging_(devices) {}

  void clear() {
    ++number_;
    items_.clear();
    sources_.clear();
    outputs_.clear();
    copies_.clear();
    for (auto& memory : staging_) memory.clear();
  }

  /// Names a key; its tensors follow. @throws unknown_key; duplicate_key if the call has named it before
  void add_key(Table const& table, char const* name, key_view key, bool once) {
    record& r = table.find(name, key);
    expects<duplicate_key>(!once || std::exchange(r.call, number_) != number_, [&] {
      return std::string(name) + ": " + key_text(key) + " stands twice in one call";
    });
    items_.push_back({&r, sources_.size(), 0, outputs_.size(), 0});
  }

  /// A source of the key named last. @throws shape_mismatch
  template <class View>
  void add_source(char const* name, key_view key, View const& view) {
    Table::expect_shape(name, key, items_.back().key->shape, view.shape());
    sources_.push_back(operand_of<G const, D>(view));
    ++items_.back().sources;
  }

  /// An output of the key named last. @throws shape_mismatch
  template <class View>
  void add_output(char const* name, key_view key, View const& view) {
    Table::expect_shape(name, key, items_.back().key->shape, view.shape());
    outputs_.push_back(operand_of<M, D>(view));
    ++items_.back().outputs;
  }

  /// @throws invalid_argument if the key named last came with no source
  void expect_source(char const* name, key_view key) const {
    expects<invalid_argument>(items_.back().sources > 0, [&] {
      return std::string(name) + ": " + key_text(key) + " came with no gradient";
    });
  }

  /// Lays the call out in `step`, runs it by `run()`, and counts an update of each key if `counts`.
  template <class Step, class Run>
  void execute(Table const& table, Step& step, bool counts, Run const& run) {
    step.clear();
    order_after(table.devices(), sources_);
    order_after(table.devices(), outputs_);
    bool const several = std::any_of(items_.begin(), items_.end(), [](item const& x) { return x.sources > 1; });
    for (item const& x : items_)
      for (std::size_t n = 0; n < table.devices().size(); ++n) add_run(table, step, x, n, counts, several);
    step.commit(table.devices());
    run();
    for (auto const& [n, to, from, bytes] : copies_) table.devices()[n].copy(to, from, bytes);
    order_before(table.devices(), sources_);
    order_before(table.devices(), outputs_);
    if (counts)
      for (item const& x : items_) ++x.key->updates;
  }

 private:
  struct item {
    record* key;
    std::size_t source, sources, output, outputs;
  };
  struct copy_back {
    std::size_t device;
    void* to;
    void const* from;
    std::size_t bytes;
  };

  /// The part of an item that device number n owns. Resident mirrors follow every change of their key.
  template <class Step>
  void add_run(Table const& table, Step& step, item const& x, std::size_t n, bool changes, bool several) {
    record const& r = *x.key;
    slice const part = r.part(n);
    if (part.size() <= 0) return;
    D const& device = table.devices()[n];
    std::int64_t const skipped = part.begin - r.offset;
    std::int64_t const local = part.begin - r.group->part(n).begin;
    gradients_.clear();
    mirrors_.clear();
    for (std::size_t k = x.source; k < x.source + x.sources; ++k)
      gradients_.push_back(readable(device, n, sources_[k], skipped, part.size()));
    for (std::size_t k = x.output; k < x.output + x.outputs; ++k)
      mirrors_.push_back(writable(device, n, outputs_[k], skipped, part.size()));
    if constexpr (std::is_same_v<M, typename Table::T>)
      if (changes && r.group->resident()) table.add_mirrors(mirrors_, *r.group, n, part.begin);
    typename Step::run_type run{};
    run.size = part.size();
    run.leaf_phase = part.begin % pass::leaf_size;
    run.clock = r.clock;
    run.master = r.group->master(n) + local;
    for (std::size_t s = 0; s != Step::states; ++s) run.state[s] = r.group->state(n, s) + local;
    if constexpr (Step::two_phases) run.reduced = several ? r.group->reduced(device, n) + local : nullptr;
    step.add(n, run, gradients_, mirrors_);
    step.add_clock(n, r.clock, true);
  }

  /// Memory with `size` elements of the operand, from element `first` on, that device number n can read.
  G const* readable(D const& device, std::size_t n, operand<G const, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(G);
    void* const staged = staging_[n].take(device, bytes);
    device.copy(staged, x.data + first, bytes);
    return static_cast<G const*>(staged);
  }

  /// Likewise memory that it can write; what lands there is copied on after the pass.
  M* writable(D const& device, std::size_t n, operand<M, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(M);
    void* const staged = staging_[n].take(device, bytes);
    copies_.push_back({n, x.data + first, staged, bytes});
    return static_cast<M*>(staged);
  }

  /// The store's devices run after what the operands' devices were given.
  template <class U>
  static void order_after(std::vector<D> const& devices, std::vector<operand<U, D>> const& operands) {
    for (auto const& x : operands)
      if (x.device)
        for (D const& device : devices)
          if (!(device == *x.device)) device.wait_for(*x.device);
  }
  template <class U>
  static void order_before(std::vector<D> const& devices, std::vector<operand<U, D>> const& operands) {
    for (auto const& x : operands)
      if (x.device)
        for (D const& device : devices)
          if (!(device == *x.device)) x.device->wait_for(device);
  }

  std::vector<item> items_;
  std::vector<operand<G const, D>> sources_;
  std::vector<operand<M, D>> outputs_;
  std::vector<copy_back> copies_;
  std::vector<staging<D>> staging_;
  std::vector<G const*> gradients_;
  std::vector<M*> mirrors_;
  std::uint64_t number_ = 0;
};

}  // namespace pushpull::detail
