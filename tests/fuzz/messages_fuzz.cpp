/// @file
/// Messages from anybody: a server's parsers and its work on pieces read no byte that did not come.
///
/// An input is a program of messages. Their headers are valid ones with some fields changed, or bytes.
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/remote/control_service.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/piece_service.hpp>
#include <pushpull/remote/welcome.hpp>
#include <pushpull/update/momentum.hpp>

#include "fuzz/input.hpp"

namespace {

namespace pp = pushpull;
namespace remote = pushpull::remote;
namespace update = pushpull::update;
using pushpull::test::fuzz_check;
using pushpull::test::fuzz_input;
using remote::message_kind;

std::uint64_t seen = 0;  // keeps the reads

void read(std::byte const* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) seen += std::to_integer<std::uint64_t>(bytes[i]);
}

/// Touches all memory that it is told of.
class touching_store final : public remote::detail::served_store {
 public:
  std::uint8_t element() const override { return remote::element_code<float>; }
  std::size_t element_bytes() const override { return sizeof(float); }
  bool whole_keys() const override { return false; }
  bool has_updater() const override { return true; }
  void init(std::int64_t piece, pp::shape const& s, std::byte const* value) override {
    fuzz_check(sizes.emplace(piece, s.size()).second, "a piece is made once");
    read(value, s.size() * 4);
  }
  void assign(std::int64_t piece, pp::shape const& s, std::byte const* value, pp::rule_states) override {
    expect(piece, s);
    read(value, s.size() * 4);
  }
  void push(std::int64_t piece, pp::shape const& s, std::span<std::byte const* const> gradients,
            std::byte* value) override {
    expect(piece, s);
    for (std::byte const* const gradient : gradients) {
      fuzz_check(reinterpret_cast<std::uintptr_t>(gradient) % alignof(float) == 0, "gradients are aligned");
      read(gradient, s.size() * 4);
    }
    if (value != nullptr) std::memset(value, 0, s.size() * 4);
  }
  void pull(std::int64_t piece, pp::shape const& s, std::byte* value) override {
    expect(piece, s);
    std::memset(value, 0, s.size() * 4);
  }
  void push_rows(std::int64_t piece, pp::shape const& s, std::span<remote::detail::row_payload const> gradients,
                 pp::row_updates) override {
    expect(piece, s);
    auto const length = static_cast<std::size_t>(pp::detail::row_length_of(s));
    for (auto const& g : gradients) {
      fuzz_check(reinterpret_cast<std::uintptr_t>(g.ids) % alignof(std::int64_t) == 0, "ids are aligned");
      read(reinterpret_cast<std::byte const*>(g.ids), static_cast<std::size_t>(g.rows) * 8);
      read(g.values, static_cast<std::size_t>(g.rows) * length * 4);
    }
  }
  void pull_rows(std::int64_t piece, pp::shape const& s, std::span<std::int64_t const> ids,
                 std::byte* values) override {
    expect(piece, s);
    for (std::int64_t const id : ids) fuzz_check(id >= 0 && id < s[0], "ids are rows of the piece");
    std::memset(values, 0, ids.size() * static_cast<std::size_t>(pp::detail::row_length_of(s)) * 4);
  }
  std::int64_t steps(std::int64_t) const override { return 0; }
  bool set_optimizer(std::string_view text) override {
    update::momentum const rule = update::detail::rule_of_text(update::momentum{}, text);
    seen += static_cast<std::uint64_t>(update::detail::whole_text(rule).size());
    return seen % 2 == 0;
  }
  void set_hyperparameters(std::size_t, std::string_view text) override {
    update::momentum const rule = update::detail::rule_of_text(update::momentum{}, text, "set_hyperparameters");
    seen += static_cast<std::uint64_t>(update::detail::to_text(rule).size());
  }
  void set_multipliers(std::int64_t, std::string_view text) override { remote::detail::multipliers_in(text); }

  std::map<std::int64_t, std::size_t> sizes;

 private:
  void expect(std::int64_t piece, pp::shape const& s) const {
    auto const found = sizes.find(piece);
    fuzz_check(found != sizes.end() && found->second == s.size(), "pieces have the size of their init");
  }
};

remote::consistency consistency_of(std::uint8_t choice) {
  switch (choice % 3) {
    case 0: return remote::asynchronous{};
    case 1: return remote::bounded{1};
    default: return remote::rounds{.goes_on = choice % 2 == 0};
  }
}

/// A field is right, or not.
std::uint64_t number(fuzz_input& in, std::uint64_t right) {
  switch (in.below(8)) {
    case 0: return in.byte();
    case 1: return std::uint64_t{in.byte()} << 56 | in.byte();
    case 2: return right + 1;
    case 3: return ~std::uint64_t{0} / 4 - in.byte() + 1;
    default: return right;
  }
}

remote::message_header header(fuzz_input& in) {
  remote::message_header h;
  h.kind = static_cast<message_kind>(1 + in.below(remote::last_message_kind));
  h.element = in.once_in(16) ? in.byte() : remote::element_code<float>;
  h.flags = in.byte();
  h.worker = static_cast<std::uint32_t>(in.below(4));
  h.incarnation = h.worker;
  h.sequence = number(in, in.byte());
  h.key = static_cast<std::int64_t>(number(in, in.below(2)));
  h.piece = static_cast<std::uint32_t>(number(in, in.below(2)));
  h.row_length = number(in, 1 + in.below(3));
  h.elements = number(in, 12);
  h.rows = number(in, in.below(4));
  return h;
}

zmq::message_t payload(fuzz_input& in, remote::message_header const& h) {
  std::uint64_t size = 48;
  if (h.kind == message_kind::pull) size = 0;
  if (h.kind == message_kind::push_rows) size = h.rows * (8 + 4 * h.row_length);
  if (h.kind == message_kind::pull_rows) size = h.rows * 8;
  size = number(in, size);
  std::vector<std::uint8_t> bytes(size % 200);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i % 8 == 0 ? in.byte() % 8 : 0);
  return zmq::message_t(bytes.data(), bytes.size());
}

void parse(std::span<std::byte const> bytes, std::uint8_t change) {
  auto const parsed = remote::header_in(bytes);
  if (parsed) {
    auto const again = remote::to_frame(*parsed);
    fuzz_check(std::memcmp(again.data(), bytes.data(), bytes.size()) == 0, "a header is written as it was read");
  }
  remote::message_header any;
  any.row_length = change;
  if (auto const key = remote::detail::key_in(any, bytes))
    fuzz_check(remote::detail::to_payload(*key).size() == bytes.size(), "a key is written as it was read");
  (void)remote::detail::welcome_in(bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  static zmq::context_t context{1};
  static zmq::socket_t socket{context, zmq::socket_type::router};  // without connections: answers are dropped
  static bool const is_set = (socket.set(zmq::sockopt::router_mandatory, 1), true);
  (void)is_set;
  parse(std::as_bytes(std::span(data, size)), size > 0 ? data[0] : std::uint8_t{0});
  fuzz_input in(std::span(data, size));
  touching_store store;
  remote::detail::membership members(2, std::chrono::hours(1));
  remote::detail::answer_sender answers(socket, members);
  remote::detail::piece_service service(store, members, answers, consistency_of(in.byte()));
  remote::detail::control_service control(store, answers, 0,
                                          [](std::int64_t, std::string_view text) { seen += text.size(); });
  for (int message = 0; message < 64 && !in.ended(); ++message) {
    remote::message_header h = header(in);
    if (in.once_in(4)) {
      auto frame = remote::to_frame(h);
      auto const parsed = remote::header_in(frame);
      fuzz_check(parsed && *parsed == h, "a header is read as it was written");
      frame[in.below(frame.size())] ^= static_cast<std::byte>(1U << in.below(8));
      fuzz_check(!remote::header_in(frame), "a header with another bit is none");
    }
    if (in.once_in(8)) {
      bool const is_late = members.was_complete();
      bool const is_back = members.admit(h.worker, h.incarnation, "somewhere", remote::detail::server_clock::now());
      service.on_arrival(h.worker, h.incarnation, is_back, is_late);
    } else if (in.once_in(16) && h.worker < members.size()) {
      members[h.worker].state = remote::detail::worker_state::dead;
      service.on_departure();
    }
    zmq::message_t body = payload(in, h);
    h.payload_bytes = body.size();
    if (h.worker < members.size() && members.is_alive(h.worker) && !service.handle(h, std::move(body)))
      control.handle(h, members[h.worker], body);
  }
  return 0;
}
