/// @file
/// The entry of new keys by a worker: their registration on server 0, and their values' way to all servers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/remote_operation.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/tensor/tensor.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Requests that give all pieces of a key a value.
template <class T>
void add_value(request_group& group, remote_key const& key, message_kind kind, T const* value, std::uint8_t flags) {
  for (std::size_t i = 0; i < key.pieces.size(); ++i) {
    request& r = group.requests.emplace_back(key.about(kind, i, element_code<T>));
    r.header.flags = flags;
    r.payload = std::as_bytes(std::span(value + key.pieces[i].begin, static_cast<std::size_t>(key.pieces[i].size())));
  }
}

/// Gives new keys to the servers.
template <ElementType T, Device D>
class key_entry {
 public:
  key_entry(remote_parts<T, D>& parts, worker_options const& options) : parts_(parts), options_(options) {}

  /// A value in host memory: of the caller, or converted.
  struct host_value {
    T const* data = nullptr;
    std::optional<tensor<T, cpu_device<>>> converted = std::nullopt;
  };
  /// Enters keys on the servers, and then in this worker. @param value_of  value_of(i) -> host_value
  template <class ValueOf>
  void enter(std::vector<std::unique_ptr<remote_key>> added, ValueOf const& value_of) {
    std::vector<std::size_t> all(added.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    std::exception_ptr failed;
    // A server that was started again without pieces of a key lets its value be given anew.
    if (auto const missing = register_keys(added, all, 0, value_of, failed); !missing.empty())
      if (!register_keys(added, missing, value_is_missing, value_of, failed).empty() && failed == nullptr)
        failed = std::make_exception_ptr(unknown_key("init: a server has lost its pieces"));
    if (failed != nullptr) std::rethrow_exception(failed);
    for (auto& key : added) parts_.keys.add(std::move(key));
  }

 private:
  /// A key whose requests are on their way.
  struct sent_key {
    sent_key(std::size_t i, std::int64_t key, bool gives) : index(i), number(key), gives_value(gives) {}
    std::size_t index;  // of the call's keys
    std::int64_t number;
    bool gives_value;  // else its pieces are looked for
    host_value value = {};
    request_group group = {};
    std::exception_ptr error = nullptr;
  };
  /// Registers keys, and sends the values of those of which this worker is asked for one. Values of some keys may come from
  /// workers that wait for those of this worker: each answer is served when it comes. After an error of one key the others are
  /// served all the same, since other workers wait for them. @returns those of which servers have no pieces
  template <class ValueOf>
  std::vector<std::size_t> register_keys(std::vector<std::unique_ptr<remote_key>> const& added,
                                         std::vector<std::size_t> const& chosen, std::uint8_t flags,
                                         ValueOf const& value_of, std::exception_ptr& failed) const {
    std::vector<std::string> texts;
    request_group registrations;
    registrations.tells_each = true;
    for (std::size_t const i : chosen) {
      remote_key const& key = *added[i];
      registered_key r{name_of(key.key), {}, static_cast<std::uint64_t>(key.row_length), element_code<T>};
      for (std::size_t axis = 0; axis < key.shape.rank(); ++axis) r.extents.push_back(key.shape[axis]);
      r.cut = cut_text(parts_.servers.servers(), options_, parts_.servers.facts().whole_keys);
      texts.push_back(to_payload(r));
      message_header& h = registrations.requests.emplace_back().header;
      h = {.kind = message_kind::register_key, .element = element_code<T>, .flags = flags};
      h.row_length = r.row_length;
    }
    for (std::size_t n = 0; n < chosen.size(); ++n)
      registrations.requests[n].payload = std::as_bytes(std::span(texts[n]));
    registrations.begin();
    parts_.servers.submit(registrations);
    std::vector<std::size_t> missing;
    std::vector<std::unique_ptr<sent_key>> sent;
    std::size_t converted_bytes = 0;
    for (;;) {
      request* answered = registrations.next(false);
      if (answered == nullptr || converted_bytes > most_converted) {
        finish_values(sent, missing, failed);
        converted_bytes = 0;
        if (answered == nullptr) answered = registrations.next(true);
      }
      if (answered == nullptr) break;
      std::size_t const i = chosen[static_cast<std::size_t>(answered - registrations.requests.data())];
      remote_key& key = *added[i];
      if (answered->error != nullptr) {
        if (failed == nullptr) failed = answered->error;
        continue;
      }
      key.number = answered->answer.key;
      bool const gives_value = (answered->answer.flags & asker_sends_value) != 0;
      sent_key& s = *sent.emplace_back(std::make_unique<sent_key>(i, key.number, gives_value));
      try {
        place(key);
        if (gives_value) {
          s.value = value_of(i);
          if (s.value.converted) converted_bytes += key.shape.size() * sizeof(T);
          add_value(s.group, key, message_kind::init, s.value.data, 0);
        } else {
          for (std::size_t piece = 0; piece < key.pieces.size(); ++piece)
            s.group.requests.push_back(key.about(message_kind::find_piece, piece, element_code<T>));
        }
        for (request& r : s.group.requests) r.header.version = parts_.servers.directory();
        s.group.begin();
        parts_.servers.submit(s.group);
      } catch (...) {
        s.error = std::current_exception();
      }
    }
    return missing;
  }
  /// Waits for values that were sent, and tells server 0 of each; and for pieces that were looked for.
  void finish_values(std::vector<std::unique_ptr<sent_key>>& sent, std::vector<std::size_t>& missing,
                     std::exception_ptr& failed) const {
    request_group ready;
    for (auto const& s : sent) {
      try {
        if (s->error != nullptr) std::rethrow_exception(s->error);
        s->group.wait();
      } catch (unknown_key const&) {
        s->error = std::current_exception();
        if (!s->gives_value) missing.push_back(s->index);
      } catch (...) {
        s->error = std::current_exception();
      }
      if (s->error != nullptr && failed == nullptr && (missing.empty() || missing.back() != s->index))
        failed = s->error;
      if (!s->gives_value) continue;
      message_header& h = ready.requests.emplace_back().header;
      h.kind = message_kind::key_ready;
      h.key = s->number;
      h.flags = s->error != nullptr ? value_failed : std::uint8_t{0};
    }
    sent.clear();
    try {
      if (ready.requests.empty()) return;
      ready.begin();
      parts_.servers.submit(ready);
      ready.wait();
    } catch (...) {
      if (failed == nullptr) failed = std::current_exception();
    }
  }
  void place(remote_key& key) const {
    std::int64_t const placed = pushpull::detail::number_of(any_key_view(key.key), key.number);
    worker_options options = options_;
    if (parts_.servers.facts().whole_keys) {
      options.piece_bytes = std::numeric_limits<std::int64_t>::max();
      options.bound = std::numeric_limits<std::int64_t>::max();
    }
    key.pieces = pieces_of({placed, static_cast<std::int64_t>(key.shape.size()), key.row_length, sizeof(T)},
                           parts_.servers.servers(), options);
  }

  static constexpr std::size_t most_converted = std::size_t{1} << 28;  // bytes of initial values that wait in copies

  remote_parts<T, D>& parts_;
  worker_options const& options_;
};

}  // namespace pushpull::remote::detail
