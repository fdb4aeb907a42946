/// @file
/// The part of a remote_store without its pushes and pulls: its keys, facts about servers, waiting.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/remote/key_directory.hpp>
#include <pushpull/remote/key_entry.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/options.hpp>
#include <pushpull/remote/prepared_operation.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/remote_operation.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/schedule/task_schedule.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/update/hyperparameter_list.hpp>
#include <pushpull/update/rule_text.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The part of remote_store<T, D> that it inherits; types and constants are those that store_face asks for.
template <ElementType T, Device D>
class remote_base {
 public:
  using value_type = T;
  using device_type = D;
  using key_type = any_key;
  using key_view = any_key_view;
  static constexpr bool is_synchronous = false, may_accumulate = false, accumulates = false;
  template <class>
  using stored_as = T;
  template <class E>
  static constexpr bool has_type = std::same_as<E, T>;
  template <class>
  static constexpr bool converts = true;
  template <class E>
  static constexpr bool pulls = std::same_as<E, T>;
  template <class E>
  static constexpr bool lists = std::same_as<E, T>;

  /// Returns when all servers know this worker. @param servers  Their addresses, in the order of their numbers.
  /// @throws invalid_argument if there is no device or no server, or the servers have elements of another type; comm_timeout if
  /// a server does not answer for `options.patience`; comm_error if a server refuses this worker
  remote_base(std::vector<D> const& devices, std::vector<std::string> const& servers,
              worker_options const& options = {})
      : options_(options), parts_(std::make_unique<remote_parts<T, D>>(devices, servers, options)) {
    std::uint8_t const element = parts_->servers.facts().element;
    pushpull::detail::expects<invalid_argument>(element == element_code<T>, [&] {
      return "remote_store: servers with elements of type " + std::string(dtype_traits<T>::name) +
             " expected, they have " + std::string(element_name(element));
    });
  }
  remote_base(remote_base&&) noexcept = default;
  /// Work under way is finished first.
  remote_base& operator=(remote_base&& other) noexcept {
    remote_base old(std::move(other));
    std::swap(options_, old.options_);
    std::swap(parts_, old.parts_);
    std::swap(operations_, old.operations_);
    std::swap(schedule_, old.schedule_);
    return *this;
  }
  /// Finishes what is under way, and says goodbye to the servers.
  ~remote_base() = default;

  std::vector<D> const& devices() const { return parts_->devices; }
  bool contains(any_key_view key) const { return parts_->keys.contains(key); }
  /// All keys, in the order of their init.
  std::vector<any_key> keys() const { return parts_->keys.list(); }
  /// Number of keys.
  std::size_t size() const { return keys().size(); }
  /// @throws unknown_key
  pushpull::shape const& shape(any_key_view key) const { return parts_->keys.find("shape", key).shape; }
  /// The number of this worker, which server 0 gave to it.
  int rank() const { return static_cast<int>(parts_->servers.rank()); }
  /// Workers that the job has at least.
  int num_workers() const { return static_cast<int>(parts_->servers.facts().workers); }
  std::size_t num_servers() const { return parts_->servers.servers(); }
  /// Workers that died and did not come back, as server 0 counted them at the last heartbeat.
  int num_dead_node() const { return static_cast<int>(parts_->servers.dead_workers()); }
  /// Whether the servers' store applies a rule: it had one when this worker came, or this worker has given it one.
  bool has_updater() const { return parts_->servers.facts().has_updater || parts_->chose_rule; }
  /// Whether a step takes the gradients of all workers: the servers' consistency is `rounds`.
  bool has_rounds() const {
    return parts_->servers.facts().consistency == remote::consistency(remote::rounds()).index();
  }
  /// MXNet's name of the servers' consistency.
  std::string_view type() const { return has_rounds() ? "dist_sync" : "dist_async"; }
  /// As kv_store's. @throws invalid_argument on another name than "optimizer"
  static bool is_capable(std::string_view capability) { return kv_store<T, D>::is_capable(capability); }
  /// Returns when all living workers have called it. Does not wait for work under way.
  void barrier() const { call({.kind = message_kind::barrier}); }

  /// Gives a number and a text to the handlers of all servers, after all earlier work of this worker. Any worker may, at any
  /// time. Returns when all have run. Number 5 is the profiler's, with MXNet's texts. @throws error, with a handler's text
  void command(std::int64_t head, std::string_view body) {
    message_header h{.kind = message_kind::command};
    h.key = head;
    call_all(h, body);
  }
  /// Other hyperparameters for the servers' rule, or for a parameter group of their store: those numbers that
  /// update/rule_text.hpp lists. Returns when all servers have them; states and step counts stay. Any worker may call it, and
  /// pushes of others see them from then on.
  /// @throws invalid_argument if the servers' rule is another, has other flags or schedules, or refuses the numbers
  template <class Rule>
  void set_hyperparameters(Rule const& rule, std::size_t group = 0) {
    message_header h{.kind = message_kind::hyperparameters};
    h.key = static_cast<std::int64_t>(group);
    call_all(h, update::detail::whole_text(rule));
  }
  /// The rule of all servers, which let workers choose it: see remote::server. Its type, flags and schedules are those of one of
  /// theirs. Of the type that they have it changes the numbers only; else values stay, and states, step counts, hyperparameters and
  /// multipliers start again. Returns when all servers have it. Any worker may call it, and pushes of others see it from then on.
  /// @throws invalid_argument, also where the servers' rule is compiled into their program
  template <Updater Rule>
  void set_optimizer(Rule const& rule) {
    set_optimizer_text(update::detail::whole_text(rule));
  }
  /// For an any_store, which knows the text only.
  void set_optimizer_text(std::string_view text) {
    call_all({.kind = message_kind::optimizer}, text);
    parts_->chose_rule = true;
  }
  /// Multipliers of a key's learning rate and weight decay, in place of earlier ones: MXNet's lr_mult and wd_mult. Returns when
  /// all servers have them. @throws unknown_key, invalid_argument
  void set_multipliers(any_key_view key, double learning_rate, double weight_decay = 1) {
    message_header h{.kind = message_kind::multipliers};
    h.key = parts_->keys.find("set_multipliers", key).number;
    call_all(h, update::detail::exact_text(learning_rate) + ' ' + update::detail::exact_text(weight_decay));
  }
  /// From now on dense gradients travel as codes, and what these leave out is added to the key's next gradient: see
  /// compress::by_name. There is a residual per piece, on this worker, which starts at zero. Values come back as they are; other
  /// workers may send other codes. Waits for work under way; no other call of this store may be made meanwhile.
  /// @throws invalid_argument unless the store's elements are float, or if the compressor does not take them
  void set_gradient_compression(compress::any_compressor const& compressor) {
    pushpull::detail::expects<invalid_argument>(std::same_as<T, float> || compressor.index() == 0, [] {
      return "set_gradient_compression: gradients of type float32 expected, the store has " +
             std::string(dtype_traits<T>::name);
    });
    std::visit(
        [](auto const& chosen) {
          if constexpr (requires { chosen.validate(); }) chosen.validate();
        },
        compressor);
    schedule_->drain();
    parts_->compressor = compressor;
    ++parts_->compression;
  }
  /// The same, by name: `{{"type", "2bit"}, {"threshold", "0.5"}}`. @throws as compress::by_name
  void set_gradient_compression(compress::parameters const& given) {
    set_gradient_compression(compress::by_name(given));
  }
  /// Returns when all servers have written a snapshot, after all earlier work of this worker. @throws invalid_argument if one has
  /// no folder for it; error, with the text of a file_error
  void save_snapshots() { call_all({.kind = message_kind::snapshot}, ""); }
  /// Counts of a server's messages since it started, as JSON. @throws invalid_argument if there is no such server
  std::string server_counts(std::size_t server) const {
    pushpull::detail::expects<invalid_argument>(server < num_servers(), [&] {
      return "server_counts: a number below " + std::to_string(num_servers()) + " expected, got " +
             std::to_string(server);
    });
    std::string text;
    request_group group;
    request& r = group.requests.emplace_back();
    r.header.kind = message_kind::status;
    r.server = server;
    r.text = &text;
    run(group);
    return text;
  }

  /// Returns when all work is finished. @throws the first error that no earlier call has reported
  void wait() const { schedule_->wait(); }
  /// Returns when all work on the key is finished. @throws also unknown_key
  void wait(any_key_view key) const { schedule_->wait(parts_->keys.find("wait", key).order); }
  /// As wait, but errors stay for the next wait.
  void drain() const { schedule_->drain(); }
  /// The worker's operations, and the time in which it waited for them. Does not wait.
  profile::statistics statistics() const { return schedule_->counters.values(); }

 protected:
  std::unique_ptr<remote_key> make_key(any_key_view name, pushpull::shape const& s, bool has_rows) const {
    pushpull::detail::expects<duplicate_key>(
        !contains(name), [&] { return "init: " + pushpull::detail::key_text(name) + " was given to init before"; });
    pushpull::detail::expects<invalid_argument>(name_of(name).size() <= longest_name, [&] {
      return "init: a key of less than " + std::to_string(longest_name) + " bytes expected, one of " +
             std::to_string(name_of(name).size() - 1) + " came";
    });
    auto key = std::make_unique<remote_key>(remote_key{any_key(name), s});
    bool const in_rows = has_rows || options_.placement == server_placement::in_turn;
    if (in_rows && s.rank() > 1 && s.size() > 0) {
      std::int64_t const length = pushpull::detail::row_length_of(s);
      if (has_rows || static_cast<std::size_t>(length) * sizeof(T) <= options_.piece_bytes) key->row_length = length;
    }
    return key;
  }
  using host_value = typename key_entry<T, D>::host_value;
  template <class ValueOf>
  void enter_keys(std::vector<std::unique_ptr<remote_key>> added, ValueOf const& value_of) {
    key_entry<T, D>(*parts_, options_).enter(std::move(added), value_of);
  }

  prepared_operation& prepare(char const* caller) const {
    auto* const op = new prepared_operation(parts_->servers);
    op->caller = caller;
    op->acquire();
    return *op;
  }
  /// A request to server 0. Returns when it is answered. @throws its error
  message_header call(message_header const& header) const {
    request_group group;
    group.requests.emplace_back().header = header;
    run(group);
    return group.requests.front().answer;
  }
  /// A request to all servers, after all earlier work.
  void call_all(message_header const& header, std::string_view text) const {
    schedule_->drain();
    request_group group;
    for (std::size_t n = 0; n < num_servers(); ++n) {
      request& r = group.requests.emplace_back();
      r.header = header;
      r.server = n;
      r.payload = std::as_bytes(std::span(text));
    }
    run(group);
  }
  void run(request_group& group) const {
    group.begin();
    parts_->servers.submit(group);
    group.wait();
  }

  worker_options options_;
  std::unique_ptr<remote_parts<T, D>> parts_;
  std::shared_ptr<pushpull::detail::operation_pool> operations_ = std::make_shared<pushpull::detail::operation_pool>();
  std::unique_ptr<pushpull::detail::task_schedule> schedule_ =
      std::make_unique<pushpull::detail::task_schedule>();  // ends first, when its work is done
};

}  // namespace pushpull::remote::detail
