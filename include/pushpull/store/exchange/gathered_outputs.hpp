/// @file
/// Outputs of a call that no mirror fills: each owner writes its part, and the ranks gather them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <pushpull/concepts/communicator.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/exchange/mirror_exchange.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/keys/placement.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/reach.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Outputs of keys, of which a pass writes the parts that this rank owns. Every rank has outputs of the same keys, at least
/// one of each. The first of a key is gathered, the others copy it. Where GPUs exchange messages, outputs elsewhere are
/// gathered in memory of device number 0 and copied from there. @tparam Table  The store's key_table.
template <class Table>
class gathered_outputs {
  using D = typename Table::device_type;
  using record = typename Table::record;

 public:
  /// Forgets earlier outputs.
  void clear() {
    copies_.clear();
    devices_.clear();
    if (memory_) memory_->clear();
    key_ = nullptr;
  }
  /// An output of a key; those of one key follow one another. The messages are to be started after the pass, which is laid
  /// out afterwards: it may have to write `output` elsewhere.
  template <class M>
  void add(Table const& table, record const& key, operand<M, D>& output, messages& to) {
    if (key.size() == 0) return;
    M* const target = output.data;
    if constexpr (!HostDevice<D>) {
      devices_.push_back(output.device);
      if (!lies_on(table.devices().front(), output)) move(table, key, output);
    }
    gather(table, key, output, to);
    if (output.data != target)
      copies_.push_back({0, target, output.data, static_cast<std::size_t>(key.size()) * sizeof(M)});
  }
  /// When the messages have arrived.
  void finish(Table const& table) const {
    copy_all(table.devices(), copies_);
    for (auto const& device : devices_) order_before(table.devices(), device);
  }

 private:
  template <class M>
  void move(Table const& table, record const& key, operand<M, D>& output) {
    D const& device = table.devices().front();
    if (!memory_) memory_.emplace(table.staged().front());
    output.data = static_cast<M*>(memory_->take(device, static_cast<std::size_t>(key.size()) * sizeof(M)));
    order_after(table.devices(), output.device);
    output.device = device;
  }
  template <class M>
  void gather(Table const& table, record const& key, operand<M, D> const& output, messages& to) {
    auto const bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(M); };
    if (key_ == &key) {
      for_each_distant_rank(table, key, [&](std::size_t, slice const& part) {
        copies_.push_back(
            {0, output.data + part.begin, static_cast<M const*>(first_) + part.begin, bytes(part.size())});
      });
      return;
    }
    key_ = &key;
    first_ = output.data;
    ranges_.clear();
    for (std::size_t rank = 0; rank < table.owners().ranks(); ++rank) {
      slice const part = part_of_rank(table, key, rank);
      ranges_.push_back(part.size() > 0 ? comm::byte_range{bytes(part.begin), bytes(part.end)} : comm::byte_range{});
    }
    to.gather(output.data, ranges_);
  }
  record const* key_ = nullptr;  // of the last output
  void const* first_ = nullptr;  // its first output
  std::vector<comm::byte_range> ranges_;
  std::vector<staged_copy> copies_;
  std::vector<std::optional<D>> devices_;  // of the outputs
  std::optional<staging<D>> memory_;
};

}  // namespace pushpull::detail
