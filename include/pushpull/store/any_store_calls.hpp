/// @file
/// The type-erased interface of a store: what any_store calls without knowing the store's type.
#pragma once

#include <any>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>
#include <pushpull/profile/statistics.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/exchange/rank_group.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/memory_report.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/rows/row_tables.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/store/saved_values.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/update/rule_description.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The element type of an any_store that has one only: what makes it a Store.
template <class... Ts>
struct sole_type {};
template <class T>
struct sole_type<T> {
  using value_type = T;
};

enum class key_kind { none, integers, strings };

/// The kind of a store's keys, which threads read and set. It moves with the store.
class shared_kind {
 public:
  shared_kind() = default;
  shared_kind(shared_kind&& other) noexcept : kind_(other.load()) {}
  shared_kind& operator=(shared_kind&& other) noexcept { return *this = other.load(); }
  shared_kind& operator=(key_kind kind) noexcept {
    kind_ = kind;
    return *this;
  }
  key_kind load() const noexcept { return kind_.load(std::memory_order_relaxed); }

 private:
  std::atomic<key_kind> kind_{key_kind::none};
};

/// A tensor: where it lies, and its shape.
template <class T, Device D>
struct erased_tensor {
  operand<T, D> memory;
  pushpull::shape shape;
};

/// The row-sparse tensors of a call, a list per key: on the store's devices, or all in host memory where those are others.
template <class T, Device D>
struct erased_rows {
  std::vector<std::vector<row_sparse_view<T const, D>>> on_devices;
  std::vector<std::vector<row_sparse_view<T const, cpu_device<>>>> on_host;
  bool in_host_memory = false;
};

/// The rows that a row_sparse_pull asks for, a list per key.
template <class T, Device D>
struct erased_row_requests {
  std::vector<std::vector<row_sparse<T, D>*>> outputs;
  std::vector<std::vector<std::vector<std::int64_t>>> ids;  ///< That lie in host memory.
  std::vector<std::vector<tensor_view<std::int64_t const, D>>> ids_on_devices;
  bool shared = false;  ///< One tensor of ids for all outputs of a key.
};

/// A call that any_store gathers for a store of unknown type.
template <class T, Device D>
using erased_draft = call_draft<any_key_view, D, T>;

/// The calls of a store that name an element type. A draft goes back to the store that made it.
template <class T, Device D>
class typed_calls {
 public:
  virtual void init(std::span<any_key_view const> keys, std::span<erased_tensor<T const, D> const> values,
                    key_options options) = 0;
  virtual void init_rows(any_key_view key, erased_rows<T, D> const& value, key_options options) = 0;
  /// @param only_accumulates  No key is updated.
  virtual erased_draft<T, D> new_push(std::type_identity<T>, char const* caller, bool only_accumulates) = 0;
  /// @param first  A key of the call.
  virtual erased_draft<T, D> new_pull(std::type_identity<T>, any_key_view first) = 0;
  virtual erased_draft<T, D> new_assign(std::type_identity<T>, rule_states states) = 0;
  virtual completion submit(erased_draft<T, D>& call, priority when) = 0;
  virtual void set_function(
      std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)> f) = 0;
  virtual completion push_rows(std::span<any_key const> keys, erased_rows<T, D> const& sources, row_updates rows,
                               priority when) = 0;
  virtual completion pushpull_rows(any_key_view key, erased_rows<T, D> const& sources,
                                   std::span<erased_tensor<T, D> const> outputs, row_updates rows, priority when) = 0;
  virtual completion pull_rows(std::span<any_key const> keys, erased_row_requests<T, D> const& requests,
                               priority when) = 0;

 protected:
  ~typed_calls() = default;
};

/// A store of unknown rule and compressor.
template <Device D, ElementType... Ts>
class erased_store : public typed_calls<Ts, D>... {
 public:
  using typed_calls<Ts, D>::init...;
  using typed_calls<Ts, D>::init_rows...;
  using typed_calls<Ts, D>::new_assign...;
  using typed_calls<Ts, D>::new_pull...;
  using typed_calls<Ts, D>::new_push...;
  using typed_calls<Ts, D>::submit...;
  using typed_calls<Ts, D>::set_function...;
  using typed_calls<Ts, D>::push_rows...;
  using typed_calls<Ts, D>::pushpull_rows...;
  using typed_calls<Ts, D>::pull_rows...;
  virtual ~erased_store() = default;

  virtual std::vector<D> const& devices() const = 0;
  virtual int rank() const = 0;
  virtual int num_workers() const = 0;
  virtual void barrier() const = 0;
  virtual std::optional<double> join(double weight) = 0;
  virtual std::vector<any_key> keys() const = 0;
  virtual bool contains(any_key_view key) const = 0;
  virtual pushpull::shape const& shape(any_key_view key) const = 0;
  virtual std::string_view dtype(any_key_view key) const = 0;
  virtual bool is_mirrored(any_key_view key) const = 0;
  virtual void wait() const = 0;
  virtual void drain() const = 0;
  virtual void wait(any_key_view key) const = 0;
  virtual void device_waits_for(D const& device, any_key_view key) const = 0;
  virtual void key_waits_for(any_key_view key, D const& device) const = 0;
  virtual pushpull::memory_report memory_report() const = 0;
  virtual profile::statistics statistics() const = 0;

  virtual bool has_updater() const = 0;
  virtual bool accumulates() const = 0;
  virtual bool steps_in_parts() const = 0;
  /// The rule of a parameter group; empty where there is none.
  virtual std::any updater(std::size_t group) const = 0;
  /// @throws invalid_argument unless the rule has this type
  virtual void expect_rule(char const* call, std::any const& rule) const = 0;
  /// The rule has the type of the store's.
  virtual void set_hyperparameters(std::any const& rule, std::size_t group) = 0;
  virtual std::size_t add_group(std::function<bool(any_key_view)> belongs, std::any const& rule) = 0;
  virtual std::size_t groups() const = 0;
  virtual std::uint64_t rule_changes() const = 0;
  virtual std::size_t group(any_key_view key) const = 0;
  virtual std::int64_t steps(any_key_view key) const = 0;
  virtual void set_steps(any_key_view key, std::int64_t t) = 0;
  virtual std::int64_t micro_batches(any_key_view key) const = 0;
  /// Bytes of elements of the type that the store computes in.
  virtual std::vector<std::byte> gradient_sum(any_key_view key) const = 0;
  virtual void set_micro_batches(any_key_view key, std::int64_t count, std::span<std::byte const> sum) = 0;
  virtual void discard_micro_batches(any_key_view key) = 0;
  virtual bool has_captures() const = 0;
  virtual void discard_captures() = 0;
  virtual double const* loss_scale(std::size_t n) const = 0;
  virtual std::vector<double> carried_numbers() const = 0;
  virtual void set_carried_numbers(std::span<double const> numbers) = 0;
  virtual detail::owning_ranks owning_ranks() const = 0;
  virtual array_part local_part(any_key_view key, saved_array what, std::string_view state, bool copies) const = 0;
  virtual void prepare_values(prepared_changes& changes, any_key_view key, saved_values const& values) = 0;
  virtual void prepare_carried_numbers(prepared_changes& changes, std::span<double const> numbers) = 0;
  virtual update::rule_description describe_rule() const = 0;
  virtual std::vector<std::string> state_names() const = 0;
  virtual pushpull::shape state_shape(any_key_view key, std::string_view name) const = 0;
  virtual std::vector<std::byte> state(any_key_view key, std::string_view name) const = 0;
  virtual void set_state(any_key_view key, std::string_view name, std::span<std::byte const> bytes) = 0;
  virtual void swap(std::span<any_key const> keys, std::string_view name) = 0;
  virtual std::string swapped(any_key_view key) const = 0;

  /// An empty store with the same rule and policies, and another compressor, without parameter groups. Null if that is none
  /// that the store may be asked for.
  virtual std::unique_ptr<erased_store> compressing(compress::any_compressor const& compressor) const = 0;
  /// Adds the parameter groups to an empty store with the same rule. All ranks make the call.
  virtual void add_groups_to(erased_store& next) const = 0;
  /// A user's store may have a set_gradient_compression of its own. @returns whether it has, and was asked
  virtual bool compresses_itself(compress::parameters const&) { return false; }
  /// A user's store may have a set_optimizer_text of its own. @returns whether it has, and was given the text
  virtual bool sets_optimizer_itself(std::function<std::string()> const&) { return false; }
  /// Whether another rule or compressor may take the store's place: not where a user made it.
  virtual bool replaceable() const = 0;
  /// The store itself, if `tag` is the type_tag of its type.
  virtual void* target(void const* tag) = 0;
};

/// Its address stands for a type.
template <class T>
inline constexpr char type_tag = 0;

/// @throws invalid_argument about what the store of unknown type cannot do
[[noreturn]] inline void refuse_call(char const* call, char const* why) {
  throw invalid_argument(std::string(call) + ": " + why);
}

/// erased_store with a layer on top of it for each element type.
/// @tparam Layer  Layer<Model, Base, T, D> derives from Base.
template <template <class, class, class, class> class Layer, class Model, class Base, class D, class... Ts>
struct stacked_layers {
  using type = Base;
};
template <template <class, class, class, class> class Layer, class Model, class Base, class D, class T, class... Rest>
struct stacked_layers<Layer, Model, Base, D, T, Rest...> {
  using type = typename stacked_layers<Layer, Model, Layer<Model, Base, T, D>, D, Rest...>::type;
};

}  // namespace pushpull::detail
