/// @file
/// The messages of one call: slices of its sources to their owners, and new slices from their owners.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <pushpull/comm/single.hpp>
#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
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
  /// In the place of a call's own sources: those of all ranks, in the order of the ranks.
  template <class Item>
  void spread(Table const& table, std::vector<Item>& items, std::vector<operand<G const, D>>& sources,
              sources_of which) {
    if (messages_ == nullptr) messages_ = table.ranks().make_messages();
    own_.swap(sources);
    sources.clear();
    peers_.clear();
    std::size_t const ranks = which == sources_of::rank_0 ? 1 : table.owners().ranks();
    for (Item& x : items) {
      std::size_t const first = sources.size();
      for (std::size_t rank = 0; rank < ranks; ++rank)
        for (std::size_t k = x.source; k < x.source + x.sources; ++k) {
          bool const is_own = rank == table.owners().rank();
          sources.push_back(is_own ? own_[k] : operand<G const, D>{nullptr, table.devices().front(), own_[k].size});
          peers_.push_back(is_own ? std::nullopt : std::optional(rank));
        }
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
  }

  /// Whether source number k of the call is another rank's.
  bool is_received(std::size_t k) const { return k < peers_.size() && peers_[k].has_value(); }

  /// Source number k, which is dense: its parts go to the other ranks, or this rank's part comes.
  void add_source(Table const& table, record const& key, std::size_t k, operand<G const, D>& source,
                  staging<D>& received) {
    auto const bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(G); };
    if (peers_[k]) {
      slice const part = part_read_by(table, key, table.owners().rank());
      if (part.size() <= 0) return;
      auto* const memory = static_cast<G*>(received.take(table.devices().front(), bytes(part.size())));
      messages_->receive(memory, bytes(part.size()), static_cast<int>(*peers_[k]));
      source.data = memory;
      source.begin = part.begin;
    } else {
      for_each_distant_reader(table, key, [&](std::size_t rank, slice const& part) {
        messages_->send(source.data + part.begin, bytes(part.size()), static_cast<int>(rank));
      });
    }
  }
  /// Same, of a source whose codes travel. @param code_of  code_of(first, size, f) calls f(memory, bytes) for the parts of
  /// the codes that a pass over `size` elements reads.
  template <class F>
  void add_codes(Table const& table, record const& key, std::size_t k, F const& code_of) {
    if (peers_[k]) {
      slice const part = part_read_by(table, key, table.owners().rank());
      if (part.size() > 0)
        code_of(part.begin, part.size(), [&](void const* memory, std::size_t bytes) {
          messages_->receive(const_cast<void*>(memory), bytes, static_cast<int>(*peers_[k]));
        });
    } else {
      for_each_distant_reader(table, key, [&](std::size_t rank, slice const& part) {
        code_of(part.begin, part.size(),
                [&](void const* memory, std::size_t bytes) { messages_->send(memory, bytes, static_cast<int>(rank)); });
      });
    }
  }

  /// Takes the mirrors of keys that the pass changes.
  mirror_exchange<Table>& mirrors() { return mirrors_; }
  /// An output's parts that the pass of this rank does not write: they come from the mirror, or from the other ranks where
  /// there is none.
  template <class M>
  void add_output(Table const& table, record const& key, operand<M, D> const& output) {
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
  std::vector<std::optional<std::size_t>> peers_;  // of each source
  mirror_exchange<Table> mirrors_;
  gathered_outputs<Table> outputs_;
  std::vector<staged_copy> after_;  // from mirrors that are complete
};

}  // namespace pushpull::detail
