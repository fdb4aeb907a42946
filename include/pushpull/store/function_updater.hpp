/// @file
/// A function of whole tensors in the place of a rule.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/store/call.hpp>
#include <pushpull/store/store_operations.hpp>
#include <pushpull/tensor/buffer.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A push whose keys are changed by a function: reduces the sources and gathers what is stored into whole tensors on
/// device number 0, calls the function for all keys, and then writes slices, mirrors and outputs. Until then nothing
/// has changed, so the function may fail.
/// @tparam Types  A kv_store_types without a rule.
template <class Types, class T, Device D>
class function_update final : public device_operation<D> {
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using W = typename Types::master_type;
  using A = typename Types::accumulation_type;

 public:
  using function_type =
      std::function<void(typename Types::key_view, tensor_view<T, D> const&, tensor_view<W, D> const&)>;

  detail::call<table_type, D, T, T, typename Types::compressor_type> call;
  std::shared_ptr<function_type const> function;
  std::shared_ptr<operation_pool<function_update>> home;

  function_update(table_type const& table, typename Types::compressor_type const& compressor)
      : device_operation<D>(table.devices()),
        call(table.devices().size(), compressor),
        table_(table),
        gather_(table.devices().size()),
        scatter_(table.devices().size()),
        reduce_step_(table.devices().size()),
        gather_step_(table.devices().size()),
        scatter_step_(table.devices().size()) {}

  progress run() override {
    try {
      update();
    } catch (...) {
      call.put_residuals_back();
      throw;
    }
    return progress::done();
  }

 private:
  void update() {
    D const& device = table_.devices().front();
    call.reduce(table_, reduce_step_, [&](record const& r) { return scratch_of(r).first; });
    gather_.clear();
    call.for_each_key_and_output(
        [&](record& r) {
          gather_.add_key(r);
          gather_.add_output(operand_of<W, D>(stored_view(r)));
        },
        [](auto const&) {});
    gather_.execute(table_, gather_step_, effect::reads, [&] { gather_step_.run(table_.devices()); });
    call.for_each_key_and_output(
        [&](record const& r) {
          (*function)(r.key, tensor_view<T, D>(scratch_of(r).first, r.shape, device), stored_view(r));
        },
        [](auto const&) {});
    scatter_.clear();
    call.for_each_key_and_output(
        [&](record& r) {
          scatter_.add_key(r);
          scatter_.add_source(operand_of<W const, D>(stored_view(r)));
        },
        [&](auto const& output) { scatter_.add_output(output); });
    scatter_.execute(table_, scatter_step_, effect::updates, [&] { scatter_step_.run(table_.devices()); });
  }

  template <class Rule, class Reduction, class... Elements>
  using step = fused_step<D, Rule, Reduction, pass::element_types<Elements...>, pass::memory::foreign>;

  /// The whole received and the whole stored tensor of a key.
  std::pair<T*, W*> scratch_of(record const& r) {
    D const& device = table_.devices().front();
    auto const size = static_cast<std::size_t>(padded(r.shape.size()));
    auto& [received, stored] = scratch_[&r];
    if (received.bytes() < size * sizeof(T)) received = buffer<D>(device, size * sizeof(T));
    if (stored.bytes() < size * sizeof(W)) stored = buffer<D>(device, size * sizeof(W));
    return {static_cast<T*>(received.data()), static_cast<W*>(stored.data())};
  }
  tensor_view<W, D> stored_view(record const& r) { return {scratch_of(r).second, r.shape, table_.devices().front()}; }

  void recycle() noexcept override {
    this->forget_events();
    function.reset();
    operation_pool<function_update>::give_back(*this);
  }

  table_type const& table_;
  std::unordered_map<record const*, std::pair<buffer<D>, buffer<D>>> scratch_;
  detail::call<table_type, D, T, W> gather_;
  detail::call<table_type, D, W, T> scatter_;
  step<pass::assign, typename Types::reduction_type, typename Types::encoded_type, A, T, T, T> reduce_step_;
  step<pass::hold, reduce::sum, T, A, W, W, W> gather_step_;
  step<pass::assign, reduce::sum, W, A, W, W, T> scatter_step_;
};

/// The function of a store, if it has one, and the operations that call it. A store with a rule has no place for one.
template <class Types, class T, Device D>
class function_slot {
 public:
  using operation_type = function_update<Types, T, D>;
  using function_type = typename operation_type::function_type;

  void set(function_type function) {
    std::shared_ptr<function_type const> shared;
    if (function) shared = std::make_shared<function_type>(std::move(function));
    std::lock_guard const lock(mutex_);
    filled_ = shared != nullptr;
    function_.swap(shared);  // the old one may end with the lock released
  }

  bool filled() const { return filled_; }

  /// An operation that calls the function, with one reference; null if there is none.
  template <class... Arguments>
  operation_type* take(Arguments const&... arguments) {
    if (!filled_) return nullptr;
    std::shared_ptr<function_type const> function;
    {
      std::lock_guard const lock(mutex_);
      function = function_;
    }
    if (function == nullptr) return nullptr;
    operation_type& op = pool_->take([&] { return std::make_unique<operation_type>(arguments...); });
    op.function = std::move(function);
    return &op;
  }

 private:
  std::shared_ptr<operation_pool<operation_type>> pool_ = std::make_shared<operation_pool<operation_type>>();
  std::atomic<bool> filled_{false};
  std::mutex mutex_;
  std::shared_ptr<function_type const> function_;
};
template <class Types, class T, Device D>
  requires(Types::has_updater)
class function_slot<Types, T, D> {};

}  // namespace pushpull::detail
