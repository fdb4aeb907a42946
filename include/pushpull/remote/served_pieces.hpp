/// @file
/// The pieces that a server holds: which requests are applied, which wait, and which were applied before.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/pieces.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// A request that is answered later.
struct kept_request {
  message_header header;
  zmq::message_t payload;
};

/// The updates of one worker on one piece.
struct applied_updates {
  std::uint64_t incarnation = 0;
  std::uint64_t sequence = 0;  ///< Of the last one.
  std::uint64_t clock = 0;     ///< Pushes, counted from those of the slowest worker when this one came.
  bool is_late = false;        ///< Rounds go on without it until its first push.
};

/// A piece of a key.
struct served_piece {
  std::int64_t number = 0;  ///< Its key in the store.
  pushpull::shape shape;
  std::uint64_t elements = 0;
  std::uint64_t row_length = 1;
  std::size_t bytes = 0;
  std::uint64_t version = 0;                       ///< Updates.
  std::uint64_t directory = 0;                     ///< The number of server 0's directory that has its key.
  std::vector<applied_updates> applied;            ///< By worker.
  std::vector<std::optional<kept_request>> round;  ///< By worker: the pushes of the round that is not complete.
  std::vector<kept_request> waiting;               ///< Pulls that wait for slower workers.

  /// Whether an update was applied before: the worker asks again, since the answer was lost.
  bool was_applied(message_header const& h) const {
    return h.worker < applied.size() && applied[h.worker].incarnation == h.incarnation &&
           h.sequence <= applied[h.worker].sequence;
  }
  void note(message_header const& h, bool is_push) {
    applied_updates& a = of(h.worker);
    a.sequence = a.incarnation == h.incarnation ? std::max(a.sequence, h.sequence) : h.sequence;
    a.incarnation = h.incarnation;
    if (is_push) ++a.clock;
  }
  applied_updates& of(std::size_t worker) {
    if (applied.size() <= worker) applied.resize(worker + 1);
    return applied[worker];
  }
  bool has_round() const {
    for (auto const& request : round)
      if (request) return true;
    return false;
  }
};

/// All of them, by key and piece.
class served_pieces {
 public:
  served_piece* find(std::int64_t key, std::uint32_t piece) {
    auto const found = pieces_.find({key, piece});
    return found == pieces_.end() ? nullptr : &found->second;
  }
  served_piece& add(message_header const& h, std::size_t element_bytes) {
    served_piece p;
    p.number = h.key * most_pieces + h.piece;
    p.elements = h.elements;
    p.row_length = h.row_length;
    p.directory = h.version;
    p.bytes = static_cast<std::size_t>(h.elements) * element_bytes;
    auto const elements = static_cast<std::int64_t>(h.elements), length = static_cast<std::int64_t>(h.row_length);
    p.shape = length == 1 ? pushpull::shape{elements} : pushpull::shape{elements / length, length};
    return pieces_.insert_or_assign({h.key, h.piece}, std::move(p)).first->second;
  }
  void erase(message_header const& h) { pieces_.erase({h.key, h.piece}); }
  auto begin() { return pieces_.begin(); }
  auto end() { return pieces_.end(); }
  auto begin() const { return pieces_.begin(); }
  auto end() const { return pieces_.end(); }
  std::size_t size() const { return pieces_.size(); }

 private:
  std::map<std::pair<std::int64_t, std::uint32_t>, served_piece> pieces_;
};

}  // namespace pushpull::remote::detail
