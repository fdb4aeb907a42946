/// @file
/// One call on a store: the keys it names, the tensors it brings, and the runs that they become.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/compress/encode.hpp>
#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/keys/key_table.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// What a pass does to the keys of a call.
enum class effect {
  reads,        ///< Outputs are written.
  updates,      ///< Weights change: an update is counted, and resident mirrors follow.
  assigns,      ///< Likewise, without an update.
  accumulates,  ///< The sum of a key's micro-batches changes, and nothing else.
};

/// Gathers keys and tensors, checks them, and only then lays out runs. Kept from call to call: in the steady state
/// nothing is allocated.
/// @tparam Table  The store's key_table.
/// @tparam G, M   Element types of sources and outputs.
/// @tparam C      What sources become on their way to the pass.
template <class Table, Device D, class G, class M, class C = compress::none>
class call {
  using encoded = typename C::template encoded_type<G>;
  static constexpr bool compressed = !std::is_same_v<encoded, G>;
  using encoder = compress::encoder<C, G, D>;

 public:
  using record = typename Table::record;
  using key_view = typename Table::key_view;

  explicit call(std::size_t devices, C const& compressor = {}) : compressor_(compressor), staging_(devices) {}

  C const& compressor() const { return compressor_; }

  /// Steps may be left out: residuals will then be what they were before their first micro-batch.
  void remember_residuals(bool always) { remembers_ = always; }

  void clear() {
    items_.clear();
    sources_.clear();
    outputs_.clear();
    copies_in_.clear();
    copies_out_.clear();
    work_ = 0;
    for (auto& memory : staging_) memory.clear();
  }

  /// Names a key; its tensors follow. A key that is named again gets further tensors. @throws unknown_key
  void add_key(Table const& table, char const* name, key_view key) {
    items_.push_back({&table.find(name, key), sources_.size(), 0, outputs_.size(), 0});
    work_ += items_.back().key->size();
  }

  /// Likewise a key that was found before.
  void add_key(record& key) { items_.push_back({&key, sources_.size(), 0, outputs_.size(), 0}); }

  /// A source of the key named last. @throws shape_mismatch
  template <class View>
  void add_source(char const* name, key_view key, View const& view) {
    add_source(name, key, operand_of<G const, D>(view), view.shape());
  }
  void add_source(char const* name, key_view key, operand<G const, D> const& source, pushpull::shape const& shape) {
    expect_shape(name, key, items_.back().key->shape, shape);
    add_source(source);
    work_ += items_.back().key->size();
  }

  /// An output of the key named last. @throws shape_mismatch
  template <class View>
  void add_output(char const* name, key_view key, View const& view) {
    add_output(name, key, operand_of<M, D>(view), view.shape());
  }
  void add_output(char const* name, key_view key, operand<M, D> const& output, pushpull::shape const& shape) {
    expect_shape(name, key, items_.back().key->shape, shape);
    add_output(output);
    work_ += items_.back().key->size();
  }

  /// Likewise one whose shape is known to be right.
  void add_source(operand<G const, D> const& source) {
    sources_.push_back(source);
    ++items_.back().sources;
  }

  /// An output that another call gathered.
  void add_output(operand<M, D> const& output) {
    outputs_.push_back(output);
    ++items_.back().outputs;
  }

  /// Elements to read and to write, roughly.
  std::int64_t work() const { return work_; }

  /// Calls f(record) for each key; for one that was named several times perhaps as often.
  template <class F>
  void for_each_key(F const& f) const {
    for (item const& x : items_) f(*x.key);
  }

  /// Calls f(record) once for each key that was not left out.
  template <class F>
  void for_each_distinct_key(F const& f) const {
    any_key([&](std::span<item const> same) {
      f(*same.front().key);
      return false;
    });
  }

  /// @throws invalid_argument if the key named last came with no source, or has another tensor in the place of its weights
  void expect_source(char const* name, key_view key) const {
    expects<invalid_argument>(items_.back().sources > 0,
                              [&] { return std::string(name) + ": " + key_text(key) + " came with no gradient"; });
    expect_weights(name, key, *items_.back().key);
  }

  /// Leaves keys for which `chosen(record)` is false out of what follows until the next choice. @returns whether any remains
  template <class Chosen>
  bool choose(Chosen const& chosen) {
    bool any = false;
    for (item& x : items_) any = !(x.left_out = !chosen(*x.key)) || any;
    return any;
  }

  /// Before `lay_out`: forgets earlier ones. The keys that are chosen are those of which sources are encoded.
  /// @param may_fail  Whether `launch` may throw. Residuals then become what they were.
  void begin(Table const& table, effect what, [[maybe_unused]] bool may_fail = false) {
    copies_in_.clear();
    copies_out_.clear();
    sort();
    if constexpr (compressed)
      if (what != effect::reads) reserve_codes(table, may_fail);
    order_after(table.devices(), sources_);
    order_after(table.devices(), outputs_);
  }

  /// Lays the keys that are chosen out in `step`, which `launch` runs: several steps share a launch. Takes all memory that
  /// they need, and changes nothing else.
  template <class Step>
  void lay_out(Table const& table, Step& step, effect what) {
    step.clear();
    bool const several = Step::always_reduced || any_key([](std::span<item const> same) {
                           return same.size() > 1 || same.front().sources > 1 || same.front().key->accumulated();
                         });
    any_key([&](std::span<item const> same) {
      for_each_shard(table, *same.front().key,
                     [&](auto const& shard) { add_run(table, step, same, shard, what, several); });
      return false;
    });
    step.commit(table.devices());
  }

  /// Runs what was laid out by `run()`. Updates are those of the keys that are chosen.
  template <class Run>
  void launch(Table const& table, effect what, Run const& run) {
    // Nothing allocates: what encoding takes from a residual must reach the pass.
    if constexpr (compressed)
      if (what != effect::reads) encode(table.devices());
    copy_all(table.devices(), copies_in_);
    if constexpr (compressed) {
      try {
        run();
      } catch (...) {
        put_residuals_back();
        throw;
      }
    } else {
      run();
    }
    copy_behind(table.devices(), copies_out_);
    order_before(table.devices(), sources_);
    order_before(table.devices(), outputs_);
    if (what == effect::updates)
      table.count([&](auto const& f) {
        any_key([&](std::span<item const> same) {
          f(*same.front().key);
          return false;
        });
      });
  }

  /// After the run of a step of the keys that are chosen: if the devices leave it out, residuals become what they were
  /// before its first micro-batch. The host does not wait to know.
  template <class Step>
  void return_residuals([[maybe_unused]] std::vector<D> const& devices, [[maybe_unused]] Step const& step) {
    if constexpr (compressed && Step::may_skip) {
      if (step.skipped(0) == nullptr) return;
      order_before(devices, codes_);
      any_key([&](std::span<item const> same) {
        std::size_t sources = 0;
        for (item const& x : same) sources += x.sources;
        for (std::size_t k = 0; k < sources; ++k) {
          auto const& source = same.front().key->compressed[k];
          std::size_t n = 0;
          for (std::size_t m = devices.size(); m-- > 0;)
            if (devices[m] == source.device) n = m;
          source.return_if(step.skipped(n), devices[n]);
        }
        return false;
      });
      order_after(devices, codes_);
    }
  }

  /// Lays the call out in `step`, and runs it by `run()`.
  template <class Step, class Run>
  void execute(Table const& table, Step& step, effect what, Run const& run) {
    begin(table, what, Step::may_fail);
    lay_out(table, step, what);
    launch(table, what, run);
  }

  /// Reduces the sources of each key into memory on device number 0, which `target(record)` gives; touches no key. What
  /// encoding takes from residuals `put_residuals_back` returns.
  template <class Step, class Target>
  void reduce(Table const& table, Step& step, Target const& target) {
    step.clear();
    sort();
    kept_ = 0;
    if constexpr (compressed) reserve_codes(table, true);
    order_after(table.devices(), sources_);
    D const& device = table.devices().front();
    any_key([&](std::span<item const> same) {
      record& r = *same.front().key;
      if (r.size() == 0) return false;
      auto run = whole_key_run<typename Step::run_type>(r, target(r));
      if constexpr (Code<encoded>) run.unit = compressor_.unit();
      gradients_.clear();
      for (item const& x : same) add_gradients(device, 0, x, 0, run.size);
      step.add(0, run, gradients_, {});
      return false;
    });
    step.commit(table.devices());
    if constexpr (compressed) encode(table.devices());
    copy_all(table.devices(), copies_in_);
    step.run(table.devices());
    copies_in_.clear();
    order_before(table.devices(), sources_);
  }

  /// Residuals become what they were before the present push, where they were kept.
  void put_residuals_back() {
    for (std::size_t i = 0; i < kept_; ++i) encodings_[i].key->compressed[encodings_[i].number].put_back();
    kept_ = 0;
  }

  /// After `reduce`: calls f(record) for each key once, in the order of their registration, and g(output) for each of its
  /// outputs.
  template <class F, class G2>
  void for_each_key_and_output(F const& f, G2 const& g) const {
    any_key([&](std::span<item const> same) {
      f(*same.front().key);
      for (item const& x : same)
        for (std::size_t k = x.output; k < x.output + x.outputs; ++k) g(outputs_[k]);
      return false;
    });
  }

 private:
  struct item {
    record* key;
    std::size_t source, sources, output, outputs;
    std::size_t position = 0;
    bool left_out = false;
  };
  struct encoding {
    record* key;
    std::size_t number, source;
    void* staged;
  };

  /// Keys in the order in which they were registered, each key's tensors in the order of the call: sums over several
  /// keys do not depend on the caller's order.
  void sort() {
    auto const before = [](item const& a, item const& b) {
      return a.key->index != b.key->index ? a.key->index < b.key->index : a.position < b.position;
    };
    for (std::size_t i = 0; i < items_.size(); ++i) items_[i].position = i;
    if (!std::is_sorted(items_.begin(), items_.end(), before)) std::sort(items_.begin(), items_.end(), before);
  }

  /// Calls f(items of one key) for each key until one returns true.
  template <class F>
  bool any_key(F const& f) const {
    for (std::size_t first = 0; first < items_.size();) {
      std::size_t last = first + 1;
      while (last < items_.size() && items_[last].key == items_[first].key) ++last;
      if (!items_[first].left_out && f(std::span(items_).subspan(first, last - first))) return true;
      first = last;
    }
    return false;
  }

  /// Memory for the residuals and codes of all sources, and for gradients that their encoder cannot reach.
  /// @param keeps  Residuals as they are will be kept until the push has not failed.
  void reserve_codes(Table const& table, bool keeps) {
    keeps_residuals_ = keeps;
    kept_ = 0;
    codes_.clear();
    codes_.resize(sources_.size());
    encodings_.clear();
    any_key([&](std::span<item const> same) {
      record& r = *same.front().key;
      std::size_t number = 0;
      for (item const& x : same)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k, ++number) {
          D const& device = sources_[k].device ? *sources_[k].device : table.devices().front();
          if (number == r.compressed.size()) {
            r.compressed.emplace_back(std::type_identity<encoder>{}, device, compressor_, r.size());
          } else {
            r.compressed[number].move_to(device);
          }
          if (keeps) r.compressed[number].reserve_kept();
          if (remembers_) r.compressed[number].reserve_before();
          codes_[k] = {static_cast<char const*>(r.compressed[number].codes.data()), device, 0};
          encodings_.push_back({&r, number, k, nullptr});
          if (!reaches(device, sources_[k]))
            encodings_.back().staged = staging_[0].take(device, static_cast<std::size_t>(r.size()) * sizeof(G));
        }
      return false;
    });
  }

  /// Turns sources into codes. The store's devices run after it.
  void encode(std::vector<D> const& devices) {
    for (auto const& [key, number, k, staged] : encodings_) {
      auto const& source = key->compressed[number];
      if (remembers_ && !key->accumulated()) source.remember();
      if (keeps_residuals_) {
        source.keep();
        ++kept_;
      }
      G const* gradient = sources_[k].data;
      if (staged != nullptr) {
        source.device.copy(staged, gradient, static_cast<std::size_t>(key->size()) * sizeof(G));
        gradient = static_cast<G const*>(staged);
      }
      encoder::encode(source.device, compressor_, gradient, key->size(), source.residual.data(), source.codes.data());
    }
    order_after(devices, codes_);
  }

  /// What an owner holds of a key. Resident mirrors follow every change of their key.
  template <class Step, class Shard>
  void add_run(Table const& table, Step& step, std::span<item const> same, Shard const& shard, effect what,
               bool several) {
    using run_type = typename Step::run_type;
    record& r = *same.front().key;
    std::size_t const n = shard.device_number();
    gradients_.clear();
    mirrors_.clear();
    for (item const& x : same) {
      if (what != effect::reads) add_gradients(shard.device(), n, x, shard.offset(), shard.size());
      for (std::size_t k = x.output; what != effect::accumulates && k < x.output + x.outputs; ++k)
        mirrors_.push_back(writable(shard.device(), n, outputs_[k], shard.offset(), shard.size()));
    }
    if constexpr (std::is_same_v<M, typename Table::T>)
      if ((what == effect::updates || what == effect::assigns) && shard.resident()) {
        table.add_mirrors(mirrors_, shard);
        table.add_mirror_copies(copies_out_, shard);
      }
    run_type run;
    if constexpr (Step::accumulates_only) {
      run = shard.template sum_run<run_type>();
    } else {
      run = shard.template run<run_type>();
    }
    if constexpr (Code<encoded>) run.unit = compressor_.unit();
    if constexpr (Step::two_phases || Step::reads_accumulated)
      if (Step::two_phases ? several : r.accumulated()) run.reduced = shard.reduced();
    run.accumulated = r.accumulated();
    std::span<typename run_type::source_type const> sources;
    if constexpr (std::is_same_v<typename run_type::source_type, source_of<encoded>>) sources = gradients_;
    step.add(n, run, sources, mirrors_);
    if constexpr (Step::is_factored)
      step.add_matrices(n, run, sources, r.shape,
                        factor_states<typename Step::rule_type, typename Table::state_type>(shard.device(), r));
    step.add_clock(n, run.clock, true);
  }

  /// What device number n reads of an item's sources: `size` elements from number `first` on.
  void add_gradients(D const& device, std::size_t n, item const& x, std::int64_t first, std::int64_t size) {
    for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
      if constexpr (compressed) {
        auto const at_owner = [&](void const* p, std::size_t bytes) -> void const* {
          operand<char const, D> const piece{static_cast<char const*>(p), codes_[k].device, bytes};
          return readable(device, n, piece, 0, static_cast<std::int64_t>(bytes));
        };
        gradients_.push_back(encoder::source(compressor_, codes_[k].data, x.key->size(), first, size, at_owner));
      } else {
        gradients_.push_back(readable(device, n, sources_[k], first, size));
      }
    }
  }

  /// Memory with `size` elements of the operand, from element `first` on, that device number n can read.
  template <class U>
  U* readable(D const& device, std::size_t n, operand<U, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(U);
    void* const staged = staging_[n].take(device, bytes);
    copies_in_.push_back({n, staged, x.data + first, bytes});
    return static_cast<U*>(staged);
  }

  /// Likewise memory that it can write; what lands there is copied on after the pass.
  M* writable(D const& device, std::size_t n, operand<M, D> const& x, std::int64_t first, std::int64_t size) {
    if (reaches(device, x)) return x.data + first;
    std::size_t const bytes = static_cast<std::size_t>(size) * sizeof(M);
    void* const staged = staging_[n].take(device, bytes);
    copies_out_.push_back({n, x.data + first, staged, bytes});
    return static_cast<M*>(staged);
  }

  /// The store's devices run after what the operands' devices were given.
  template <class U>
  static void order_after([[maybe_unused]] std::vector<D> const& devices,
                          [[maybe_unused]] std::vector<operand<U, D>> const& operands) {
    if constexpr (!HostDevice<D>) {  // work on the host is finished
      for (auto const& x : operands)
        if (x.device)
          for (D const& device : devices)
            if (!(device == *x.device)) device.wait_for(*x.device);
    }
  }
  template <class U>
  static void order_before([[maybe_unused]] std::vector<D> const& devices,
                           [[maybe_unused]] std::vector<operand<U, D>> const& operands) {
    if constexpr (!HostDevice<D>) {
      for (auto const& x : operands)
        if (x.device)
          for (D const& device : devices)
            if (!(device == *x.device)) x.device->wait_for(device);
    }
  }

  C compressor_;
  std::vector<item> items_;
  std::vector<operand<G const, D>> sources_;
  std::vector<operand<M, D>> outputs_;
  std::vector<staged_copy> copies_in_, copies_out_;
  std::vector<staging<D>> staging_;
  std::vector<operand<char const, D>> codes_;
  std::vector<encoding> encodings_;
  bool keeps_residuals_ = false;
  bool remembers_ = false;
  std::size_t kept_ = 0;  // encodings whose residuals were kept, and may have changed
  std::vector<source_of<encoded>> gradients_;
  std::vector<M*> mirrors_;
  std::int64_t work_ = 0;
};

}  // namespace pushpull::detail
