/// @file
/// The rows of several row-sparse tensors, sorted by their ids.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <thrust/copy.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sort.h>
#include <thrust/system/cpp/execution_policy.h>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::pass {

/// Memory that grows and is kept. What it held is lost when it grows.
template <Device D>
class growing_buffer {
 public:
  template <class T>
  T* take(D const& device, std::size_t count) {
    if (memory_.bytes() < count * sizeof(T)) memory_ = buffer<D>(device, count * sizeof(T));
    return data<T>();
  }
  template <class T>
  T* data() const {
    return static_cast<T*>(memory_.data());
  }

 private:
  buffer<D> memory_;
};

namespace detail {

/// Numbers the given rows, and sets ids that do not exist to the first that does not, after all others.
struct number_rows {
  std::int64_t* ids;
  std::int32_t* number;
  std::int64_t rows;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    number[i] = static_cast<std::int32_t>(i);
    if (ids[i] < 0 || ids[i] > rows) ids[i] = rows;
  }
};

/// Whether a given row is the first with its id.
struct is_first {
  std::int64_t const* ids;

  PUSHPULL_HOST_DEVICE bool operator()(std::int32_t i) const { return i == 0 || ids[i] != ids[i - 1]; }
};

/// Counts the rows of an owner that has elements of the rows [begin, end).
struct count_rows {
  std::int64_t const* ids;
  std::int32_t const* first;
  std::int32_t const* firsts;
  row_counts* counts;
  std::int32_t size;
  std::int64_t rows, begin, end;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t) const {
    auto const distinct_below = [this](std::int64_t id, std::int32_t count) {
      return partition_point(0, count, [&](std::int32_t u) { return ids[first[u]] < id; });
    };
    counts->given = partition_point(0, size, [this](std::int32_t i) { return ids[i] < rows; });
    counts->distinct = distinct_below(rows, *firsts);
    counts->begin = distinct_below(begin, counts->distinct);
    counts->end = distinct_below(end, counts->distinct);
  }
};

/// Gives Thrust memory for its temporaries, and keeps it.
template <Device D>
class cached_allocator {
 public:
  using value_type = char;

  explicit cached_allocator(D const& device) : device_(device) {}

  char* allocate(std::ptrdiff_t count) {
    auto const bytes = static_cast<std::size_t>(count);
    auto const fits = [&](block const& b) { return !b.used && b.memory.bytes() >= bytes; };
    auto free = std::find_if(blocks_.begin(), blocks_.end(), fits);
    if (free == blocks_.end()) {
      free = std::find_if(blocks_.begin(), blocks_.end(), [](block const& b) { return !b.used; });
      if (free == blocks_.end()) free = blocks_.emplace(free);
      free->memory = buffer<D>(device_, bytes);
    }
    free->used = true;
    return static_cast<char*>(free->memory.data());
  }
  void deallocate(char* p, std::size_t) noexcept {
    for (block& b : blocks_)
      if (b.memory.data() == p) b.used = false;
  }

 private:
  struct block {
    buffer<D> memory;
    bool used = false;
  };
  D device_;
  std::vector<block> blocks_;
};

}  // namespace detail

/// Ids of rows in ascending order, with where each row came from: (id, source, position) sorted. Lives where its
/// device's kernels read it. Kept from call to call: in the steady state it allocates nothing, and it never waits for a
/// GPU.
template <Device D>
class row_order {
  static_assert(HostDevice<D> || SortingDevice<D>,
                "row-sparse tensors: a device that is not the host must model SortingDevice: sort_by_key and select");

 public:
  /// Ids of one source, in memory that the device can copy from.
  struct source {
    std::int64_t const* ids;
    std::int64_t rows;
  };

  explicit row_order(D const& device) : device_(device), allocator_(device) {}

  /// Enqueues the sort.
  /// @param rows       Of the whole tensor. Other ids than 0 to rows - 1 end behind all others and are not counted.
  /// @param ascending  The ids are known to ascend as they are.
  void sort(std::span<source const> sources, std::int64_t rows, bool ascending) {
    rows_ = rows;
    std::int64_t total = 0;
    for (source const& s : sources) total += s.rows;
    size_ = static_cast<std::int32_t>(total);
    auto const count = static_cast<std::size_t>(total);
    ids_ = keys_.template take<std::int64_t>(device_, count);
    number_ = numbers_.template take<std::int32_t>(device_, count);
    first_ = firsts_.template take<std::int32_t>(device_, count + 1);
    if (size_ == 0) return device_.fill_zero(first_, sizeof(std::int32_t));
    std::int64_t* to = ids_;
    for (source const& s : sources) {
      device_.copy(to, s.ids, static_cast<std::size_t>(s.rows) * sizeof(std::int64_t));
      to += s.rows;
    }
    device_.for_each(total, detail::number_rows{ids_, number_, rows});
    if constexpr (HostDevice<D>) {
      auto const policy = thrust::cpp::par(allocator_);
      if (!ascending) thrust::stable_sort_by_key(policy, ids_, ids_ + total, number_);
      thrust::counting_iterator<std::int32_t> const numbers(0);
      first_[0] = static_cast<std::int32_t>(
          thrust::copy_if(policy, numbers, numbers + total, first_ + 1, detail::is_first{ids_}) - (first_ + 1));
    } else {
      if (!ascending) {
        auto* const sorted_ids = sorted_keys_.template take<std::int64_t>(device_, count);
        auto* const sorted = sorted_numbers_.template take<std::int32_t>(device_, count);
        int const bits = std::max(1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(rows))));
        device_.sort_by_key(ids_, sorted_ids, number_, sorted, total, bits, *this);
        ids_ = sorted_ids;
        number_ = sorted;
      }
      device_.select(total, detail::is_first{ids_}, first_ + 1, first_, *this);
    }
  }

  /// Enqueues the counts of an owner of the rows [begin, end).
  void count(row_counts* counts, std::int64_t begin, std::int64_t end) const {
    device_.for_each(1, detail::count_rows{ids_, first(), first_, counts, size_, rows_, begin, end});
  }

  std::int32_t size() const { return size_; }
  std::int64_t const* ids() const { return ids_; }
  /// number()[i]: which of the given rows stands in place i.
  std::int32_t const* number() const { return number_; }
  std::int32_t const* first() const { return first_ + 1; }

  /// For the device's algorithms.
  void* take(std::size_t bytes) { return scratch_.template take<char>(device_, bytes); }

 private:
  D device_;
  growing_buffer<D> keys_, sorted_keys_, numbers_, sorted_numbers_, firsts_, scratch_;
  detail::cached_allocator<D> allocator_;
  std::int64_t* ids_ = nullptr;
  std::int32_t* number_ = nullptr;
  std::int32_t* first_ = nullptr;  // how many firsts, then they
  std::int64_t rows_ = 0;
  std::int32_t size_ = 0;
};

}  // namespace pushpull::pass
