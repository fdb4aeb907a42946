/// @file
/// The messages of one call, and what it brings to memory that other ranks reach: slices of its sources to their owners, and
/// new slices from their owners.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/exchange/gathered_outputs.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Which ranks' sources a call takes.
enum class sources_of {
  all_ranks,  ///< As many of each: a step.
  rank_0      ///< The others' are ignored: a value that all are to have.
};

/// Which ranks read the sources of a call.
enum class sources_to {
  owners,  ///< Each its part.
  rank_0   ///< All of them.
};

/// @tparam Table  The store's key_table. @tparam G  Element type of the sources.
template <class Table, Device D, class G>
class call_exchange {
  using record = typename Table::record;

 public:
  explicit call_exchange(std::size_t devices) : pack_(devices) {}

  /// In the place of a call's own sources: those of all ranks, in the order of the ranks. Sources that ranks of one node bring
  /// to each other lie in arrays of their arenas; where these have to be made all ranks call this on the calling thread.
  /// @param items  Those of one key follow one another. @param dense  The sources travel as they are.
  template <class Item>
  void spread(Table const& table, std::vector<Item>& items, std::vector<operand<G const, D>>& sources, sources_of which,
              bool dense) {
    if (messages_ == nullptr) messages_ = table.ranks().make_messages();
    packs_ = packs && dense && which == sources_of::all_ranks && table.ranks().shares_memory();
    own_.swap(sources);
    sources.clear();
    origins_.clear();
    std::size_t const ranks = which == sources_of::rank_0 ? 1 : table.owners().ranks();
    record const* key = nullptr;
    std::size_t of_key = 0;  // earlier sources of the key, of each rank
    for (Item& x : items) {
      std::size_t const first = sources.size();
      if (std::exchange(key, x.key) != x.key) of_key = 0;
      for (std::size_t rank = 0; rank < ranks; ++rank)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
          bool const is_own = rank == table.owners().rank();
          origins_.push_back({rank, of_key + k - x.source, is_own});
          D const& device = table.devices()[device_of(table, origins_.size() - 1)];
          sources.push_back(is_own ? own_[k] : operand<G const, D>{nullptr, device, own_[k].size});
        }
      of_key += x.sources;
      if (packs_ && x.key->arena->resident())
        x.key->arena->reserve_sources(table.devices().front(), of_key, table.ranks());
      x.source = first;
      x.sources = sources.size() - first;
    }
  }

  /// Forgets the last call's messages.
  void clear(sources_to readers) {
    readers_ = readers;
    messages_->clear();
    mirrors_.clear();
    outputs_.clear();
    after_.clear();
    pack_.clear();
  }

  /// Whether source number k of the call is another rank's.
  bool is_received(std::size_t k) const { return k < origins_.size() && !origins_[k].is_own; }

  /// The number of the device in whose memory messages find source number k, on all ranks.
  std::size_t device_of(Table const& table, std::size_t k) const {
    return moving_device<D>(origins_[k].number % table.devices().size());
  }

  /// Source number k, which is dense: its parts go to the other ranks, or this rank's part comes.
  /// @param received  Memory of the source's device.
  void add_source(Table const& table, record const& key, std::size_t k, operand<G const, D>& source,
                  staging<D>& received) {
    auto const bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(G); };
    origin const& from = origins_[k];
    std::size_t const device = device_of(table, k);
    if (!from.is_own) {
      slice const part = part_read_by(table, key, table.owners().rank());
      if (part.size() <= 0) return;
      if (reaches(table, key, from.rank)) {
        source.data = array(key, from);
        return;
      }
      auto* const memory = static_cast<G*>(received.take(table.devices()[device], bytes(part.size())));
      messages_->receive(memory, bytes(part.size()), static_cast<int>(from.rank), device);
      source.data = memory;
      source.begin = part.begin;
    } else {
      slice packed;
      for_each_distant_reader(table, key, [&](std::size_t rank, slice const& part) {
        if (!reaches(table, key, rank)) {
          messages_->send(source.data + part.begin, bytes(part.size()), static_cast<int>(rank), device);
        } else if (part.begin == packed.end) {
          packed.end = part.end;
        } else {
          pack(key, from, source, std::exchange(packed, part));
        }
      });
      pack(key, from, source, packed);
    }
  }
  /// After the last source.
  void commit(std::vector<D> const& devices) { pack_.commit(devices); }
  /// Before the exchange: writes what other ranks of the node read.
  void pack(std::vector<D> const& devices) { pack_.run(devices); }

  /// Same, of a source whose codes travel. @param code_of  code_of(first, size, f) calls f(memory, bytes) for the parts of
  /// the codes that a pass over `size` elements reads.
  template <class F>
  void add_codes(Table const& table, record const& key, std::size_t k, F const& code_of) {
    std::size_t const device = device_of(table, k);
    if (origin const& from = origins_[k]; !from.is_own) {
      slice const part = part_read_by(table, key, table.owners().rank());
      if (part.size() > 0)
        code_of(part.begin, part.size(), [&](void const* memory, std::size_t bytes) {
          messages_->receive(const_cast<void*>(memory), bytes, static_cast<int>(from.rank), device);
        });
    } else {
      for_each_distant_reader(table, key, [&](std::size_t rank, slice const& part) {
        code_of(part.begin, part.size(), [&](void const* memory, std::size_t bytes) {
          messages_->send(memory, bytes, static_cast<int>(rank), device);
        });
      });
    }
  }

  /// Takes the mirrors of keys that the pass changes.
  mirror_exchange<Table>& mirrors() { return mirrors_; }
  /// An output's parts that the pass of this rank does not write: they come from the mirror, or from the other ranks where
  /// there is none.
  template <class M>
  void add_output(Table const& table, record const& key, operand<M, D>& output) {
    if (!key.arena->resident()) return outputs_.add(table, key, output, *messages_);
    for_each_distant_rank(table, key, [&](std::size_t, slice const& part) {
      after_.push_back({0, output.data + part.begin, Table::mirror(key, 0) + part.begin,
                        static_cast<std::size_t>(part.size()) * sizeof(M)});
    });
  }
  /// When mirrors and outputs are complete.
  void finish_outputs(Table const& table) const {
    copy_all(table.devices(), after_);
    outputs_.finish(table);
  }

  messages& parts() const { return *messages_; }

 private:
  /// Which source of its rank's, and of the key's, one is.
  struct origin {
    std::size_t rank, number;
    bool is_own;
  };
  /// Arrays of arenas have the store's element type.
  static constexpr bool packs = std::is_same_v<G, typename Table::T>;
  struct no_step {
    explicit no_step(std::size_t) {}
    void clear() {}
    void commit(std::vector<D> const&) {}
    void run(std::vector<D> const&) {}
  };
  using pack_step =
      std::conditional_t<packs,
                         fused_step<D, pass::forward, reduce::sum, pass::element_types<G, accumulation_t<G>, G, G, G>,
                                    pass::memory::foreign>,
                         no_step>;

  /// Whether a rank's sources are read where it has packed them. Not of keys without mirrors, which are too large for that.
  bool reaches(Table const& table, record const& key, std::size_t rank) const {
    return packs_ && key.arena->resident() && table.ranks().nodes().on_one_node(rank, table.owners().rank());
  }
  /// Where a rank packs a source, at the key's first element.
  static G* array(record const& key, origin const& of) {
    if constexpr (packs) return key.arena->source(of.rank, of.number) + key.offset;
    return nullptr;
  }
  void pack(record const& key, origin const& to, operand<G const, D> const& source, slice const& part) {
    if constexpr (packs) {
      if (part.size() <= 0) return;
      G* const first = array(key, to) + part.begin;
      G const* const gradient = source.data + part.begin;
      if (first == gradient) return;  // the rank's sum
      typename pack_step::run_type run{};
      run.size = part.size();
      pack_.add(0, run, std::span(&gradient, 1), std::span<G* const>(&first, 1));
    }
  }

  /// The part of a source of the key that a rank reads.
  slice part_read_by(Table const& table, record const& key, std::size_t rank) const {
    if (readers_ == sources_to::owners) return part_of_rank(table, key, rank);
    return {0, rank == 0 ? key.size() : 0};
  }
  template <class F>
  void for_each_distant_reader(Table const& table, record const& key, F const& f) const {
    if (readers_ == sources_to::owners) return for_each_distant_rank(table, key, f);
    if (table.owners().rank() != 0 && key.size() > 0) f(std::size_t{0}, part_read_by(table, key, 0));
  }

  sources_to readers_ = sources_to::owners;
  std::unique_ptr<messages> messages_;
  std::vector<operand<G const, D>> own_;
  std::vector<origin> origins_;  // of each source
  pack_step pack_;
  bool packs_ = false;
  mirror_exchange<Table> mirrors_;
  gathered_outputs<Table> outputs_;
  std::vector<staged_copy> after_;  // from mirrors that are complete
};

}  // namespace pushpull::detail
