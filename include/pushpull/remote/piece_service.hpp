/// @file
/// A server's work on pieces: every request is compared with the piece before its payload is read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <zmq.hpp>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/answers.hpp>
#include <pushpull/remote/compression.hpp>
#include <pushpull/remote/frames.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/piece_checks.hpp>
#include <pushpull/remote/piece_flags.hpp>
#include <pushpull/remote/served_pieces.hpp>
#include <pushpull/remote/served_store.hpp>
#include <pushpull/remote/snapshot_keeper.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Initial values, pushes and pulls of pieces, and when they are applied. Belongs to the server's thread.
class piece_service {
 public:
  piece_service(served_store& store, membership& members, answer_sender& answers, remote::consistency const& when)
      : store_(store), members_(members), answers_(answers), when_(when) {}

  served_pieces& pieces() { return pieces_; }
  std::uint64_t changes = 0;          ///< Of pieces, so far, but for initial values.
  bool has_new_values = false;        ///< Initial ones, since somebody has set it to false.
  snapshot_keeper* keeper = nullptr;  ///< Of initial values; null: none.

  /// A request about a piece, of a worker that is alive. @returns false if it is about something else
  bool handle(message_header const& h, zmq::message_t&& payload) {
    if (!is_about_pieces(h.kind)) return false;
    try {
      serve(h, std::move(payload));
    } catch (unknown_key const& thrown) {
      answers_.fail(h, message_error::unknown_key, thrown.what());
    } catch (shape_mismatch const& thrown) {
      answers_.fail(h, message_error::shape_mismatch, thrown.what());
    } catch (invalid_argument const& thrown) {
      answers_.fail(h, message_error::invalid_argument, thrown.what());
    } catch (std::exception const& thrown) {
      answers_.fail(h, message_error::failed, thrown.what());
    }
    return true;
  }

  /// A worker came. @param is_back  It had counted as dead. @param is_late  The job had all of its workers before.
  void on_arrival(std::uint32_t worker, std::uint64_t incarnation, bool is_back, bool is_late) {
    for (auto& [key, piece] : pieces_) {
      if (piece.of(worker).incarnation != incarnation) {
        std::uint64_t const clock = slowest(piece, worker);
        piece.of(worker) = {.incarnation = incarnation, .clock = clock, .is_late = is_late};
        if (worker < piece.round.size()) piece.round[worker].reset();  // of the process that had its rank
      } else if (is_back) {  // the others do not wait until it has made up for its absence
        std::uint64_t const clock = slowest(piece, worker);
        piece.of(worker).clock = std::max(piece.of(worker).clock, clock);
      }
    }
  }
  /// A worker left, or died.
  void on_departure() {
    bool const in_rounds = std::holds_alternative<remote::rounds>(when_);
    for (auto& [key, piece] : pieces_) {
      if (in_rounds) try_round(piece);
      release_pulls(piece);
    }
  }

 private:
  /// Reads of the payload what the header says, and no more. @throws what the worker is told
  void serve(message_header const& h, zmq::message_t&& payload) {
    expect_element(h, store_.element());
    if (h.kind == message_kind::init) return init(h, std::move(payload));
    served_piece* const piece = pieces_.find(h.key, h.piece);
    pushpull::detail::expects<unknown_key>(
        piece != nullptr, [&] { return "this server has no " + piece_text(h) + ": it was started without"; });
    expect_piece(h, *piece);
    if (h.kind == message_kind::find_piece) return answers_.send(h, message_kind::acknowledge);
    if ((h.kind == message_kind::push || h.kind == message_kind::pushpull) && (h.flags & coded_gradient) != 0) {
      payload = decoded(*piece, payload);
    } else {
      expect_payload(h, *piece, payload.size(), store_.element_bytes());
    }
    if (h.kind == message_kind::push_rows || h.kind == message_kind::pull_rows) {
      payload = aligned(std::move(payload));
      expect_ids(h, *piece, payload);
    }
    switch (h.kind) {
      case message_kind::assign: return assign(*piece, h, aligned(std::move(payload)));
      case message_kind::pull: return pull(*piece, h, std::move(payload));
      case message_kind::pull_rows: return pull_rows(*piece, h, std::move(payload));
      default: return push(*piece, h, aligned(std::move(payload)));
    }
  }

  /// Gradients as the store takes them. A piece that is decoded is read by the pass before caches lose it.
  zmq::message_t decoded(served_piece const& piece, zmq::message_t const& codes) {
    expect(store_.element() == element_code<float>, [&] {
      return "push: compressed gradients came, which are float32, the servers' store has " +
             std::string(element_name(store_.element()));
    });
    zmq::message_t gradient(piece.bytes);
    try {
      decoder_.decode(bytes_of(codes), static_cast<std::int64_t>(piece.elements), static_cast<float*>(gradient.data()));
    } catch (invalid_argument const& refused) {
      throw invalid_argument("piece " + std::to_string(piece.number % most_pieces) + " of key number " +
                             std::to_string(piece.number / most_pieces) + ": " + refused.what());
    }
    return gradient;
  }

  void init(message_header const& h, zmq::message_t&& payload) {
    std::size_t const size = store_.element_bytes();
    expect_init(h, payload.size(), size, store_.whole_keys());
    zmq::message_t const value = aligned(std::move(payload));
    served_piece* piece = pieces_.find(h.key, h.piece);
    if (piece != nullptr) expect_piece(h, *piece);
    if (piece != nullptr && (piece->was_applied(h) || piece->version > 0)) return answer_init(h, *piece);
    if (keeper != nullptr) keeper->add_value(h, bytes_of(value));
    if (piece == nullptr) {
      piece = &pieces_.add(h, size);
      try {
        store_.init(piece->number, piece->shape, static_cast<std::byte const*>(value.data()));
      } catch (...) {
        pieces_.erase(h);
        throw;
      }
    } else {  // of a worker that died amid an init
      store_.assign(piece->number, piece->shape, static_cast<std::byte const*>(value.data()), rule_states::keep);
    }
    piece->note(h, false);
    has_new_values = true;
    answer_init(h, *piece);
  }
  void answer_init(message_header const& h, served_piece const& piece) {
    if (keeper != nullptr) return answers_.keep(h, 0);  // until the value is on the medium
    answers_.send(h, message_kind::acknowledge, {}, 0, piece.version);
  }

  void assign(served_piece& piece, message_header const& h, zmq::message_t const& value) {
    if (!piece.was_applied(h)) {
      store_.assign(piece.number, piece.shape, static_cast<std::byte const*>(value.data()),
                    (h.flags & resets_states) != 0 ? rule_states::reset : rule_states::keep);
      piece.note(h, false);
      ++changes;
    }
    answers_.send_update(h, {}, piece.version);
  }

  void push(served_piece& piece, message_header const& h, zmq::message_t&& payload) {
    if (piece.was_applied(h)) {
      ++answers_.counts.repeated;
      return answer_push(piece, h);
    }
    if (std::holds_alternative<remote::rounds>(when_)) return join_round(piece, {h, std::move(payload)});
    kept_request const request{h, std::move(payload)};
    zmq::message_t value;
    bool const answers_now = h.kind == message_kind::pushpull && std::holds_alternative<remote::asynchronous>(when_);
    if (answers_now) value.rebuild(piece.bytes);
    apply(piece, {&request, 1}, answers_now ? static_cast<std::byte*>(value.data()) : nullptr);
    if (answers_now) {
      answers_.send_update(h, std::move(value), piece.version);
    } else {
      answer_push(piece, h);
    }
    release_pulls(piece);
  }
  /// An update that was applied.
  void answer_push(served_piece& piece, message_header const& h) {
    if (h.kind == message_kind::pushpull) return pull(piece, h, {});
    answers_.send_update(h, {}, piece.version);
  }
  /// One step with these requests as its sources. They count as applied, unless it throws.
  void apply(served_piece& piece, std::span<kept_request const> requests, std::byte* value) {
    if (requests.front().header.kind == message_kind::push_rows) {
      std::vector<row_payload> rows;
      for (kept_request const& request : requests) {
        auto const count = static_cast<std::size_t>(request.header.rows);
        auto const* const bytes = static_cast<std::byte const*>(request.payload.data());
        rows.push_back(
            {reinterpret_cast<std::int64_t const*>(bytes), bytes + 8 * count, static_cast<std::int64_t>(count)});
      }
      bool const standard = (requests.front().header.flags & standard_rows) != 0;
      store_.push_rows(piece.number, piece.shape, rows, standard ? row_updates::standard : row_updates::lazy);
    } else {
      gradients_.clear();
      for (kept_request const& request : requests)
        gradients_.push_back(static_cast<std::byte const*>(request.payload.data()));
      store_.push(piece.number, piece.shape, gradients_, value);
    }
    ++piece.version;
    ++changes;
    for (kept_request const& request : requests) piece.note(request.header, true);
  }

  void join_round(served_piece& piece, kept_request&& request) {
    message_header const h = request.header;
    if (auto const dead = lost(); dead != no_worker)
      return answers_.fail(h, message_error::worker_lost, lost_text(dead));
    for (auto const& other : piece.round)
      expect(!other || (other->header.kind == message_kind::push_rows) == (h.kind == message_kind::push_rows),
             [] { return std::string("push: dense and row-sparse gradients came for one round of a key"); });
    if (piece.round.size() <= h.worker) piece.round.resize(h.worker + std::size_t{1});
    auto& own = piece.round[h.worker];
    expect(!own || own->header.incarnation != h.incarnation || own->header.sequence == h.sequence,
           [] { return std::string("push: a second push of one worker came before the round was complete"); });
    own = std::move(request);
    piece.of(h.worker).is_late = false;
    try_round(piece);
  }
  /// The first dead worker, if its death ends rounds.
  std::uint32_t lost() const {
    auto const* const in_rounds = std::get_if<remote::rounds>(&when_);
    if (in_rounds != nullptr && !in_rounds->goes_on)
      for (std::size_t rank = 0; rank < members_.size(); ++rank)
        if (members_[rank].state == worker_state::dead) return static_cast<std::uint32_t>(rank);
    return no_worker;
  }
  static std::string lost_text(std::uint32_t worker) {
    return "push: worker " + std::to_string(worker) + " died, and the round cannot be completed";
  }
  /// Makes the step if all living workers have brought their gradients.
  void try_round(served_piece& piece) {
    if (!piece.has_round()) return;
    std::vector<kept_request> requests;
    std::uint32_t const dead = lost();
    if (dead == no_worker) {
      if (!members_.is_complete()) return;
      for (std::size_t rank = 0; rank < members_.size(); ++rank)
        if (members_.is_alive(rank) && !piece.of(rank).is_late && (rank >= piece.round.size() || !piece.round[rank]))
          return;
    }
    for (auto& request : piece.round)
      if (request) requests.push_back(std::move(*request));
    piece.round.clear();
    if (dead != no_worker) {
      for (kept_request const& request : requests)
        answers_.fail(request.header, message_error::worker_lost, lost_text(dead));
      return;
    }
    bool const pulls = std::any_of(requests.begin(), requests.end(), [](kept_request const& request) {
      return request.header.kind == message_kind::pushpull;
    });
    zmq::message_t value;
    if (pulls) value.rebuild(piece.bytes);
    try {
      apply(piece, requests, pulls ? static_cast<std::byte*>(value.data()) : nullptr);
    } catch (std::exception const& thrown) {
      for (kept_request const& request : requests) answers_.fail(request.header, message_error::failed, thrown.what());
      return;
    }
    for (kept_request const& request : requests) {
      zmq::message_t own;
      if (request.header.kind == message_kind::pushpull) own.copy(value);  // shares the memory
      answers_.send_update(request.header, std::move(own), piece.version);
    }
  }

  /// The clock of the slowest living worker, but for one; if nobody lives, that of the slowest dead one.
  std::uint64_t slowest(served_piece& piece, std::size_t other_than) {
    for (auto const state : {worker_state::alive, worker_state::dead}) {
      std::optional<std::uint64_t> least;
      for (std::size_t rank = 0; rank < members_.size(); ++rank)
        if (members_[rank].state == state && rank != other_than)
          least = std::min(least.value_or(std::numeric_limits<std::uint64_t>::max()), piece.of(rank).clock);
      if (least) return *least;
    }
    return 0;
  }
  bool is_ahead(served_piece& piece, message_header const& h) {
    auto const* const bound = std::get_if<remote::bounded>(&when_);
    if (bound == nullptr || members_.count(worker_state::alive) < 2) return false;
    std::uint64_t const own = piece.of(h.worker).clock;
    return own > bound->ahead && slowest(piece, h.worker) < own - bound->ahead;
  }
  void pull(served_piece& piece, message_header const& h, zmq::message_t&& payload) {
    if (is_ahead(piece, h)) return delay(piece, h, std::move(payload));
    zmq::message_t value(piece.bytes);
    store_.pull(piece.number, piece.shape, static_cast<std::byte*>(value.data()));
    if (h.kind == message_kind::pushpull) return answers_.send_update(h, std::move(value), piece.version);
    answers_.send(h, message_kind::acknowledge, std::move(value), 0, piece.version);
  }
  void pull_rows(served_piece& piece, message_header const& h, zmq::message_t&& payload) {
    if (is_ahead(piece, h)) return delay(piece, h, std::move(payload));
    std::span<std::int64_t const> const ids(static_cast<std::int64_t const*>(payload.data()),
                                            static_cast<std::size_t>(h.rows));
    zmq::message_t values(static_cast<std::size_t>(h.rows * piece.row_length) * store_.element_bytes());
    store_.pull_rows(piece.number, piece.shape, ids, static_cast<std::byte*>(values.data()));
    answers_.send(h, message_kind::acknowledge, std::move(values), 0, piece.version);
  }
  /// A message that comes again takes the place of the first.
  static void delay(served_piece& piece, message_header const& h, zmq::message_t&& payload) {
    std::erase_if(piece.waiting, [&](kept_request const& kept) {
      return kept.header.worker == h.worker && kept.header.sequence == h.sequence;
    });
    piece.waiting.push_back({h, std::move(payload)});
  }
  /// Answers pulls whose workers are no longer ahead, and forgets those of workers that are gone.
  void release_pulls(served_piece& piece) {
    for (std::size_t i = 0; i < piece.waiting.size();) {
      message_header const h = piece.waiting[i].header;
      bool const gone = !members_.is_alive(h.worker) || members_[h.worker].incarnation != h.incarnation;
      if (!gone && is_ahead(piece, h)) {
        ++i;
        continue;
      }
      zmq::message_t payload = std::move(piece.waiting[i].payload);
      piece.waiting.erase(piece.waiting.begin() + static_cast<std::ptrdiff_t>(i));
      if (gone) continue;
      try {
        if (h.kind == message_kind::pull_rows) {
          pull_rows(piece, h, std::move(payload));
        } else {
          pull(piece, h, std::move(payload));
        }
      } catch (std::exception const& thrown) {  // it is no fault of the worker whose message is being served
        answers_.fail(h, message_error::failed, thrown.what());
      }
    }
  }

  served_store& store_;
  membership& members_;
  answer_sender& answers_;
  remote::consistency when_;
  served_pieces pieces_;
  std::vector<std::byte const*> gradients_;
  piece_decoder decoder_;
};

}  // namespace pushpull::remote::detail
