/// @file
/// The slots of a table's ids: who gets one, and who loses one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/table/row_usage.hpp>
#include <pushpull/store/table/slot_map.hpp>
#include <pushpull/store/table/table_options.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

using id_list = std::span<std::int64_t const>;

/// The new ids of a call, each once and in the order of their first appearance, and where they go.
struct new_ids {
  std::vector<std::int64_t> ids = {};                           ///< They get rows.
  std::vector<id_usage> usages = {};                            ///< Theirs.
  std::vector<std::int64_t> slots = {};                         ///< Theirs.
  std::vector<std::int64_t> victims = {};                       ///< Slots of ids that go.
  std::vector<std::int64_t> gone = {};                          ///< These ids.
  std::vector<std::pair<std::int64_t, id_usage>> waiting = {};  ///< They get none yet.
  std::unordered_map<std::int64_t, std::size_t> number = {};    ///< Among `ids`, or no_number.
  static constexpr std::size_t no_number = static_cast<std::size_t>(-1);
};

/// Ids, their slots and their usage.
/// @tparam Map  A SlotMap.
template <class Map>
class table_slots {
 public:
  explicit table_slots(table_options const& options) : options_(options), candidates_(options.candidates) {}

  row_usage const& usage() const { return usage_; }
  row_usage& usage() { return usage_; }
  candidate_list const& candidates() const { return candidates_; }
  Map const& map() const { return map_; }

  template <class D>
  std::int64_t slot(D const& device, std::int64_t const& id) const {
    std::int64_t result = no_slot;
    map_.find(device, id_list(&id, 1), std::span(&result, 1));
    return result;
  }
  /// @param slots  One per id of all sources. @returns whether none is no_slot
  template <class D>
  bool find(D const& device, std::span<id_list const> sources, std::span<std::int64_t> slots) const {
    bool found = true;
    for (id_list const ids : sources) {
      auto const own = slots.first(ids.size());
      map_.find(device, ids, own);
      found = found && std::find(own.begin(), own.end(), no_slot) == own.end();
      slots = slots.subspan(ids.size());
    }
    return found;
  }

  /// Ids without slots, in call number `now` of a step that began with call number `step`. Nothing changes.
  /// @param message  message(rows): of the error that so many rows are needed. @throws table_full
  template <class Message>
  new_ids find_new(std::span<id_list const> sources, std::span<std::int64_t const> slots, std::int64_t now,
                   std::int64_t step, Message const& message) const {
    new_ids result;
    std::size_t i = 0;
    for (id_list const ids : sources)
      for (std::int64_t const id : ids) {
        if (slots[i++] != no_slot) continue;
        auto const [place, is_new] = result.number.try_emplace(id, new_ids::no_number);
        if (!is_new) continue;
        id_usage own = options_.admission > 1 ? candidates_.usage(id) : id_usage{};
        own.see(now, step);
        if (own.seen < options_.admission) {
          result.waiting.emplace_back(id, own);
          continue;
        }
        place->second = result.ids.size();
        result.ids.push_back(id);
        result.usages.push_back(own);
      }
    auto const count = static_cast<std::int64_t>(result.ids.size());
    std::int64_t const lacking = count - (options_.capacity - usage_.size());
    if (lacking > 0) {
      if (options_.evicts != eviction::none)
        result.victims = usage_.victims(options_.evicts, std::max(lacking, options_.evict_at_least), slots, step);
      auto const going = static_cast<std::int64_t>(result.victims.size());
      expects<table_full>(going >= lacking, [&] { return message(usage_.size() - going + count); });
      result.gone = ids_of(result.victims);
    }
    result.slots = usage_.lowest_free(count, result.victims);
    return result;
  }
  /// Gives new ids their slots. @param write  write(): the rows. @throws what it does and out_of_memory; then at most candidates were
  /// counted, as the same call counts them when it is made again
  template <class D, class Write>
  void admit(D const& device, new_ids const& fresh, Write const& write) {
    usage_.reserve(fresh.slots.empty() ? 0 : fresh.slots.back() + 1);
    auto const count_waiting = [&] {
      for (auto const& [id, own] : fresh.waiting) candidates_.set(id, own);
    };
    if (fresh.ids.empty()) return count_waiting();
    map_.reserve(static_cast<std::size_t>(usage_.size()) + fresh.ids.size());
    map_.insert(device, id_list(fresh.ids), id_list(fresh.slots));
    try {
      count_waiting();
      write();  // last: rows of ids that go are written over
    } catch (...) {
      map_.erase(device, id_list(fresh.ids));
      throw;
    }
    map_.erase(device, id_list(fresh.gone));
    usage_.change(fresh.victims, fresh.slots, fresh.ids, fresh.usages);
    for (std::int64_t const id : fresh.ids) candidates_.erase(id);
  }
  /// Sets the slots of those ids that have got some.
  static void fill(new_ids const& fresh, std::span<id_list const> sources, std::span<std::int64_t> slots) {
    std::size_t i = 0;
    for (id_list const ids : sources)
      for (std::int64_t const id : ids) {
        std::int64_t& slot = slots[i++];
        if (slot != no_slot) continue;
        std::size_t const number = fresh.number.at(id);
        if (number != new_ids::no_number) slot = fresh.slots[number];
      }
  }

  /// Evicts `count` ids.
  template <class D>
  void evict(D const& device, std::int64_t count, std::int64_t step) {
    auto const victims = usage_.victims(options_.evicts, count, {}, step);
    auto const gone = ids_of(victims);
    usage_.reserve(usage_.slots());
    map_.erase(device, id_list(gone));
    usage_.change(victims, {}, {}, {});
  }

  /// Ids of an empty table, with ascending slots. @throws std::bad_alloc, out_of_memory
  template <class D>
  void restore(D const& device, id_list ids, id_list slots, std::span<id_usage const> usages) {
    usage_.reserve(slots.empty() ? 0 : slots.back() + 1);
    map_.insert(device, ids, slots);
    usage_.change({}, slots, ids, usages);
  }
  void restore_candidate(std::int64_t id, id_usage const& own, bool newer) { candidates_.restore(id, own, newer); }

 private:
  std::vector<std::int64_t> ids_of(id_list slots) const {
    std::vector<std::int64_t> ids;
    for (std::int64_t const slot : slots) ids.push_back(usage_.id(slot));
    return ids;
  }

  table_options options_;
  Map map_;
  row_usage usage_;
  candidate_list candidates_;
};

}  // namespace pushpull::detail
