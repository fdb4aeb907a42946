/// @file
/// A kv_store as a server's router sees it: its keys are pieces, and tensors are bytes of messages.
#pragma once

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/compress/none.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/concepts/pre_reduction.hpp>
#include <pushpull/concepts/reduction.hpp>
#include <pushpull/concepts/updater.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/remote/server_rules.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/multipliers.hpp>
#include <pushpull/update/rule_text.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote {

namespace detail {

/// Two numbers. @throws invalid_argument
inline std::pair<double, double> multipliers_in(std::string_view text) {
  std::pair<double, double> result;
  char const* const end = text.data() + text.size();
  auto const first = std::from_chars(text.data(), end, result.first);
  bool holds = first.ec == std::errc() && first.ptr != end && *first.ptr == ' ';
  if (holds) {
    auto const second = std::from_chars(first.ptr + 1, end, result.second);
    holds = second.ec == std::errc() && second.ptr == end;
  }
  pushpull::detail::expects<invalid_argument>(
      holds, [&] { return "set_multipliers: two numbers expected, \"" + std::string(text) + "\" came"; });
  return result;
}

/// Rows in a message: their ids, and the values that follow.
struct row_payload {
  std::int64_t const* ids = nullptr;
  std::byte const* values = nullptr;
  std::int64_t rows = 0;
};

/// A rule, hyperparameters or multipliers that a worker has set.
struct server_setting {
  message_kind kind;
  std::int64_t key;  ///< As in the message's header.
  std::string text;
};

/// The store behind a server. Pointers are aligned to elements; each call returns when its work is finished.
class served_store {
 public:
  served_store() = default;
  served_store(served_store const&) = delete;
  served_store& operator=(served_store const&) = delete;
  virtual ~served_store() = default;

  /// Does what a worker asks for: `optimizer`, `hyperparameters` of a group or `multipliers` of a key. @throws invalid_argument
  void set(message_kind kind, std::int64_t key, std::string_view text) {
    switch (kind) {
      case message_kind::optimizer:
        key = 0;
        // A worker that comes late brings the rule again, and what was set since stays.
        if (!settings_.empty() && settings_.front().kind == kind && settings_.front().text == text) return;
        if (set_optimizer(text)) settings_.clear();
        break;
      case message_kind::hyperparameters: set_hyperparameters(static_cast<std::size_t>(key), text); break;
      case message_kind::multipliers: set_multipliers(key, text); break;
      default: return;
    }
    std::erase_if(settings_, [&](server_setting const& s) {
      return s.key == key && (s.kind == kind || (kind == message_kind::optimizer && order_of(s.kind) < 2));
    });
    auto const place = std::find_if(settings_.begin(), settings_.end(),
                                    [&](server_setting const& s) { return order_of(s.kind) > order_of(kind); });
    settings_.insert(place, {kind, key, std::string(text)});
  }
  /// All that hold, in the order in which a new store is to be given them.
  std::vector<server_setting> const& settings() const { return settings_; }

  /// The rule that a worker has chosen; empty if none has.
  std::string rule_text() const {
    bool const has = !settings_.empty() && settings_.front().kind == message_kind::optimizer;
    return has ? settings_.front().text : std::string();
  }

  virtual std::uint8_t element() const = 0;
  virtual std::size_t element_bytes() const = 0;
  virtual bool has_updater() const = 0;
  /// Whether keys are in one piece each.
  virtual bool whole_keys() const = 0;
  virtual void init(std::int64_t piece, shape const& s, std::byte const* value) = 0;
  virtual void assign(std::int64_t piece, shape const& s, std::byte const* value, rule_states states) = 0;
  /// One step with these sources; the new value goes to `value` unless that is null.
  virtual void push(std::int64_t piece, shape const& s, std::span<std::byte const* const> gradients,
                    std::byte* value) = 0;
  virtual void pull(std::int64_t piece, shape const& s, std::byte* value) = 0;
  /// @throws also invalid_argument if the store takes no rows
  virtual void push_rows(std::int64_t piece, shape const& s, std::span<row_payload const> gradients,
                         row_updates rows) = 0;
  virtual void pull_rows(std::int64_t piece, shape const& s, std::span<std::int64_t const> ids, std::byte* values) = 0;
  virtual std::int64_t steps(std::int64_t piece) const = 0;

 private:
  /// @param text  See update::detail::whole_text. @returns whether it is another rule: else only numbers changed.
  /// @throws invalid_argument
  virtual bool set_optimizer(std::string_view text) = 0;
  /// Of the rule, or of a parameter group of the store's. @param text  See update::detail::whole_text. @throws invalid_argument
  virtual void set_hyperparameters(std::size_t group, std::string_view text) = 0;
  /// Of a key's learning rate and weight decay. @param text  Two numbers. @throws invalid_argument
  virtual void set_multipliers(std::int64_t key, std::string_view text) = 0;

  /// Hyperparameters begin again with a rule, multipliers multiply those that there are.
  static int order_of(message_kind kind) {
    return kind == message_kind::optimizer ? 0 : kind == message_kind::hyperparameters ? 1 : 2;
  }

  std::vector<server_setting> settings_;
};

/// @tparam Rules  own_rule<Store>, or chosen_rule<Store, ...> of an any_store.
template <class Store, class Rules = own_rule<Store>>
class served final : public served_store {
  using T = typename Store::value_type;
  using D = typename Store::device_type;
  static_assert(std::constructible_from<typename Store::key_view, std::int64_t>,
                "server: the store's keys are integers, the numbers of pieces: give it the policy integer_keys");

 public:
  /// @param kinds  Of chosen_rule.
  template <class... Kinds>
  explicit served(Store& store, Kinds const&... kinds) : store_(store), rules_(store, kinds...) {}

  std::uint8_t element() const override { return element_code<T>; }
  std::size_t element_bytes() const override { return sizeof(T); }
  bool has_updater() const override { return rules_.has_updater(); }
  bool whole_keys() const override { return Rules::whole_keys; }
  void init(std::int64_t piece, shape const& s, std::byte const* value) override { store_.init(piece, in(value, s)); }
  void assign(std::int64_t piece, shape const& s, std::byte const* value, rule_states states) override {
    store_.assign(piece, in(value, s), states);
  }
  void push(std::int64_t piece, shape const& s, std::span<std::byte const* const> gradients,
            std::byte* value) override {
    sources_.clear();
    for (std::byte const* const gradient : gradients) sources_.push_back(in(gradient, s));
    if (value == nullptr) {
      store_.push(piece, sources_);
    } else {
      auto const output = out(value, s);
      store_.pushpull(piece, sources_, output);
    }
    store_.wait(piece);
  }
  void pull(std::int64_t piece, shape const& s, std::byte* value) override {
    auto const output = out(value, s);
    store_.pull(piece, output);
    store_.wait(piece);
  }
  void push_rows([[maybe_unused]] std::int64_t piece, [[maybe_unused]] shape const& s,
                 [[maybe_unused]] std::span<row_payload const> gradients, [[maybe_unused]] row_updates rows) override {
    if constexpr (takes_rows) {
      std::vector<rows_type> views;
      for (row_payload const& g : gradients)
        views.push_back(rows_type(reinterpret_cast<T const*>(g.values), g.ids, g.rows, s));
      store_.push(piece, views, rows);
      store_.wait(piece);
    } else {
      throw invalid_argument("push: the servers' store takes no row-sparse gradients");
    }
  }
  void pull_rows(std::int64_t piece, shape const& s, std::span<std::int64_t const> ids, std::byte* values) override {
    row_sparse<T, D> rows(store_.devices().front(), s);
    store_.row_sparse_pull(piece, rows, ids);
    store_.wait(piece);
    pushpull::detail::copy_bytes(cpu_device<>(), values, rows.device(), rows.values(),
                                 static_cast<std::size_t>(rows.rows() * rows.row_length()) * sizeof(T));
  }
  std::int64_t steps(std::int64_t piece) const override { return store_.steps(piece); }

 private:
  using rows_type = row_sparse_view<T const>;
  /// An any_store says so when it is asked.
  static constexpr bool takes_rows = [] {
    if constexpr (requires { typename Store::reduction_type; }) {
      return std::same_as<typename Store::compressor_type, compress::none> &&
             AdditiveReduction<typename Store::reduction_type> && !Store::accumulates &&
             !needs_whole_keys<typename Store::updater_type>;
    } else {
      return true;
    }
  }();

  /// Messages are in host memory, which the store reads where it is if its devices are CPUs.
  static tensor_view<T const> in(std::byte const* bytes, shape const& s) {
    return tensor_view<T const>(reinterpret_cast<T const*>(bytes), s);
  }
  static tensor_view<T> out(std::byte* bytes, shape const& s) { return tensor_view<T>(reinterpret_cast<T*>(bytes), s); }

  bool set_optimizer(std::string_view text) override {
    bool const replaced = rules_.set_optimizer(text, [&](auto const& rule) { expect_multiplied(rule); });
    if (replaced) {
      multiplied_.clear();
    } else {
      rules_.with_rule("set_optimizer", [&](auto const& rule_at) { multiply(rule_at(0)); });
    }
    return replaced;
  }
  void set_hyperparameters(std::size_t group, std::string_view text) override {
    for (auto const& [key, m] : multiplied_)
      pushpull::detail::expects<invalid_argument>(group != m.group, [&] {
        return "set_hyperparameters: group " + std::to_string(group) +
               " is that of a key with multipliers, which follows group 0";
      });
    rules_.with_rule("set_hyperparameters", [&](auto const& rule_at) {
      auto const rule = update::detail::rule_of_text(rule_at(group), text, "set_hyperparameters");
      if (group == 0) expect_multiplied(rule);
      store_.set_hyperparameters(rule, group);
      if (group == 0) multiply(rule);
    });
  }
  void set_multipliers(std::int64_t key, std::string_view text) override {
    auto const factors = multipliers_in(text);
    rules_.with_rule("set_multipliers", [&](auto const& rule_at) {
      auto const rule = update::with_multipliers(rule_at(0), factors.first, factors.second);
      auto const known = multiplied_.find(key);
      if (known != multiplied_.end()) {
        store_.set_hyperparameters(rule, known->second.group);
        known->second.factors = factors;
      } else {
        std::size_t const group = store_.add_group(
            [key](key_view piece) { return pushpull::detail::number_of(piece, 0) / most_pieces == key; }, rule);
        multiplied_.emplace(key, multiplied_key{factors, group});
      }
    });
  }
  /// @throws invalid_argument if a key with multipliers cannot have the rule's numbers
  template <class Rule>
  void expect_multiplied(Rule const& rule) const {
    for (auto const& [key, m] : multiplied_)
      pushpull::detail::validate_policy(update::with_multipliers(rule, m.factors.first, m.factors.second));
  }
  /// The groups of keys with multipliers follow the rule of all.
  template <class Rule>
  void multiply(Rule const& rule) {
    for (auto const& [key, m] : multiplied_)
      store_.set_hyperparameters(update::with_multipliers(rule, m.factors.first, m.factors.second), m.group);
  }
  using key_view = typename Store::key_view;
  struct multiplied_key {
    std::pair<double, double> factors;  // of learning rate and weight decay
    std::size_t group;                  // of the store
  };

  Store& store_;
  Rules rules_;
  std::vector<tensor_view<T const>> sources_;
  std::map<std::int64_t, multiplied_key> multiplied_;
};

}  // namespace detail
}  // namespace pushpull::remote
