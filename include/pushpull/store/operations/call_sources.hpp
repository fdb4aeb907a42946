/// @file
/// The sources of one call on their way to the pass: encoded, staged, and those of other ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/call_tensors.hpp>
#include <pushpull/store/operations/encoded_sources.hpp>
#include <pushpull/store/operations/staged_operands.hpp>
#include <pushpull/store/reach.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The keys and tensors of a call, and where a pass reads its sources.
/// @tparam Table, D, G, M, C  As for laid_out_call.
template <class Table, Device D, class G, class M, class C>
class call_sources : public call_tensors<Table, D, G, M> {
  using base = call_tensors<Table, D, G, M>;

 public:
  /// Steps may be skipped: residuals will then be what they were before their first micro-batch.
  /// @param of_each  The sources are those of whole steps, not of micro-batches.
  void remember_residuals([[maybe_unused]] bool always, [[maybe_unused]] bool of_each = false) {
    if constexpr (compressed) encoded_.remember_residuals(always, of_each);
  }

  /// In a store of several ranks, once the keys have been found: the sources are those of the ranks. See call_exchange::spread.
  void take_ranks([[maybe_unused]] Table const& table, [[maybe_unused]] sources_of which) {
    if constexpr (Table::collective)
      if (table.is_distributed()) {
        sort();
        exchange_.spread(table, items_, sources_, which, !compressed);
      }
  }
  /// Forgets the call.
  void forget() {
    base::forget();
    moved_.clear();
  }
  /// Copies sources to where `for_each_key_and_sources` has found them. After `begin` of a call that only reads.
  void bring_sources(std::vector<D> const& devices) {
    copy_to_owners(devices, false);
    staged_.forget_copies_in();
  }
  /// Later work on the sources' devices comes after the work of the store's devices so far.
  void release_sources(std::vector<D> const& devices) const { order_before_sources(devices); }

  /// f(record, gradients) for each key that is chosen: its sources where device number 0 reads them.
  template <class F>
  void for_each_key_and_sources(Table const& table, F const& f) {
    any_key([&](std::span<item const> same) {
      record const& r = *same.front().key;
      own_.clear();
      for (item const& x : same)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k)
          own_.push_back(staged_.readable(table.devices().front(), 0, sources_[k], 0, r.size()));
      f(r, std::span<G const* const>(own_));
      return false;
    });
  }

  /// After the run of a step of the keys that are chosen: if the devices skip it, residuals become what they were before
  /// its first micro-batch. The host does not wait to know.
  template <class Step>
  void return_residuals([[maybe_unused]] std::vector<D> const& devices, [[maybe_unused]] Step const& step) {
    if constexpr (compressed && Step::may_skip) {
      if (step.skipped(0) == nullptr) return;
      order_before(devices, encoded_.codes());
      any_key([&](std::span<item const> same) {
        std::size_t sources = 0;
        for (item const& x : same)
          for (std::size_t k = x.source; k < x.source + x.sources; ++k) sources += is_received(k) ? 0 : 1;
        encoded_.return_residuals(*same.front().key, sources, devices, step);
        return false;
      });
      order_after(devices, encoded_.codes());
    }
  }

  /// Residuals become what they were before the present push, if they were kept.
  void put_residuals_back() {
    if constexpr (compressed) encoded_.put_residuals_back();
  }

 protected:
  using base::any_key, base::items_, base::outputs_, base::sort, base::sources_;
  using typename base::item, typename base::record;
  using encoded = typename C::template encoded_type<G>;
  static constexpr bool compressed = !std::is_same_v<encoded, G>;

  call_sources(Table const& table, C const& compressor)
      : staged_(table.staged()), encoded_(compressor), exchange_(table.devices().size()) {}
  call_sources(call_sources&&) noexcept = default;
  ~call_sources() = default;

  /// Takes memory for the residuals and codes of all sources, and for gradients that their encoder cannot reach.
  /// @param keeps  Residuals are kept as they are until the push has not failed.
  void reserve_codes(Table const& table, bool keeps) {
    encoded_.begin(sources_.size(), keeps);
    any_key([&](std::span<item const> same) {
      std::size_t number = 0;
      for (item const& x : same)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
          std::size_t const n = device_of(table, k);
          D const& device = table.devices()[n];
          if (is_received(k)) {
            encoded_.add_received(*x.key, k, device, staged_.memory(n));
          } else {  // messages find the codes of GPUs on a device of the store
            bool const stays = sources_[k].device && (HostDevice<D> || !table.is_distributed());
            encoded_.add(*x.key, number++, k, sources_[k], stays ? *sources_[k].device : device, staged_.memory(n));
          }
        }
      return false;
    });
  }

  /// See call_exchange::device_of.
  std::size_t device_of([[maybe_unused]] Table const& table, [[maybe_unused]] std::size_t k) const {
    if constexpr (Table::collective)
      if (table.is_distributed()) return exchange_.device_of(table, k);
    return 0;
  }
  /// Whether source number k comes from another rank.
  bool is_received([[maybe_unused]] std::size_t k) const {
    if constexpr (Table::collective) return exchange_.is_received(k);
    return false;
  }

  /// The slices of sources that go to other ranks and come from them.
  void lay_out_exchange(Table const& table, sources_to readers) {
    exchange_.clear(readers);
    moved_.clear();
    any_key([&](std::span<item const> same) {
      for (item const& x : same) {
        for (std::size_t k = x.source; k < x.source + x.sources; ++k)
          if constexpr (compressed) {
            exchange_.add_codes(table, *x.key, k, [&](std::int64_t first, std::int64_t size, auto const& f) {
              encoded_.source(k, x.key->size(), first, size, [&](void const* p, std::size_t bytes) {
                f(p, bytes);
                return p;
              });
            });
          } else {
            if (!is_received(k)) bring_to_messages(table, device_of(table, k), sources_[k]);
            exchange_.add_source(table, *x.key, k, sources_[k], staged_.memory(device_of(table, k)));
          }
        if constexpr (std::is_same_v<M, typename Table::T>)
          for (std::size_t k = x.output; k < x.output + x.outputs; ++k)
            exchange_.add_output(table, *x.key, outputs_[k]);
      }
      return false;
    });
    exchange_.commit(table.devices());
  }
  /// Messages of GPUs move memory of device number n: a source that lies elsewhere is copied there first.
  void bring_to_messages([[maybe_unused]] Table const& table, [[maybe_unused]] std::size_t n,
                         [[maybe_unused]] operand<G const, D>& source) {
    if constexpr (!HostDevice<D>) {
      D const& device = table.devices()[n];
      if (source.size == 0 || lies_on(device, source)) return;
      moved_.push_back(source.device);
      source.data = staged_.copied(device, n, source);
      source.device = device;
    }
  }
  /// The store's devices after all that the sources' devices have been given so far, and the other way round.
  void order_after_sources(std::vector<D> const& devices) const {
    order_after(devices, sources_);
    for (auto const& device : moved_) order_after(devices, device);
  }
  void order_before_sources(std::vector<D> const& devices) const {
    order_before(devices, sources_);
    for (auto const& device : moved_) order_before(devices, device);
  }
  /// Copies sources to where messages find them.
  void copy_to_messages(std::vector<D> const& devices) const { copy_all(devices, staged_.copies_to_messages()); }
  /// When the messages have come: copies sources to owners that do not reach them.
  void copy_to_owners(std::vector<D> const& devices, bool after_messages) const {
    if (after_messages)
      copy_before(devices, staged_.copies_in());
    else
      copy_all(devices, staged_.copies_in());
  }
  awaited* start_exchange(Table const& table) {
    exchange_.pack(table.devices());
    return start([](messages& m) { m.start_exchange(); });
  }
  template <class F>
  awaited* start(F const& f) {
    f(exchange_.parts());
    return &exchange_.parts();
  }

  /// Turns sources into codes. The store's devices run after it.
  void encode(std::vector<D> const& devices) {
    encoded_.encode();
    order_after(devices, encoded_.codes());
  }

  /// What device number n reads of an item's sources: `size` elements from number `first` on.
  void add_gradients(D const& device, std::size_t n, item const& x, std::int64_t first, std::int64_t size) {
    for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
      if constexpr (compressed) {
        auto const at_owner = [&](void const* p, std::size_t bytes) -> void const* {
          operand<char const, D> const piece{static_cast<char const*>(p), encoded_.codes()[k].device, bytes};
          return staged_.readable(device, n, piece, 0, static_cast<std::int64_t>(bytes));
        };
        gradients_.push_back(encoded_.source(k, x.key->size(), first, size, at_owner));
      } else {
        gradients_.push_back(staged_.readable(device, n, sources_[k], first, size));
      }
    }
  }

  staged_operands<D> staged_;
  struct nothing {
    explicit nothing(C const&) {}
  };
  [[no_unique_address]] std::conditional_t<compressed, encoded_sources<record, D, G, C>, nothing> encoded_;
  struct no_exchange {
    explicit no_exchange(std::size_t) {}
  };
  [[no_unique_address]] std::conditional_t<Table::collective, call_exchange<Table, D, G>, no_exchange> exchange_;
  std::vector<source_of<encoded>> gradients_;

 private:
  std::vector<G const*> own_;
  std::vector<std::optional<D>> moved_;  // where sources were that messages find elsewhere
};

}  // namespace pushpull::detail
