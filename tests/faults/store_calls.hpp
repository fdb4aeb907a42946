/// @file
/// A store of any kind as a subject, and every call that it may have.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "faults/harness.hpp"
#include "support/counting_device.hpp"

namespace pushpull::test::faults {

using device = counting_device;
using strings = std::vector<std::string>;
using floats = std::vector<float>;
using view = tensor_view<float>;
using ids = std::vector<std::int64_t>;

/// Devices whose memory may end; the first does not reach that of the second.
inline std::vector<device> failing_devices() {
  std::vector<device> devices;
  for (int n = 0; n < 2; ++n) {
    devices.emplace_back(n, n == 0);
    devices.back().count().before_allocation = point;
  }
  return devices;
}

/// The numbers of a key's states, of whatever type, and its updates.
template <class Store>
void append_states(std::vector<double>& all, Store& store, std::string const& key) {
  if constexpr (requires { store.state(key, key); }) {
    auto const names = [&] {
      if constexpr (requires { store.state_names(key); }) {
        return store.state_names(key);
      } else {
        return store.state_names();
      }
    }();
    for (auto const& name : names)
      for (auto const x : store.state(key, name)) {
        if constexpr (std::is_same_v<decltype(x), std::byte const>) {
          all.push_back(static_cast<double>(x));
        } else {
          all.push_back(convert<double>(x));
        }
      }
  } else if constexpr (requires { store.visit("", key, [](auto&) {}); }) {
    store.visit("", key, [&](auto& part) { append_states(all, part, key); });
    return;
  }
  if constexpr (requires { store.steps(key); }) all.push_back(static_cast<double>(store.steps(key)));
  if constexpr (requires { store.group(key); }) all.push_back(static_cast<double>(store.group(key)));
}

/// A store with the keys "a", whose work another thread does, and "b", whose work is the caller's; and tensors.
/// @tparam Kind  Kind::make(devices) -> the store; Kind::warm: it has made a step.
template <class Kind>
struct store_subject : subject {
  using store_type = decltype(Kind::make(std::vector<device>()));
  static constexpr bool takes_rows = !requires { requires Kind::dense_only; };

  shape const of_a{90, 100}, of_b{3, 100};
  strings const both{"a", "b"}, fresh{"q", "r"};
  floats large = floats(9000, 1.0F), small = floats(300, 2.0F), out_a = large, out_b = small;
  std::vector<view> const values{{large.data(), of_a}, {small.data(), of_b}};
  std::vector<view> const outputs{{out_a.data(), of_a}, {out_b.data(), of_b}};
  view const a = values[0], b = values[1], to_a = outputs[0], to_b = outputs[1];
  std::vector<device> devices = failing_devices();
  tensor<float, device> far{devices[1], of_a};  // a gradient that device 0 does not reach
  std::vector<row_sparse<float, device>> rows, filled;
  ids const some{7, 3, 50};
  std::optional<store_type> store{Kind::make(devices)};
  bool swapped = false;

  store_subject() {
    for (std::size_t i = 0; i < far.size(); ++i) far.data()[i] = static_cast<float>(i % 7) - 3;
    for (auto const& s : {of_a, of_b}) {
      rows.emplace_back(devices[0], s, 2);
      filled.emplace_back(devices[0], s);
      for (std::int64_t i = 0; i < 2; ++i) rows.back().row_ids()[i] = 2 - i;
      std::fill_n(rows.back().values(), 200, 0.5F);
    }
    store->init(both, values);
    if (Kind::warm) work_on();
  }

  void wait() override {
    if (store) store->wait();
  }
  std::vector<double> held() override {
    std::vector<double> all;
    if (!store) return all;
    all.push_back(static_cast<double>(store->size()));
    for (std::string const key : {"a", "b", "q", "r"}) {
      if (!store->contains(key)) continue;
      bool const is_large = store->shape(key) == of_a;
      floats value(is_large ? large.size() : small.size());
      store->pull(key, view(value.data(), store->shape(key))).wait();
      all.insert(all.end(), value.begin(), value.end());
      append_states(all, *store, key);
    }
    if constexpr (requires { store->carried_numbers(); })
      for (double const x : store->carried_numbers()) all.push_back(x);
    if constexpr (requires { store->groups(); }) all.push_back(static_cast<double>(store->groups()));
    return all;
  }
  void work_on() override {
    if (!store) return;
    if constexpr (requires { store->swap("ema"); })
      if (swapped) store->swap("ema");
    for (int step = 0; step < 2; ++step) {
      store->push(both, values).wait();
      store->pushpull("a", far, to_a).wait();
    }
    for (std::string const key : {"q", "r"})
      if (store->contains(key)) store->push(key, store->shape(key) == of_a ? a : b).wait();
  }
};

/// Every call that a store of this kind has.
template <class Kind>
void check_calls(char const* kind) {
  using subject_type = store_subject<Kind>;
  using store_type = typename subject_type::store_type;
  constexpr bool rows = subject_type::takes_rows;
  calls<subject_type> const all(kind);

  check_call(
      kind, "construction", [] { return std::make_unique<subject_type>(); },
      [](subject& s) {
        auto& self = static_cast<subject_type&>(s);
        store_type another = Kind::make(self.devices);
        another.init("a", self.b);
        another.wait();
      });
  all.check("init", [](auto& s) { s.store->init("q", s.b); });
  all.check("init of a list", [](auto& s) { s.store->init(s.fresh, s.values); });
  all.check("push", [](auto& s) { s.store->push("a", s.a).wait(); });
  all.check("push of what is small", [](auto& s) { s.store->push("b", s.b); });
  all.check("push of several sources", [](auto& s) { s.store->push("b", std::vector(3, s.b)); });
  all.check("push from afar", [](auto& s) { s.store->push("a", s.far); });
  all.check("push of a list", [](auto& s) { s.store->push(s.both, s.values).wait(); });
  all.check("pushes without waiting", [](auto& s) {
    auto first = s.store->push("a", s.a);
    completion const copy = first;
    first.wait();
    copy.wait();
  });
  all.check("pull", [](auto& s) { s.store->pull("a", s.to_a); });
  all.check("pull of a list", [](auto& s) { s.store->pull(s.both, s.outputs).wait(); });
  all.check("pushpull", [](auto& s) { s.store->pushpull("a", s.far, s.to_a); });
  all.check("pushpull of a list", [](auto& s) { s.store->pushpull(s.both, s.values, s.outputs); });
  all.check("wait for a key", [](auto& s) {
    s.store->push("a", s.a);
    s.store->wait("a");
  });
  all.check("destruction with work under way", [](auto& s) {
    s.store->push("a", s.a);
    s.store.reset();
  });
  if constexpr (requires { requires Kind::gathers; }) {
    all.check("accumulate", [](auto& s) { s.store->accumulate("a", s.a).wait(); });
    all.check("accumulate of a list", [](auto& s) { s.store->accumulate(s.both, s.values); });
  }
  if constexpr (rows) {
    if constexpr (requires(store_type s, subject_type t) { s.init("q", t.rows[0]); })
      all.check("init of rows", [](auto& s) { s.store->init("q", s.rows[0]); });
    all.check("push of rows", [](auto& s) { s.store->push("a", s.rows[0]).wait(); });
    all.check("push of rows to all", [](auto& s) { s.store->push("a", s.rows[0], row_updates::standard); });
    if constexpr (requires(store_type s, subject_type t) { s.push(t.both, t.rows, row_updates::lazy); })
      all.check("push of rows to a list", [](auto& s) { s.store->push(s.both, s.rows, row_updates::lazy).wait(); });
    if constexpr (requires(store_type s, subject_type t) { s.pushpull("a", t.rows[0], t.to_a, row_updates::lazy); })
      all.check("pushpull of rows", [](auto& s) { s.store->pushpull("a", s.rows[0], s.to_a, row_updates::lazy); });
    if constexpr (requires(store_type s, subject_type t) { s.row_sparse_pull("a", t.filled[0], t.some); })
      all.check("row_sparse_pull", [](auto& s) { s.store->row_sparse_pull("a", s.filled[0], s.some).wait(); });
    if constexpr (requires(store_type s, subject_type t) { s.row_sparse_pull(t.both, t.filled, std::vector<ids>(2)); })
      all.check("row_sparse_pull of a list",
                [](auto& s) { s.store->row_sparse_pull(s.both, s.filled, std::vector<ids>{{7, 3}, {2, 0}}); });
  }
  if constexpr (requires(store_type s) { s.set_hyperparameters(s.updater()); })
    all.check("set_hyperparameters", [](auto& s) { s.store->set_hyperparameters(Kind::other_rule()); });
  if constexpr (requires(store_type s) { s.add_group([](auto) { return true; }, s.updater()); })
    all.check("add_group", [](auto& s) {
      s.store->add_group([](auto key) { return key == "b" || key == "q"; }, Kind::other_rule());
    });
  if constexpr (requires(store_type s, strings keys) {
                  s.set_steps("a", 7);
                  s.swap(keys, "ema");
                }) {
    if constexpr (requires { Kind::averages; }) {
      all.check("swap", [](auto& s) {
        s.store->swap("ema");
        s.swapped = true;
      });
      all.check("swap of a list", [](auto& s) {
        s.store->swap(s.both, "ema");
        s.swapped = true;
      });
    }
  }
  if constexpr (requires(store_type s) { s.set_steps("a", 7); })
    all.check("set_steps", [](auto& s) { s.store->set_steps("a", 7); });
  if constexpr (requires(store_type s) { s.set_state("a", "x", s.state("a", "x")); } && !requires { Kind::stateless; })
    all.check("state and set_state", [](auto& s) {
      auto names = [&] {
        if constexpr (requires { s.store->state_names("a"); }) {
          return s.store->state_names("a");
        } else {
          return s.store->state_names();
        }
      }();
      auto const last = names.back();
      auto elements = s.store->state("a", last);
      std::fill(elements.begin(), elements.end(), std::remove_reference_t<decltype(elements[0])>{});
      s.store->set_state("a", last, elements);
    });
  if constexpr (requires(store_type s) { s.set_updater([](auto, auto const&, auto const&) {}); })
    all.check("set_updater", [](auto& s) {
      s.store->set_updater([](auto, auto const& received, auto const& stored) {
        for (std::size_t i = 0; i < stored.size(); ++i) stored.data()[i] += received.data()[i];
      });
    });
}

}  // namespace pushpull::test::faults
