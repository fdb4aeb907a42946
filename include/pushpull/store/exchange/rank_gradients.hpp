/// @file
/// The resident gradients of all ranks, for keys that follow one another in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The number_type of elements T.
template <class T>
constexpr comm::number_type number_type_of() {
  if constexpr (std::is_same_v<T, double>) {
    return comm::number_type::float64;
  } else if constexpr (std::is_same_v<T, float>) {
    return comm::number_type::float32;
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    return comm::number_type::bfloat16;
  } else {
    return comm::number_type::float16;
  }
}

/// The pass that adds up the gradients of a node's ranks, in the store's element type. A mean is left to the owner.
template <class Types>
class node_sums {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using reduction = std::conditional_t<AdditiveReduction<typename Types::reduction_type>, reduce::sum,
                                       typename Types::reduction_type>;
  using step_type =
      fused_step<D, pass::assign, reduction, pass::element_types<T, typename Types::accumulation_type, T, T, T>,
                 pass::memory::arenas>;

 public:
  explicit node_sums(std::size_t devices) : step_(devices) {}

  void clear() { step_.clear(); }
  /// The sum of `gradients`, of `size` elements each, is to be written to `sum`.
  void add(T* sum, std::int64_t size, std::span<T const* const> gradients) {
    typename step_type::run_type run{};
    run.size = size;
    run.master = sum;
    step_.add(0, run, gradients, {});
  }
  void commit(std::vector<D> const& devices) { step_.commit(devices); }
  void run(std::vector<D> const& devices) { step_.run(devices); }

 private:
  step_type step_;
};

/// All that one rank reads: gradients of the other ranks, or sums over the ranks of each node. They lie in shared memory or
/// come, while the other ranks' parts of this rank's gradients, or of the node's sums, go. The order of the sources is that
/// of the ranks and, within a rank, of its devices; or that of the nodes. A sum that the communicator makes is one source, in the
/// communicator's order.
template <class Table, Device D>
class rank_gradients {
  using T = typename Table::T;
  using record = typename Table::record;

 public:
  /// Of one process.
  explicit rank_gradients(std::size_t device_count) : devices_(device_count) {}
  /// @param sums      Takes what the node adds up before the exchange.
  /// @param received  Memory for gradients that come, and for the node's sums.
  /// @param brought   In the place of gradients each rank brings a sum of its own: see rank_sums.
  template <class NodeSums>
  rank_gradients(Table const& table, std::span<record* const> keys, messages& to, NodeSums& sums, staging<D>& received,
                 bool brought)
      : table_(&table),
        received_memory_(&received),
        first_(keys.front()),
        range_{keys.front()->offset, keys.back()->padded_range().end},
        devices_(brought ? 1 : table.devices().size()),
        own_rank_(table.owners().rank()),
        brought_(brought),
        sources_(brought ? 1 : 0) {
    slice const own = part_of(own_rank_);
    begin_ = own.begin - range_.begin;
    bool const is_shared = first_->arena->is_shared() && (brought_ || !first_->has_own_gradient());
    if (is_shared && table.ranks().has_levels()) {
      add_nodes(to, sums, own);
    } else if (table.ranks().reduces() && devices_ == 1) {
      add_sum(to, own);
    } else {
      for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank)
        if (rank != own_rank_) add_rank(to, own, rank, is_shared);
    }
  }

  /// Gradients over which a mean is taken; 0: as many as there are.
  std::int32_t sources() const { return sources_; }

  /// This rank's source number m, at the key's first element.
  T const* own_source(record const& key, std::size_t m) const {
    return brought_ ? key.arena->source(m) + key.offset : Table::gradient(key, m);
  }

  /// Appends all sources, from an element of the keys on that this rank has. @param own  own(m): the gradient of this
  /// rank's device number m there.
  template <class Own>
  void append(std::vector<T const*>& gradients, std::int64_t offset, Own const& own) const {
    auto const append_own = [&] {
      for (std::size_t m = 0; m < devices_; ++m) gradients.push_back(own(m));
    };
    bool is_own_left = !includes_own_;
    for (source const& x : others_) {
      if (is_own_left && x.rank > own_rank_) append_own();
      is_own_left = is_own_left && x.rank < own_rank_;
      gradients.push_back(x.memory + (offset - begin_));
    }
    if (is_own_left) append_own();
  }

 private:
  static std::size_t bytes(slice const& part) {
    return part.size() > 0 ? static_cast<std::size_t>(part.size()) * sizeof(T) : 0;
  }
  slice part_of(std::size_t rank) const { return common(range_, first_->arena->part_of_rank(table_->owners(), rank)); }
  T* take(std::size_t size) {
    return size > 0 ? static_cast<T*>(received_memory_->take(table_->devices().front(), size)) : nullptr;
  }

  void add_rank(messages& to, slice const& own, std::size_t rank, bool is_shared) {
    slice const theirs = part_of(rank);
    for (std::size_t m = 0; m < devices_; ++m) {
      if (is_shared) {
        others_.push_back({rank, shared(rank, m) + range_.begin + begin_});
        continue;
      }
      T* const memory = take(bytes(own));
      to.receive(memory, bytes(own), static_cast<int>(rank));
      others_.push_back({rank, memory});
      to.send(own_source(*first_, m) + (theirs.begin - range_.begin), bytes(theirs), static_cast<int>(rank));
    }
  }

  /// The communicator adds the ranks' gradients up.
  void add_sum(messages& to, slice const& own) {
    std::vector<comm::byte_range> of_rank;
    for (std::size_t rank = 0; rank < table_->owners().ranks(); ++rank) {
      slice const part = part_of(rank);
      std::size_t const begin = static_cast<std::size_t>(part.begin - range_.begin) * sizeof(T);
      of_rank.push_back(bytes(part) > 0 ? comm::byte_range{begin, begin + bytes(part)} : comm::byte_range{});
    }
    T* const sum = take(bytes(own));
    to.reduce(own_source(*first_, 0), of_rank, sum, number_type_of<T>());
    others_.push_back({own_rank_, sum});
    includes_own_ = true;
    if (!brought_) sources_ = static_cast<std::int32_t>(table_->owners().ranks());
  }

  template <class NodeSums>
  void add_nodes(messages& to, NodeSums& sums, slice const& own) {
    node_layout const& nodes = table_->ranks().nodes();
    std::size_t const first = nodes.first_of_node(own_rank_);
    std::vector<T const*> gradients;
    for (std::size_t node = 0; node < nodes.nodes; ++node) {
      std::size_t const partner = nodes.partner(own_rank_, node);
      slice const part = part_of(partner);
      T* const sum = take(bytes(part));
      if (part.size() > 0) {
        gradients.clear();
        for (std::size_t rank = first; rank < first + nodes.ranks_per_node; ++rank)
          for (std::size_t m = 0; m < devices_; ++m) gradients.push_back(shared(rank, m) + part.begin);
        sums.add(sum, part.size(), gradients);
      }
      if (partner == own_rank_) {
        others_.push_back({node, sum});
        continue;
      }
      to.send(sum, bytes(part), static_cast<int>(partner));
      T* const memory = take(bytes(own));
      to.receive(memory, bytes(own), static_cast<int>(partner));
      others_.push_back({node, memory});
    }
    includes_own_ = true;
    if (!brought_) sources_ = static_cast<std::int32_t>(table_->owners().ranks() * devices_);
  }
  /// Source number m of a rank that this one reaches, at the arena's first element.
  T const* shared(std::size_t rank, std::size_t m) const {
    return brought_ ? first_->arena->source(rank, m) : first_->arena->gradient(rank, m);
  }

  struct source {
    std::size_t rank;  // or the node
    T const* memory;
  };

  Table const* table_ = nullptr;
  staging<D>* received_memory_ = nullptr;
  record const* first_ = nullptr;
  slice range_;
  std::size_t devices_;
  std::size_t own_rank_ = 0;
  std::int64_t begin_ = 0;  // this rank's part, counted from the first key's first element
  bool brought_ = false, includes_own_ = false;
  std::int32_t sources_ = 0;
  std::vector<source> others_;
};

}  // namespace pushpull::detail
