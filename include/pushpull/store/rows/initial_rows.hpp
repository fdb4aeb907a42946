/// @file
/// Row-sparse initial values in a store of several ranks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/pass/step_control.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/agreement.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/keys/shard.hpp>
#include <pushpull/store/rows/row_pass.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Rows that every rank has received from rank 0. All ranks call it. @throws invalid_argument on all ranks alike
template <class Types>
class rows_of_rank_0 {
  using T = typename Types::value_type;

 public:
  template <class Rows>
  rows_of_rank_0(store_contents<Types>& contents, typename Types::record const& key, Rows const& rows) {
    rank_group& ranks = contents.keys.ranks();
    bool const is_rank_0 = contents.keys.owners().rank() == 0;
    auto const text = key_text(typename Types::key_view(key.key));
    std::int64_t count = rows.rows();
    ranks.broadcast(std::as_writable_bytes(std::span(&count, 1)));
    expect_countable("init", text, count);
    ids_.resize(static_cast<std::size_t>(count));
    values_.resize(static_cast<std::size_t>(count * row_length_of(key.shape)));
    if (is_rank_0) {
      copy_bytes(cpu_device<>(), ids_.data(), rows.device(), rows.row_ids(), ids_.size() * sizeof(std::int64_t));
      copy_bytes(cpu_device<>(), values_.data(), rows.device(), rows.values(), values_.size() * sizeof(T));
    }
    ranks.broadcast(std::as_writable_bytes(std::span(ids_)));
    ranks.broadcast(std::as_writable_bytes(std::span(values_)));
    ascending_ = check_row_ids("init", text, ids_, key.shape[0]);
  }

  template <class D>
  row_source<T, D> source() const {
    return {values_.data(), ids_.data(), static_cast<std::int64_t>(ids_.size()), {}};
  }
  bool ascending() const { return ascending_; }

 private:
  std::vector<std::int64_t> ids_;
  std::vector<T> values_;
  bool ascending_;
};

/// Writes the rows of rank 0 into a key that holds zeros and that no operation knows yet: masters, and all mirrors of what
/// other ranks hold.
template <class Types, class Rows>
void fill_rows_of_rank_0(store_contents<Types>& contents, typename Types::record& key, Rows const& rows) {
  using T = typename Types::value_type;
  using W = typename Types::master_type;
  using D = typename Types::device_type;
  using types = typename Types::types;
  using operands_type = pass::row_operands<pass::run<types, 0>>;
  rows_of_rank_0<Types> const given(contents, key, rows);
  if (key.size() == 0) return;
  auto const& table = contents.keys;
  std::int64_t const row_length = row_length_of(key.shape);
  auto const source = given.template source<D>();
  std::optional<row_tables<T, D>> made;
  auto const write = [&](D const& device, operands_type operands) {
    if (!made || !HostDevice<D>) {  // hosts share it
      row_tables<T, D>& tables = made.emplace(device, 1);
      tables.sort(std::span(&source, 1), key.shape[0], given.ascending());
      tables.find(std::span(&source, 1), row_length);
    }
    row_tables<T, D>& tables = *made;
    tables.count(0, operands.begin / row_length, (operands.end + row_length - 1) / row_length);
    tables.describe(0, operands);
    operands.slice.sources = 1;
    using clock = pass::clock_of<pass::assign, types>;
    launch_rows<pass::assign, reduce::sum, types, pass::present_rows, D, clock>(device, operands, nullptr, nullptr,
                                                                                tables.size());
  };
  if (!key.arena->resident())
    return for_each_shard(table, key, [&](auto const& shard) {
      write(shard.device(), shard.template row_operands<operands_type>(row_length));
    });
  D const& device = table.devices().front();
  buffer<D> const masters(device, static_cast<std::size_t>(padded(key.shape.size())) * sizeof(W));  // read by blocks
  device.fill_zero(masters.data(), masters.bytes());
  auto* const whole = static_cast<W*>(masters.data());
  write(device, whole_key_row_operands<operands_type>(key, whole, row_length));
  table.store_value(key, tensor_view<W const, D>(whole, key.shape, device));
  fill_distant_mirrors(table, key, whole);
}

}  // namespace pushpull::detail
