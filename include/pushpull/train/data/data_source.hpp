/// @file
/// The concept of a source of batches.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/descriptor.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The arrays of a source's batches; shapes have the rows of a full batch.
struct source_descs {
  std::vector<descriptor> data{}, labels{};
};

namespace detail {

template <class B>
inline constexpr bool is_batch = false;
template <class Data, class Label>
inline constexpr bool is_batch<batch<Data, Label>> = true;

}  // namespace detail

/// Batches of one epoch after the other.
/// Needs:  next() -> std::optional<batch>: the next batch of the epoch, or nothing at its end. The batch's memory is valid
///         until the next call of `next` or `reset`;
///         reset(): the next epoch begins; before the first batch of an epoch it changes nothing;
///         descs() -> source_descs.
/// Models: data::array_source, data::range_source, data::prefetcher.
template <class S>
concept DataSource = requires(S& source, S const& read) {
  requires detail::is_batch<typename decltype(source.next())::value_type>;
  { source.next() } -> std::same_as<std::optional<typename decltype(source.next())::value_type>>;
  source.reset();
  { read.descs() } -> std::same_as<source_descs>;
};

/// The type of a source's batches.
template <DataSource S>
using batch_of = typename decltype(std::declval<S&>().next())::value_type;

/// A place in the data: so many epochs and batches were taken before.
struct source_position {
  std::int64_t epoch = 0, batch = 0;

  friend bool operator==(source_position const&, source_position const&) = default;
};

/// A source that resumes: the batches after `seek(p)` are those that followed when `position()` was p.
/// Needs:  a DataSource; position() -> source_position; seek(source_position);
///         batches() -> std::int64_t: those of an epoch.
template <class S>
concept SeekableSource = DataSource<S> && requires(S& source, S const& read, source_position position) {
  { read.position() } -> std::same_as<source_position>;
  source.seek(position);
  { read.batches() } -> std::same_as<std::int64_t>;
};

}  // namespace pushpull::train
