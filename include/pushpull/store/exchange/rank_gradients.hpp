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
#include <pushpull/concepts/policy.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/keys/topology.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/reach.hpp>
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

/// R without its `finish`, which the owner calls for all sources.
template <Reduction R>
struct unfinished {
  using policy_kind = reduction_tag;

  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V operator()(V const& a, V const& b) const noexcept {
    return R()(a, b);
  }
  PUSHPULL_EXEC_CHECK_DISABLE
  template <class V>
  PUSHPULL_DEVICE_INLINE V finish(V const& total, int) const noexcept {
    return total;
  }
};

/// The pass that adds up the gradients of a node's ranks, or of a rank's GPUs, in the store's element type. A mean is left to the
/// owner.
template <class Types>
class node_sums {
  using D = typename Types::device_type;
  using T = typename Types::value_type;
  using reduction = std::conditional_t<AdditiveReduction<typename Types::reduction_type>, reduce::sum,
                                       unfinished<typename Types::reduction_type>>;
  using step_type =
      fused_step<D, pass::assign, reduction, pass::element_types<T, typename Types::accumulation_type, T, T, T>,
                 pass::memory::arenas>;

 public:
  explicit node_sums(std::size_t devices) : step_(devices) {}

  void clear() {
    step_.clear();
    copies_.clear();
  }
  /// Device number n is to write the sum of `gradients`, of `size` elements each, to `sum`.
  void add(std::size_t n, T* sum, std::int64_t size, std::span<T const* const> gradients) {
    typename step_type::run_type run{};
    run.size = size;
    run.master = sum;
    step_.add(n, run, gradients, {});
  }
  /// Before that.
  void copy(staged_copy const& x) { copies_.push_back(x); }
  void commit(std::vector<D> const& devices) { step_.commit(devices); }
  void run(std::vector<D> const& devices) {
    copy_before(devices, copies_);
    step_.run(devices);
  }

 private:
  step_type step_;
  std::vector<staged_copy> copies_;  // of gradients that a device does not reach
};

/// All that one rank reads: gradients of the other ranks, or sums over the ranks of each node, or over the GPUs of each rank.
/// They lie in shared memory or come, while the other ranks' parts of this rank's gradients, or sums, go. The order of the
/// sources is that of the ranks and, within a rank, of its devices; or that of the nodes. A sum that the communicator makes is
/// one source, in the communicator's order.
template <class Table, Device D>
class rank_gradients {
  using T = typename Table::T;
  using record = typename Table::record;

 public:
  /// Of one process.
  explicit rank_gradients(std::size_t device_count) : devices_(device_count) {}
  /// @param sums      Takes what the node adds up before the exchange.
  /// @param received  Memory of each device for gradients that come, and for the node's sums.
  /// @param brought   In the place of gradients each rank brings a sum of its own: see rank_sums.
  template <class NodeSums>
  rank_gradients(Table const& table, std::span<record* const> keys, messages& to, NodeSums& sums,
                 std::vector<staging<D>>& received, bool brought)
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
    } else if (table.ranks().reduces()) {
      add_sums(to, own);
    } else if (table.ranks().adds_devices() && devices_ > 1) {
      add_devices(to, sums);
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

  /// Appends all sources, from element `offset` of the keys on, which this rank's device number n has.
  /// @param readable  readable(m, memory): where it reads memory of device number m.
  template <class Readable>
  void append(std::vector<T const*>& gradients, record const& key, std::size_t n, std::int64_t offset,
              Readable const& readable) const {
    auto const append_own = [&] {
      for (std::size_t m = 0; m < devices_; ++m) gradients.push_back(readable(m, own_source(key, m) + offset));
    };
    bool is_own_left = !includes_own_;
    for (source const& x : others_) {
      if (are_of_owners_ && x.device != n) continue;
      if (is_own_left && x.rank > own_rank_) append_own();
      is_own_left = is_own_left && x.rank < own_rank_;
      gradients.push_back(readable(x.device, x.memory + (offset - x.begin)));
    }
    if (is_own_left) append_own();
  }

 private:
  static std::size_t bytes(slice const& part) {
    return part.size() > 0 ? static_cast<std::size_t>(part.size()) * sizeof(T) : 0;
  }
  slice part_of(std::size_t rank) const { return common(range_, first_->arena->part_of_rank(table_->owners(), rank)); }
  /// Memory of device number m.
  T* take(std::size_t size, std::size_t m) {
    return size > 0 ? static_cast<T*>((*received_memory_)[m].take(table_->devices()[m], size)) : nullptr;
  }

  void add_rank(messages& to, slice const& own, std::size_t rank, bool is_shared) {
    slice const theirs = part_of(rank);
    for (std::size_t m = 0; m < devices_; ++m) {
      if (is_shared) {
        others_.push_back({rank, shared(rank, m) + range_.begin + begin_, begin_, 0});
        continue;
      }
      std::size_t const device = moving_device<D>(m);
      T* const memory = take(bytes(own), device);
      to.receive(memory, bytes(own), static_cast<int>(rank), device);
      others_.push_back({rank, memory, begin_, device});
      to.send(own_source(*first_, m) + (theirs.begin - range_.begin), bytes(theirs), static_cast<int>(rank), device);
    }
  }

  /// The communicator adds the ranks' gradients up, those of each device number by themselves.
  void add_sums(messages& to, slice const& own) {
    std::vector<comm::byte_range> of_rank;
    for (std::size_t rank = 0; rank < table_->owners().ranks(); ++rank) {
      slice const part = part_of(rank);
      std::size_t const begin = static_cast<std::size_t>(part.begin - range_.begin) * sizeof(T);
      of_rank.push_back(bytes(part) > 0 ? comm::byte_range{begin, begin + bytes(part)} : comm::byte_range{});
    }
    for (std::size_t m = 0; m < devices_; ++m) {
      std::size_t const device = moving_device<D>(m);
      T* const sum = take(bytes(own), device);
      to.reduce(own_source(*first_, m), of_rank, sum, number_type_of<T>(), device);
      others_.push_back({own_rank_, sum, begin_, device});
    }
    includes_own_ = true;
    if (!brought_) sources_ = static_cast<std::int32_t>(table_->owners().ranks() * devices_);
  }

  template <class NodeSums>
  void add_nodes(messages& to, NodeSums& sums, slice const& own) {
    node_layout const& nodes = table_->ranks().nodes();
    std::size_t const first = nodes.first_of_node(own_rank_);
    std::vector<T const*> gradients;
    for (std::size_t node = 0; node < nodes.nodes; ++node) {
      std::size_t const partner = nodes.partner(own_rank_, node);
      slice const part = part_of(partner);
      T* const sum = take(bytes(part), 0);
      if (part.size() > 0) {
        gradients.clear();
        for (std::size_t rank = first; rank < first + nodes.ranks_per_node; ++rank)
          for (std::size_t m = 0; m < devices_; ++m) gradients.push_back(shared(rank, m) + part.begin);
        sums.add(0, sum, part.size(), gradients);
      }
      if (partner == own_rank_) {
        others_.push_back({node, sum, begin_, 0});
        continue;
      }
      to.send(sum, bytes(part), static_cast<int>(partner));
      T* const memory = take(bytes(own), 0);
      to.receive(memory, bytes(own), static_cast<int>(partner));
      others_.push_back({node, memory, begin_, 0});
    }
    includes_own_ = true;
    if (!brought_) sources_ = static_cast<std::int32_t>(table_->owners().ranks() * devices_);
  }
  /// Each device adds up the gradients of this rank's devices, for the owners of its number.
  template <class NodeSums>
  void add_devices(messages& to, NodeSums& sums) {
    topology const& all = table_->owners();
    auto const part_of_owner = [&](std::size_t rank, std::size_t n) {
      return common(range_, first_->arena->parts()[all.first_owner(rank) + n]);
    };
    std::vector<T const*> gradients;
    for (std::size_t n = 0; n < devices_; ++n) {
      slice const own = part_of_owner(own_rank_, n);
      for (std::size_t rank = 0; rank < all.ranks(); ++rank) {
        slice const part = part_of_owner(rank, n);
        T* memory = take(bytes(part), n);
        if (part.size() > 0) {
          gradients.clear();
          for (std::size_t m = 0; m < devices_; ++m) gradients.push_back(readable(sums, n, m, part));
          sums.add(n, memory, part.size(), gradients);
        }
        if (rank != own_rank_) {
          to.send(memory, bytes(part), static_cast<int>(rank), n);
          memory = take(bytes(own), n);
          to.receive(memory, bytes(own), static_cast<int>(rank), n);
        }
        others_.push_back({rank, memory, own.begin - range_.begin, n});
      }
    }
    includes_own_ = are_of_owners_ = true;
    sources_ = static_cast<std::int32_t>(all.ranks() * devices_);
  }
  /// A part of the gradient of device number m where device number n reads it.
  template <class NodeSums>
  T const* readable(NodeSums& sums, std::size_t n, std::size_t m, slice const& part) {
    T const* const gradient = own_source(*first_, m) + (part.begin - range_.begin);
    if (table_->reach()(n, m)) return gradient;
    T* const staged = take(bytes(part), n);
    sums.copy({n, staged, gradient, bytes(part)});
    return staged;
  }
  /// Source number m of a rank that this one reaches, at the arena's first element.
  T const* shared(std::size_t rank, std::size_t m) const {
    return brought_ ? first_->arena->source(rank, m) : first_->arena->gradient(rank, m);
  }

  struct source {
    std::size_t rank;  // or the node
    T const* memory;
    std::int64_t begin;  // of the memory, counted from the first key's first element
    std::size_t device;  // that has it
  };

  Table const* table_ = nullptr;
  std::vector<staging<D>>* received_memory_ = nullptr;
  record const* first_ = nullptr;
  slice range_;
  std::size_t devices_;
  std::size_t own_rank_ = 0;
  std::int64_t begin_ = 0;  // this rank's part, counted from the first key's first element
  bool brought_ = false, includes_own_ = false, are_of_owners_ = false;
  std::int32_t sources_ = 0;
  std::vector<source> others_;
};

}  // namespace pushpull::detail
