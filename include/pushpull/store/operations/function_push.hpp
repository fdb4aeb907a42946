/// @file
/// A function of whole tensors in the place of a rule.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation_pool.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/exchange/call_exchange.hpp>
#include <pushpull/store/exchange/function_exchange.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/push.hpp>
#include <pushpull/store/staging.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// A push whose keys are changed by a function: reduces the sources and gathers what is stored into whole tensors on
/// device number 0, calls the function for all keys, and then writes slices, mirrors and outputs. Until then nothing
/// has changed, so the function may fail. In a store of several ranks rank 0 does so for all.
/// @tparam Types  A kv_store_types without a rule.
template <class Types>
class function_push final : public gradient_operation<Types> {
  using T = typename Types::value_type;
  using D = typename Types::device_type;
  using table_type = typename Types::table_type;
  using record = typename Types::record;
  using W = typename Types::master_type;
  using A = typename Types::accumulation_type;

 public:
  using function_type =
      std::function<void(typename Types::key_view, tensor_view<T, D> const&, tensor_view<W, D> const&)>;

  std::shared_ptr<function_type const> function;

  function_push(store_contents<Types>& contents, typename Types::compressor_type const& compressor)
      : gradient_operation<Types>(contents, compressor),
        table_(contents.keys),
        gather_(table_),
        scatter_(table_),
        reduce_step_(table_.devices().size()),
        gather_step_(table_.devices().size()),
        scatter_step_(table_.devices().size()) {}

  /// Another thread runs it: the function may take long.
  std::int64_t work() const override { return std::numeric_limits<std::int64_t>::max(); }

  progress run() override {
    try {
      awaited* const event = update();
      return event != nullptr ? progress::waiting_for(*event) : progress::done();
    } catch (...) {
      this->call_.put_residuals_back();
      throw;
    }
  }

 private:
  enum class stage { sources, function, results, scatter };  // what `update` does next

  /// Goes as far as it goes without other ranks. @returns  The messages that it waits for; null if it is done.
  awaited* update() {
    auto& contents = this->contents_;
    if (stage_ == stage::sources) {
      auto const received = [&](record const& r) { return scratch_of(r).first; };
      if (auto* const event = contents.in_step([&] { return this->call_.reduce_part(table_, reduce_step_, received); }))
        return event;
      stage_ = stage::function;
      if constexpr (Types::collective)
        if (table_.is_distributed()) return contents.in_step([&] { return start_masters(); });
    }
    if (stage_ == stage::function) {
      stage_ = stage::results;
      if (!table_.is_distributed()) {
        call_function();
      } else if constexpr (Types::collective) {
        contents.in_step([&] { exchange_.finish_masters(table_); });
        auto thrown = calls_function() ? exception_of([&] { call_function(); }) : nullptr;
        return contents.in_step([&] { return &exchange_.start_outcome(table_, std::move(thrown)); });
      }
    }
    if (stage_ == stage::results) {
      if constexpr (Types::collective)
        if (table_.is_distributed()) exchange_.expect_success();
      contents.in_step([&] { lay_out_results(); });
      stage_ = stage::scatter;
    }
    return contents.in_step([&] {
      return scatter_.launch_part(table_, effect::updates, [&]() -> std::optional<std::span<double>> {
        scatter_step_.run(table_.devices());
        return std::nullopt;
      });
    });
  }

  bool calls_function() const { return !table_.is_distributed() || table_.owners().rank() == 0; }
  template <class F>
  static std::exception_ptr exception_of(F const& f) {
    try {
      f();
    } catch (...) {
      return std::current_exception();
    }
    return nullptr;
  }
  template <class F>
  void for_each_key(F const& f) {
    this->call_.for_each_key_and_output(f, [](auto const&) {});
  }

  awaited* start_masters()
    requires(Types::collective)
  {
    return &exchange_.start_masters(
        table_, [&](auto const& f) { for_each_key(f); }, [&](record const& r) { return scratch_of(r).second; });
  }
  void call_function() {
    gather_.clear();
    for_each_key([&](record& r) {
      gather_.add_key(r);
      gather_.add_output(operand_of<W, D>(stored_view(r)));
    });
    gather_.execute(table_, gather_step_, effect::reads, [&] { gather_step_.run(table_.devices()); });
    D const& device = table_.devices().front();
    for_each_key([&](record const& r) {
      (*function)(r.key, tensor_view<T, D>(scratch_of(r).first, r.shape, device), stored_view(r));
    });
  }
  void lay_out_results() {
    scatter_.clear();
    this->call_.for_each_key_and_output(
        [&](record& r) {
          scatter_.add_key(r);
          W* const stored = calls_function() ? scratch_of(r).second : nullptr;
          scatter_.add_source({stored, table_.devices().front(), r.shape.size()});
        },
        [&](auto const& output) { scatter_.add_output(output); });
    scatter_.take_ranks(table_, sources_of::rank_0);
    scatter_.begin(table_, effect::updates);
    scatter_.lay_out(table_, scatter_step_, effect::updates);
  }

  template <class Rule, class Reduction, class... Elements>
  using step = fused_step<D, Rule, Reduction, pass::element_types<Elements...>, pass::memory::foreign>;

  /// The whole received and the whole stored tensor of a key.
  std::pair<T*, W*> scratch_of(record const& r) {
    D const& device = table_.devices().front();
    auto const size = static_cast<std::size_t>(padded(r.shape.size()));
    staged_bytes const& count = table_.staged().front();
    auto& [received, stored] = scratch_.try_emplace(&r, count, count).first->second;
    return {static_cast<T*>(received.take(device, size * sizeof(T))),
            static_cast<W*>(stored.take(device, size * sizeof(W)))};
  }
  tensor_view<W, D> stored_view(record const& r) { return {scratch_of(r).second, r.shape, table_.devices().front()}; }

  void forget() noexcept override {
    function.reset();
    stage_ = stage::sources;
    gradient_operation<Types>::forget();
  }

  table_type const& table_;
  stage stage_ = stage::sources;
  struct no_exchange {};
  [[no_unique_address]] std::conditional_t<Types::collective, function_exchange<table_type>, no_exchange> exchange_;
  std::unordered_map<record const*, std::pair<staged_buffer<D>, staged_buffer<D>>> scratch_;
  laid_out_call<table_type, D, T, W> gather_;
  laid_out_call<table_type, D, W, T> scatter_;
  step<pass::assign, typename Types::reduction_type, typename Types::encoded_type, A, T, T, T> reduce_step_;
  step<pass::hold, reduce::sum, T, A, W, W, W> gather_step_;
  step<pass::assign, reduce::sum, W, A, W, W, T> scatter_step_;
};

/// The function of a store, if it has one, and the operations that call it. A store with a rule has no place for one.
template <class Types>
class function_slot {
 public:
  using operation_type = function_push<Types>;
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
  operation_type* take(store_contents<Types>& contents, typename Types::compressor_type const& compressor) {
    if (!filled_) return nullptr;
    std::shared_ptr<function_type const> function;
    {
      std::lock_guard const lock(mutex_);
      function = function_;
    }
    if (function == nullptr) return nullptr;
    operation_type& op = pool_->take([&] { return std::make_unique<operation_type>(contents, compressor); });
    op.function = std::move(function);
    return &op;
  }

 private:
  std::shared_ptr<operation_pool> pool_ = std::make_shared<operation_pool>();
  std::atomic<bool> filled_{false};
  std::mutex mutex_;
  std::shared_ptr<function_type const> function_;
};
template <class Types>
  requires(Types::has_updater)
class function_slot<Types> {};

}  // namespace pushpull::detail
