/// @file
/// A kv_store as a server's router sees it: its keys are pieces, and tensors are bytes of messages.
#pragma once

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
#include <pushpull/remote/hyperparameters.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/pieces.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/multipliers.hpp>

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

/// The store behind a server. Pointers are aligned to elements; each call returns when its work is finished.
class served_store {
 public:
  served_store() = default;
  served_store(served_store const&) = delete;
  served_store& operator=(served_store const&) = delete;
  virtual ~served_store() = default;

  virtual std::uint8_t element() const = 0;
  virtual std::size_t element_bytes() const = 0;
  virtual bool has_updater() const = 0;
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
  /// Of the rule, or of a parameter group of the store's. @param text  See to_text. @throws invalid_argument
  virtual void set_hyperparameters(std::size_t group, std::string_view text) = 0;
  /// Of a key's learning rate and weight decay. @param text  Two numbers. @throws invalid_argument
  virtual void set_multipliers(std::int64_t key, std::string_view text) = 0;
};

/// Whether a rule adds up over keys, or over a whole tensor: a server has pieces only.
template <class Store>
concept UpdatesPieces =
    !PreReduction<typename Store::updater_type> && pushpull::detail::factored_count<typename Store::updater_type> == 0;

template <class Store>
class served final : public served_store {
  using T = typename Store::value_type;
  using D = typename Store::device_type;
  static_assert(std::same_as<typename Store::key_type, std::int64_t>,
                "server: the store's keys are integers, the numbers of pieces: give it the policy integer_keys");
  static_assert(
      UpdatesPieces<Store>,
      "server: the rule needs sums over whole tensors or over all keys (PreReduction, Factored), and a server has "
      "pieces of some keys");

 public:
  explicit served(Store& store) : store_(store) {}

  std::uint8_t element() const override { return element_code<T>; }
  std::size_t element_bytes() const override { return sizeof(T); }
  bool has_updater() const override { return Store::has_updater; }
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
  void set_hyperparameters([[maybe_unused]] std::size_t group, [[maybe_unused]] std::string_view text) override {
    if constexpr (Store::has_updater) {
      auto const rule = with_text(store_.updater(group), text);
      store_.set_hyperparameters(rule, group);
      if (group != 0) return;
      for (auto const& [key, m] : multiplied_)
        store_.set_hyperparameters(update::with_multipliers(rule, m.factors.first, m.factors.second), m.group);
    } else {
      refuse_rule("set_hyperparameters");
    }
  }
  void set_multipliers([[maybe_unused]] std::int64_t key, [[maybe_unused]] std::string_view text) override {
    if constexpr (Store::has_updater) {
      auto const factors = multipliers_in(text);
      auto const rule = update::with_multipliers(store_.updater(), factors.first, factors.second);
      auto const known = multiplied_.find(key);
      if (known != multiplied_.end()) {
        store_.set_hyperparameters(rule, known->second.group);
        known->second.factors = factors;
      } else {
        std::size_t const group =
            store_.add_group([key](std::int64_t piece) { return piece / most_pieces == key; }, rule);
        multiplied_.emplace(key, multiplied_key{factors, group});
      }
    } else {
      refuse_rule("set_multipliers");
    }
  }

 private:
  using rows_type = row_sparse_view<T const>;
  static constexpr bool takes_rows = std::same_as<typename Store::compressor_type, compress::none> &&
                                     AdditiveReduction<typename Store::reduction_type> && !Store::accumulates;

  /// Messages are in host memory, which the store reads where it is if its devices are CPUs.
  static tensor_view<T const> in(std::byte const* bytes, shape const& s) {
    return tensor_view<T const>(reinterpret_cast<T const*>(bytes), s);
  }
  static tensor_view<T> out(std::byte* bytes, shape const& s) { return tensor_view<T>(reinterpret_cast<T*>(bytes), s); }

  [[noreturn]] static void refuse_rule(char const* call) {
    throw invalid_argument(std::string(call) + ": the servers' store has no rule");
  }
  struct multiplied_key {
    std::pair<double, double> factors;  // of learning rate and weight decay
    std::size_t group;                  // of the store
  };

  Store& store_;
  std::vector<tensor_view<T const>> sources_;
  std::map<std::int64_t, multiplied_key> multiplied_;
};

}  // namespace detail
}  // namespace pushpull::remote
