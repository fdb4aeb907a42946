/// @file
/// The calls of a user's store that go by element type: how an erased store's drafts reach it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/schedule/completion.hpp>
#include <pushpull/store/any_store_calls.hpp>
#include <pushpull/store/concepts.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/key_options.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/store/wait_at_exit.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Which call a draft is of.
enum class verb { push, accumulate, pull, assign, assign_and_reset };

/// A draft's lists, for a store that runs its calls itself.
template <class T, Device D>
class listed_call final : public gathered_operation<D> {
 public:
  gathered_call<any_key_view, D, T> gathered;
  verb what;

  listed_call(std::vector<D> const& devices, char const* caller, verb v) : gathered_operation<D>(devices), what(v) {
    gathered.begin(caller);
  }
  void find_keys() override {}
  std::int64_t work() const override { return 0; }
  progress run() override { return progress::done(); }
};

template <Store S, ElementType... Ts>
class wrapped_store;
template <class Model>
struct stored_in;
template <class S, class... Ts>
struct stored_in<wrapped_store<S, Ts...>> {
  using type = S;
};

/// The part of a wrapped store that calls for element type T go to.
template <class Model, class Base, class T, class D>
class wrapped_calls : public Base {
 public:
  using Base::init;
  using Base::init_rows;
  using Base::new_assign;
  using Base::new_pull;
  using Base::new_push;
  using Base::pull_rows;
  using Base::push_rows;
  using Base::pushpull_rows;
  using Base::set_function;
  using Base::submit;

  void init(std::span<any_key_view const> keys, std::span<erased_tensor<T const, D> const> values,
            key_options) override {
    if constexpr (is_stored) {
      for (any_key_view const key : keys)
        expects<duplicate_key>(!self().contains(key),
                               [&] { return "init: " + key_text(key) + " was given to init before"; });
      for (std::size_t i = 0; i < keys.size(); ++i) {
        D const device = values[i].memory.device ? *values[i].memory.device : self().devices().front();
        expects<invalid_argument>(values[i].memory.device || HostDevice<D>, [&] {
          return "init: " + key_text(keys[i]) + ": a tensor on the store's devices expected, one in host memory came";
        });
        self().store().init(self().key(keys[i]),
                            tensor_view<T const, D>(values[i].memory.data, values[i].shape, device));
        self().remember(keys[i], values[i].shape);
      }
    } else {
      refuse_type("init");
    }
  }
  erased_draft<T, D> new_push(std::type_identity<T>, char const* caller, bool only_accumulates) override {
    return draft(caller, only_accumulates ? verb::accumulate : verb::push);
  }
  erased_draft<T, D> new_pull(std::type_identity<T>, any_key_view) override { return draft("pull", verb::pull); }
  erased_draft<T, D> new_assign(std::type_identity<T>, rule_states states) override {
    return draft("assign", states == rule_states::reset ? verb::assign_and_reset : verb::assign);
  }
  completion submit(erased_draft<T, D>& call, priority) override {
    auto const [op, handle] = call.close();
    auto const& listed = static_cast<listed_call<T, D> const&>(*op);
    if constexpr (is_stored) {
      auto const entries = entries_of(listed.gathered);
      switch (listed.what) {
        case verb::push: return push(entries);
        case verb::accumulate: return accumulate(entries);
        case verb::pull: return pull(entries);
        default: assign(entries, listed.what == verb::assign_and_reset); return {};
      }
    } else if constexpr (requires(stored& s, key_type const& k, std::vector<tensor_view<T, D>> const& v) {
                           s.pull(k, v);
                         }) {
      if (listed.what == verb::pull) return pull(entries_of(listed.gathered));
    }
    refuse_type(listed.gathered.caller());
  }
  void set_function(std::function<void(any_key_view, tensor_view<T, D> const&, tensor_view<T, D> const&)>) override {
    refuse_call("set_updater", no_such_call);
  }
  void init_rows(any_key_view, erased_rows<T, D> const&, key_options) override { refuse_call("init", takes_no_rows); }
  completion push_rows(std::span<any_key const> keys, erased_rows<T, D> const& sources, row_updates rows,
                       priority) override {
    if constexpr (is_stored && requires(stored& s, key_type const& k,
                                        std::vector<row_sparse_view<T const, D>> const& v) { s.push(k, v, rows); }) {
      expects<invalid_argument>(!sources.in_host_memory, [] {
        return std::string("push: rows on the store's devices expected, rows in host memory came");
      });
      expect_count("push", keys.size(), sources.on_devices.size(), "gradient");
      for (any_key_view const key : keys) self().expect_key("push", key);
      {
        wait_at_exit const finished(self().store());  // a call that fails leaves others that read the gradients
        for (std::size_t i = 0; i < keys.size(); ++i)
          self().store().push(self().key(keys[i]), sources.on_devices[i], rows);
      }
      self().store().wait();
      return {};
    } else {
      refuse_call("push", takes_no_rows);
    }
  }
  completion pushpull_rows(any_key_view, erased_rows<T, D> const&, std::span<erased_tensor<T, D> const>, row_updates,
                           priority) override {
    refuse_call("pushpull", takes_no_rows);
  }
  completion pull_rows(std::span<any_key const>, erased_row_requests<T, D> const&, priority) override {
    refuse_call("row_sparse_pull", takes_no_rows);
  }

 private:
  using stored = typename stored_in<Model>::type;
  using key_type = typename stored::key_type;
  static constexpr bool is_stored = std::same_as<T, typename stored::value_type>;
  static constexpr char const* no_such_call = "the store that any_store was made of has no such call";
  static constexpr char const* takes_no_rows = "the store that any_store was made of takes no row-sparse tensors";

  Model& self() { return static_cast<Model&>(*this); }
  [[noreturn]] static void refuse_type(char const* call) {
    throw invalid_argument(std::string(call) + ": the store has elements of type " +
                           std::string(dtype_traits<typename stored::value_type>::name) + ", " +
                           std::string(dtype_traits<T>::name) + " came");
  }

  /// A key with views of the tensors that came with it.
  struct entry {
    any_key_view key;
    std::vector<tensor_view<T const, D>> sources;
    std::vector<tensor_view<T, D>> outputs;
  };

  erased_draft<T, D> draft(char const* caller, verb v) {
    auto& op = *new listed_call<T, D>(self().devices(), caller, v);
    op.acquire();
    return erased_draft<T, D>(op, self().id());
  }

  /// @throws unknown_key, shape_mismatch; invalid_argument if there is no gradient, or if a tensor is in host memory
  std::vector<entry> entries_of(gathered_call<any_key_view, D, T> const& call) {
    std::vector<entry> result;
    auto source = call.sources().begin();
    auto output = call.outputs().begin();
    for (auto const& x : call.keys()) {
      self().expect_key(call.caller(), x.key);
      auto& e = result.emplace_back(entry{x.key, {}, {}});
      for (auto const end = source + static_cast<std::ptrdiff_t>(x.sources); source != end; ++source)
        e.sources.push_back(view_in<T const>(call.caller(), x.key, *source));
      expects<invalid_argument>(!call.has_sources() || x.sources > 0, [&] {
        return std::string(call.caller()) + ": " + key_text(x.key) + " came with no gradient";
      });
      for (auto const end = output + static_cast<std::ptrdiff_t>(x.outputs); output != end; ++output)
        e.outputs.push_back(view_in<T>(call.caller(), x.key, *output));
    }
    return result;
  }
  template <class U, class Tensor>
  tensor_view<U, D> view_in(char const* caller, any_key_view key, Tensor const& x) {
    expect_shape(caller, key, self().shape(key), x.shape);
    expects<invalid_argument>(x.memory.device || HostDevice<D>, [&] {
      return std::string(caller) + ": " + key_text(key) +
             ": tensors on the store's devices expected, one in host memory came";
    });
    return {x.memory.data, x.shape, x.memory.device ? *x.memory.device : self().devices().front()};
  }

  completion push(std::vector<entry> const& entries) {
    return run(entries, [](auto& handles, stored& s, key_type const& key, auto const& e) {
      if (e.outputs.empty()) {
        add(handles, [&] { return s.push(key, e.sources); });
      } else {
        add(handles, [&] { return s.pushpull(key, e.sources, e.outputs); });
      }
    });
  }
  completion accumulate(std::vector<entry> const& entries) {
    if constexpr (requires(stored& s, key_type const& k, std::vector<tensor_view<T const, D>> const& v) {
                    s.accumulate(k, v);
                  })
      return run(entries, [](auto& handles, stored& s, key_type const& key, auto const& e) {
        add(handles, [&] { return s.accumulate(key, e.sources); });
      });
    refuse_call("accumulate", no_such_call);
  }
  completion pull(std::vector<entry> const& entries) {
    return run(entries, [](auto& handles, stored& s, key_type const& key, auto const& e) {
      add(handles, [&] { return s.pull(key, e.outputs); });
    });
  }
  void assign(std::vector<entry> const& entries, bool reset) {
    if constexpr (requires(stored& s, key_type const& k, tensor_view<T const, D> v) {
                    s.assign(k, v, rule_states::keep);
                  }) {
      for (auto const& e : entries)
        self().store().assign(self().key(e.key), e.sources.front(), reset ? rule_states::reset : rule_states::keep);
    } else if constexpr (requires(stored& s, key_type const& k, tensor_view<T const, D> v) { s.assign(k, v); }) {
      if (reset) refuse_call("assign", "the store has no assign that resets states");
      for (auto const& e : entries) self().store().assign(self().key(e.key), e.sources.front());
    } else {
      refuse_call("assign", no_such_call);
    }
  }

  template <class F>
  static void add(std::vector<completion>& handles, F const& call) {
    if constexpr (std::convertible_to<decltype(call()), completion>) {
      handles.push_back(call());
    } else {
      call();
    }
  }
  /// f(handles, store, key, entry) for each entry. Waits where the store hands out no completion: the work may go on. If a call
  /// fails, waits for those before it, which use the caller's tensors.
  template <class Entries, class F>
  completion run(Entries const& entries, F const& f) {
    std::vector<completion> handles;
    handles.reserve(entries.size());
    try {
      for (auto const& e : entries) f(handles, self().store(), self().key(e.key), e);
      if (handles.size() != entries.size()) self().store().wait();
      return handles.size() == 1 ? handles.front() : completion(handles);
    } catch (...) {
      wait_at_exit const finished(self().store());
      throw;
    }
  }
};

}  // namespace pushpull::detail
