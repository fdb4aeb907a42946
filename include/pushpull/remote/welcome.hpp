/// @file
/// The payload of a welcome: facts about the server that a worker needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <pushpull/config.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The flag of a heartbeat's answer: requests over an earlier connection may be lost, and are to be sent again.
inline constexpr std::uint8_t connection_is_new = 1;

/// Facts about a server.
struct server_welcome {
  std::uint32_t number = 0;      ///< Among the servers.
  std::uint32_t workers = 0;     ///< That the job has at least.
  std::uint8_t element = 0;      ///< The element type of its store.
  bool has_updater = false;      ///< Whether its store applies a rule.
  bool whole_keys = false;       ///< Whether its rule needs keys in one piece.
  std::uint8_t consistency = 0;  ///< The index of the alternative in remote::consistency.
  bool is_durable = false;       ///< Whether answers to updates wait for a snapshot.
  std::uint32_t dead_after = 0;  ///< In milliseconds.
  std::uint64_t largest_payload = 0;
  std::uint64_t directory = 0;  ///< Of server 0: the number of its directory of keys.

  /// No answer waits for another worker or for the disk, so a worker may bound what is under way.
  bool answers_at_once() const { return consistency == 0 && !is_durable; }
};

/// The facts in which servers of a job differ, as a text; empty if there are none that may not.
inline std::string difference(server_welcome const& a, server_welcome const& b) {
  std::string text;
  auto const compare = [&](char const* fact, std::string const& of_a, std::string const& of_b) {
    if (of_a != of_b) text += (text.empty() ? "" : ", ") + std::string(fact) + ' ' + of_a + " and " + of_b;
  };
  auto const type = [](std::uint8_t consistency) {
    return std::string(consistency == 0 ? "asynchronous" : consistency == 1 ? "bounded" : "rounds");
  };
  compare("elements of type", std::string(element_name(a.element)), std::string(element_name(b.element)));
  compare("consistency", type(a.consistency), type(b.consistency));
  compare("workers", std::to_string(a.workers), std::to_string(b.workers));
  compare("rules for", a.whole_keys ? "whole keys" : "pieces", b.whole_keys ? "whole keys" : "pieces");
  return text;
}

inline constexpr std::size_t welcome_bytes = 4 + 4 + 1 + 1 + 1 + 1 + 1 + 4 + 8 + 8;

inline std::string to_text(server_welcome const& w) {
  std::string text(welcome_bytes, '\0');
  byte_writer out(std::as_writable_bytes(std::span(text)));
  out.put(w.number);
  out.put(w.workers);
  out.put(w.element);
  out.put(static_cast<std::uint8_t>(w.has_updater));
  out.put(static_cast<std::uint8_t>(w.whole_keys));
  out.put(w.consistency);
  out.put(static_cast<std::uint8_t>(w.is_durable));
  out.put(w.dead_after);
  out.put(w.largest_payload);
  out.put(w.directory);
  return text;
}
inline std::optional<server_welcome> welcome_in(std::span<std::byte const> payload) {
  if (payload.size() != welcome_bytes) return std::nullopt;
  byte_reader in(payload);
  server_welcome w;
  w.number = in.get<std::uint32_t>();
  w.workers = in.get<std::uint32_t>();
  w.element = in.get<std::uint8_t>();
  w.has_updater = in.get<std::uint8_t>() != 0;
  w.whole_keys = in.get<std::uint8_t>() != 0;
  w.consistency = in.get<std::uint8_t>();
  w.is_durable = in.get<std::uint8_t>() != 0;
  w.dead_after = in.get<std::uint32_t>();
  w.largest_payload = in.get<std::uint64_t>();
  w.directory = in.get<std::uint64_t>();
  return w;
}

}  // namespace pushpull::remote::detail
