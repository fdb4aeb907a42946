/// @file
/// The row-sparse tensors of one call, and what each owner's pass reads of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/detail/finite.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/pass/row_order.hpp>
#include <pushpull/pass/row_schedule.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/staging.hpp>
#include <pushpull/tensor/row_sparse.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// Which rows a push of row-sparse gradients updates. A store without a rule has no choice: it stores the rows that
/// came, and zeros elsewhere.
enum class row_updates {
  lazy,  ///< Those that came. The others keep weight and states; t counts for the whole key. The first update of a key
  ///< is a standard one where the rule's states do not begin at 0: ema, lookahead, dcasgd, adagrad's initial value.
  standard  ///< All: those that did not come see a zero gradient.
};

/// One row-sparse tensor or a range of them, of element type `T`.
template <class R, class T>
concept RowSparseTensorsOf = RowSparseTensorOf<R, T> || (!TensorLike<R> && std::ranges::input_range<R> &&
                                                         RowSparseTensorOf<std::ranges::range_reference_t<R>, T> &&
                                                         LastingRowSparseTensor<std::ranges::range_reference_t<R>>);

/// For each key of a list, one row-sparse tensor or a range of them.
template <class R, class T>
concept RowSparseListOf = std::ranges::forward_range<R> && RowSparseTensorsOf<std::ranges::range_reference_t<R>, T>;

/// One or a range of `row_sparse` that a call may fill.
template <class R, class T, class D>
concept RowSparseOutputs =
    std::same_as<R, row_sparse<T, D>&> ||
    (std::ranges::input_range<R> && std::same_as<std::ranges::range_reference_t<R>, row_sparse<T, D>&>);

/// Ids of rows: one tensor of numbers or a range of them.
template <class R>
concept RowIds = TensorLike<R> || (std::ranges::input_range<R> && LastingTensorLike<std::ranges::range_reference_t<R>>);

namespace detail {

template <class R>
consteval bool rows_last() {
  if constexpr (RowSparseTensor<std::remove_cvref_t<R>>) {
    return LastingRowSparseTensor<R>;
  } else {
    return std::is_lvalue_reference_v<R> || std::ranges::borrowed_range<R> ||
           LastingRowSparseTensor<std::ranges::range_value_t<R>>;
  }
}

}  // namespace detail

/// As OutlivesCall.
template <class R, bool Synchronous, class D>
concept RowsOutliveCall = (Synchronous || detail::rows_last<R>()) && InReachOf<R, D>;

namespace detail {

/// Calls f(tensor) for one row-sparse tensor or for each of a range.
template <class R, class F>
void for_each_row_sparse(R&& tensors, F const& f) {
  if constexpr (RowSparseTensor<std::remove_cvref_t<R>>) {
    f(tensors);
  } else {
    for (auto&& tensor : tensors) f(tensor);
  }
}

/// One row-sparse tensor, or the first of a range: for its type.
template <class R>
decltype(auto) first_rows(R& tensors) {
  if constexpr (RowSparseTensor<std::remove_cvref_t<R>>) {
    return (tensors);
  } else {
    return *std::ranges::begin(tensors);
  }
}

/// Rows of one source. No device: host memory, while the store's devices are others.
template <class G, Device D>
struct row_source {
  G const* values;
  std::int64_t const* ids;
  std::int64_t rows;
  std::optional<D> device;
};

/// The row id that a number of any element type is. @throws invalid_argument unless it is a whole number of 63 bits
template <class View, ElementType T>
std::int64_t row_id(char const* call, View key, T x) {
  if constexpr (std::floating_point<accumulation_t<T>>) {
    double const number = convert<double>(x);
    // What is not finite fails the first comparison, whatever the compiler may think of NaN.
    expects<invalid_argument>(
        is_finite(number) && number > -0x1p63 && number < 0x1p63 && std::equal_to<double>{}(std::trunc(number), number),
        [&] {
          std::ostringstream text;
          text << call << ": " << key_text(key) << ": whole numbers below 2^63 expected as row ids, got " << number;
          return text.str();
        });
  }
  return convert<std::int64_t>(x);
}

/// Whether the ids, in host memory, ascend, each once. @throws invalid_argument if one does not exist
inline bool check_row_ids(char const* call, std::string const& key, std::span<std::int64_t const> ids,
                          std::int64_t rows) {
  bool ascending = true;
  std::int64_t before = -1;
  for (std::int64_t const id : ids) {
    expects<invalid_argument>(id >= 0 && id < rows, [&] {
      return std::string(call) + ": " + key + " has " + std::to_string(rows) + " rows, row " + std::to_string(id) +
             " came";
    });
    ascending = ascending && id > before;
    before = id;
  }
  return ascending;
}

/// @throws invalid_argument if a call brings more rows than positions can be counted
inline void expect_countable(char const* call, std::string const& key, std::int64_t rows) {
  expects<invalid_argument>(rows < std::numeric_limits<std::int32_t>::max(), [&] {
    return std::string(call) + ": " + key + " takes fewer than 2^31 - 1 rows in one call, got " + std::to_string(rows);
  });
}

/// Rows of one source where a device reads them: places before `end` in the order of the sources.
template <class G>
struct placed_rows {
  G const* values;
  std::int32_t begin, end;
};

/// values[i] = the i-th row in the order of ids.
template <class G>
struct find_values {
  placed_rows<G> const* sources;
  std::int32_t count;
  std::int32_t const* number;
  std::int64_t row_length;
  G const** values;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    std::int32_t const place = number[i];
    std::int32_t const k = pass::partition_point(0, count, [&](std::int32_t s) { return sources[s].end <= place; });
    values[i] = sources[k].values + (place - sources[k].begin) * row_length;
  }
};

/// Writes the ids of the distinct rows, and their number, to an output.
struct write_row_ids {
  std::int64_t const* ids;
  std::int32_t const* first;
  pass::row_counts const* counts;
  std::int64_t* out;
  std::int64_t* count;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t u) const {
    if (u == 0) *count = counts->distinct;
    if (u < counts->distinct) out[u] = ids[first[u]];
  }
};

/// Rows that one device has sorted, and their values where it reads them.
template <class G, Device D>
class row_tables {
 public:
  /// @param count  Of the device's staging memory.
  row_tables(D const& device, std::size_t devices, staged_bytes count = {})
      : device_(device), order_(device), devices_(devices), staging_(std::move(count)) {}

  /// Enqueues the sort of the sources' rows. @param ascending  As they stand they are sorted.
  void sort(std::span<row_source<G, D> const> sources, std::int64_t rows, bool ascending) {
    ids_.clear();
    for (auto const& s : sources) ids_.push_back({s.ids, s.rows});
    order_.sort(ids_, rows, ascending);
    counts_.template take<pass::row_counts>(device_, devices_);
  }

  /// Enqueues the search for the values of sorted rows; copies those that the device cannot reach.
  void find(std::span<row_source<G, D> const> sources, std::int64_t row_length) {
    staging_.clear();
    placed_.rows.clear();
    aligned_ = true;
    std::int32_t place = 0;
    for (auto const& s : sources) {
      G const* values = s.values;
      if (!reaches(device_, operand<G const, D>{values, s.device, 0})) {
        auto const bytes = static_cast<std::size_t>(s.rows * row_length) * sizeof(G);
        void* const staged = staging_.take(device_, bytes);
        device_.copy(staged, values, bytes);
        values = static_cast<G const*>(staged);
      }
      auto const rows = static_cast<std::int32_t>(s.rows);
      placed_.rows.push_back({values, place, place + rows});
      place += rows;
      aligned_ = aligned_ && reinterpret_cast<std::uintptr_t>(values) % 16 == 0;
    }
    auto const count = static_cast<std::int32_t>(placed_.rows.size());
    auto** const values = values_.template take<G const*>(device_, static_cast<std::size_t>(order_.size()));
    device_.for_each(order_.size(),
                     find_values<G>{placed_.commit(device_), count, order_.number(), row_length, values});
    auto const length = static_cast<std::size_t>(row_length);
    if (zeros_ < length) {
      device_.fill_zero(absent_.template take<G>(device_, length), length * sizeof(G));
      zeros_ = length;
    }
  }

  /// Enqueues the counts of device number n, which as an owner has the rows [begin, end).
  void count(std::size_t n, std::int64_t begin, std::int64_t end) const { order_.count(counts(n), begin, end); }

  /// Enqueues the ids of all rows, each once, into an output. After `count` of some device n.
  void write_ids(std::size_t n, std::int64_t* out, std::int64_t* count) const {
    device_.for_each(std::max(order_.size(), 1), write_row_ids{order_.ids(), order_.first(), counts(n), out, count});
  }

  /// Appends the distinct ids in [begin, end), on a host. Device number 0 is counted anew.
  void append_distinct(std::vector<std::int64_t>& ids, std::int64_t begin, std::int64_t end) const
    requires HostDevice<D>
  {
    count(0, begin, end);
    for (std::int32_t u = counts(0)->begin; u < counts(0)->end; ++u) ids.push_back(order_.ids()[order_.first()[u]]);
  }

  /// What the pass of device number n reads in addition to its shard.
  template <class Run>
  void describe(std::size_t n, pass::row_operands<Run>& operands) const {
    operands.ids = order_.ids();
    operands.first = order_.first();
    operands.counts = counts(n);
    operands.gradients = values_.template data<G const*>();
    operands.absent = absent_.template data<G>();
  }
  bool aligned() const { return aligned_; }
  /// Given rows: no less than distinct ones.
  std::int64_t size() const { return order_.size(); }

 private:
  pass::row_counts* counts(std::size_t n) const { return counts_.template data<pass::row_counts>() + n; }

  D device_;
  pass::row_order<D> order_;
  std::size_t devices_;  // of the store, each with counts of its own
  std::vector<typename pass::row_order<D>::source> ids_;
  pass::device_table<D, placed_rows<G>> placed_;
  pass::growing_buffer<D> counts_, values_, absent_;
  staging<D> staging_;
  std::size_t zeros_ = 0;
  bool aligned_ = true;
};

/// The tables of a store's devices. Owners that read the first one's memory share its tables where the host sorts: it
/// would sort the same once more.
template <class G, Device D>
class shared_row_tables {
 public:
  shared_row_tables(std::vector<D> const& devices, std::vector<staged_bytes> const& counts) {
    for (std::size_t n = 0; n < devices.size(); ++n) {
      D const& device = devices[n];
      bool const shares = HostDevice<D> && device.can_access(devices.front());
      used_.push_back(shares ? 0 : tables_.size());
      if (!shares || tables_.empty()) tables_.emplace_back(device, devices.size(), counts[n]);
    }
  }

  row_tables<G, D>& of_device(std::size_t n) { return tables_[used_[n]]; }
  /// f(tables) for all that are not the same.
  template <class F>
  void for_each(F const& f) {
    for (auto& tables : tables_) f(tables);
  }

 private:
  std::vector<row_tables<G, D>> tables_;
  std::vector<std::size_t> used_;
};

}  // namespace detail
}  // namespace pushpull
