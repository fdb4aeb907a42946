/// @file
/// A random program of calls on one store, valid and hostile, beside a serial model. Numbers are small integers and halves of
/// them, so that the model's floats are the store's.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

#include <pushpull/pushpull.hpp>

#include "fuzz/input.hpp"

namespace pushpull::test {

/// The rule of the programs: m = m / 2 + g;  w = w - m.
struct halving {
  double learning_rate = 1;
  static constexpr auto state_names = states("m");

  void validate() const {
    if (!(learning_rate > 0)) throw invalid_argument("halving: a positive rate expected");
  }
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g, V& m) const noexcept {
    m = 0.5 * m + g;
    w -= learning_rate * m;
  }
};
/// Without a state: w = w - g.
struct descent {
  static constexpr auto state_names = states();
  template <class S, class V>
  PUSHPULL_HOST_DEVICE void operator()(S const&, V& w, V g) const noexcept {
    w -= g;
  }
};

/// What a push makes of a key.
enum class update_kind { replaces, halves, descends };

/// @tparam Kind  make(devices); update_of(key); micro_batches, 0 where every push is a step; rows, whether it takes such.
template <class Kind>
class call_program {
  using vector = std::vector<float>;
  using view = tensor_view<float>;
  using rows = row_sparse<float>;
  using ids = std::vector<std::int64_t>;
  using strings = std::vector<std::string>;

  struct key_model {
    pushpull::shape extents;
    vector w, m, sum;
    std::int64_t t = 0, pending = 0;
  };
  using model = std::map<std::string, key_model>;

 public:
  explicit call_program(fuzz_input& input)
      : input_(input), devices_(1 + input.below(3)), store_(Kind::make(cpu_devices(static_cast<int>(devices_)))) {}

  void run() {
    init();
    while (!input_.ended()) {
      switch (input_.below(12)) {
        case 0: init(); break;
        case 1: init_list(); break;
        case 2:
        case 3: push(); break;
        case 4: push_list(); break;
        case 5: pull(); break;
        case 6: pushpull(); break;
        case 7: push_rows(); break;
        case 8: pull_rows(); break;
        case 9: inspect(); break;
        case 10: hostile(); break;
        case 11: store_.wait(); break;
      }
    }
    compare();
  }

 private:
  static inline std::array<std::string, 5> const names{"a", "b", "c", "bias", ""};
  static inline std::array<shape, 6> const shapes{shape{3, 4}, shape{70},   shape{2, 33},
                                                  shape{0, 4}, shape{4, 0}, shape{}};

  std::string const& name() { return names[input_.below(names.size())]; }
  vector& numbers(std::size_t size) {
    vector& v = memory_.emplace_back(size);
    for (float& x : v) x = static_cast<float>(static_cast<int>(input_.byte() % 9) - 4);
    return v;
  }
  shape const& any_shape() { return shapes[input_.below(shapes.size())]; }
  /// That of the key, or now and then another.
  shape shape_for(std::string const& key) {
    auto const found = model_.find(key);
    return found == model_.end() || input_.once_in(16) ? any_shape() : found->second.extents;
  }
  bool known(std::string const& key) const { return model_.contains(key); }

  /// call() succeeds if `valid`, else it throws an error of the library and nothing has changed.
  template <class F>
  bool expect(bool valid, F const& call) {
    try {
      call();
    } catch (error const&) {
      fuzz_check(!valid, "a valid call succeeds");
      compare();
      return false;
    }
    fuzz_check(valid, "an invalid call is refused");
    return true;
  }

  void init() {
    std::string const& key = name();
    auto const extents = any_shape();
    vector const& value = numbers(extents.size());
    if (expect(!known(key), [&] { store_.init(key, tensor_view(value.data(), extents)); })) add(key, extents, value);
  }
  void init_list() {
    strings keys;
    std::vector<tensor_view<float const>> values;
    model more;
    bool valid = true;
    for (std::size_t n = input_.below(4); n > 0; --n) {
      std::string const& key = name();
      auto const extents = any_shape();
      vector const& value = numbers(extents.size());
      valid = valid && !known(key) && !more.contains(key);
      more[key] = {extents, value, vector(value.size()), vector(value.size())};
      keys.push_back(key);
      values.emplace_back(value.data(), extents);
    }
    if (input_.once_in(8)) keys.push_back("x");
    valid = valid && !keys.empty() && keys.size() == values.size();
    if (expect(valid, [&] { store_.init(keys, values); })) model_.merge(more);
  }
  void add(std::string const& key, shape const& extents, vector const& value) {
    model_[key] = {extents, value, vector(value.size()), vector(value.size())};
  }

  struct sources {
    std::vector<view> views;
    vector sum;
    bool valid = true;
  };
  /// Up to three gradients of one key, sometimes none, sometimes of a wrong shape.
  sources gradients(std::string const& key) {
    sources result;
    auto const found = model_.find(key);
    result.valid = found != model_.end();
    if (result.valid) result.sum.resize(found->second.w.size());
    for (std::size_t n = input_.once_in(16) ? 0 : 1 + input_.below(3); n > 0; --n) {
      shape const extents = shape_for(key);
      vector& g = numbers(extents.size());
      result.views.emplace_back(g.data(), extents);
      result.valid = result.valid && extents == found->second.extents;
      for (std::size_t i = 0; result.valid && i < g.size(); ++i) result.sum[i] += g[i];
    }
    result.valid = result.valid && !result.views.empty();
    return result;
  }

  /// What the push of such a sum makes of the key.
  void apply(std::string const& key, vector const& sum) {
    key_model& k = model_.find(key)->second;
    if constexpr (Kind::micro_batches > 0) {
      for (std::size_t i = 0; i < sum.size(); ++i) k.sum[i] += sum[i];
      if (++k.pending < Kind::micro_batches) return;
      k.pending = 0;
      step(key, k, k.sum, nullptr);
      std::fill(k.sum.begin(), k.sum.end(), 0.0F);
    } else {
      step(key, k, sum, nullptr);
    }
  }
  /// @param present  Of each row, whether it came; null for all.
  void step(std::string const& key, key_model& k, vector const& sum, std::vector<bool> const* present) {
    ++k.t;
    std::size_t const length = present == nullptr || present->empty() ? 1 : k.w.size() / present->size();
    for (std::size_t i = 0; i < k.w.size(); ++i) {
      if (present != nullptr && Kind::update_of(key) != update_kind::replaces && !(*present)[i / length]) continue;
      switch (Kind::update_of(key)) {
        case update_kind::replaces: k.w[i] = sum[i]; break;
        case update_kind::halves: k.w[i] -= k.m[i] = 0.5F * k.m[i] + sum[i]; break;
        case update_kind::descends: k.w[i] -= sum[i]; break;
      }
    }
  }

  void push() {
    std::string const& key = name();
    auto const g = gradients(key);
    priority const when{static_cast<int>(input_.below(3))};
    if (expect(g.valid, [&] { store_.push(key, g.views, when); })) apply(key, g.sum);
  }
  void push_list() {
    strings keys;
    std::vector<std::vector<view>> list;
    std::map<std::string, vector> sums;
    bool valid = true;
    for (std::size_t n = input_.below(4); n > 0; --n) {
      std::string const& key = name();
      auto g = gradients(key);
      valid = valid && g.valid;
      if (g.valid) {
        auto& sum = sums.try_emplace(key, vector(g.sum.size())).first->second;
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += g.sum[i];
      }
      keys.push_back(key);
      list.push_back(std::move(g.views));
    }
    if (input_.once_in(8)) list.emplace_back();
    valid = valid && !keys.empty() && keys.size() == list.size();
    if (!expect(valid, [&] { store_.push(keys, list); })) return;
    for (auto const& [key, sum] : sums) apply(key, sum);
  }

  void pull() {
    std::string const& key = name();
    std::vector<view> outputs;
    bool valid = known(key);
    for (std::size_t n = input_.below(3); n > 0; --n) {
      shape const extents = shape_for(key);
      outputs.emplace_back(numbers(extents.size()).data(), extents);
      valid = valid && extents == model_[key].extents;
    }
    if (!known(key)) model_.erase(key);
    if (expect(valid, [&] { store_.pull(key, outputs).wait(); }))
      for (view const& out : outputs)
        fuzz_check(std::equal(out.data(), out.data() + out.size(), model_[key].w.begin()),
                   "a pull gives what is stored");
  }
  void pushpull() {
    std::string const& key = name();
    auto const g = gradients(key);
    shape const extents = shape_for(key);
    view const out(numbers(extents.size()).data(), extents);
    if (!expect(g.valid && extents == model_.find(key)->second.extents,
                [&] { store_.pushpull(key, g.views, out).wait(); }))
      return;
    apply(key, g.sum);
    fuzz_check(std::equal(out.data(), out.data() + out.size(), model_[key].w.begin()),
               "a pushpull gives what is stored then");
  }

  void push_rows() {
    if constexpr (Kind::rows) {
      std::string const& key = name();
      shape const extents = shape_for(key);
      if (extents.rank() == 0) return;
      rows& gradient = rows_.emplace_back(cpu_device<>(), extents, static_cast<std::int64_t>(input_.below(5)));
      bool valid = known(key) && extents == model_[key].extents;
      if (!known(key)) model_.erase(key);
      vector sum(extents.size());
      std::vector<bool> present(static_cast<std::size_t>(extents[0]));
      auto const length = static_cast<std::size_t>(gradient.row_length());
      for (std::int64_t r = 0; r < gradient.rows(); ++r) {
        auto const id =
            static_cast<std::int64_t>(input_.below(static_cast<std::size_t>(extents[0]) + (input_.once_in(8) ? 1 : 0)));
        gradient.row_ids()[r] = id;
        bool const exists = id < extents[0];
        valid = valid && exists;
        vector const& g = numbers(length);
        std::copy(g.begin(), g.end(), gradient.values() + r * gradient.row_length());
        if (!exists) continue;
        present[static_cast<std::size_t>(id)] = true;
        for (std::size_t i = 0; i < length; ++i) sum[static_cast<std::size_t>(id) * length + i] += g[i];
      }
      bool const standard = input_.once_in(2);
      if (expect(valid, [&] { store_.push(key, gradient, standard ? row_updates::standard : row_updates::lazy); }))
        step(key, model_[key], sum, standard ? nullptr : &present);
    }
  }
  void pull_rows() {
    if constexpr (requires(rows& out) { store_.row_sparse_pull(names[0], out, ids()); }) {
      std::string const& key = name();
      shape const extents = shape_for(key);
      if (extents.rank() == 0) return;
      rows& out = rows_.emplace_back(cpu_device<>(), extents);
      constexpr double odd[] = {-1, 0.5, 1e30, std::numeric_limits<double>::infinity(),
                                std::numeric_limits<double>::quiet_NaN()};
      std::vector<double> wanted;
      bool valid = known(key) && extents == model_[key].extents;
      if (!known(key)) model_.erase(key);
      for (std::size_t n = input_.below(5); n > 0; --n) {
        if (input_.once_in(12)) {
          wanted.push_back(odd[input_.below(std::size(odd))]);
          valid = false;
        } else {
          wanted.push_back(static_cast<double>(input_.below(static_cast<std::size_t>(extents[0]) + 1)));
          valid = valid && wanted.back() < static_cast<double>(extents[0]);
        }
      }
      if (!expect(valid, [&] { store_.row_sparse_pull(key, out, wanted).wait(); })) return;
      std::sort(wanted.begin(), wanted.end());
      wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
      fuzz_check(std::equal(wanted.begin(), wanted.end(), out.row_ids(), out.row_ids() + out.rows(),
                            [](double a, std::int64_t b) { return a == static_cast<double>(b); }),
                 "rows come by ascending ids, each once");
      vector const& w = model_[key].w;
      for (std::int64_t r = 0; r < out.rows(); ++r)
        fuzz_check(std::equal(out.values() + r * out.row_length(), out.values() + (r + 1) * out.row_length(),
                              w.begin() + out.row_ids()[r] * out.row_length()),
                   "a pull of rows gives what is stored");
    }
  }

  void inspect() {
    std::string const& key = name();
    auto const found = model_.find(key);
    fuzz_check(store_.contains(key) == (found != model_.end()) && store_.size() == model_.size(),
               "keys are those of init");
    expect(found != model_.end(),
           [&] { fuzz_check(store_.shape(key) == found->second.extents, "a key has its shape"); });
    expect(found != model_.end(), [&] { store_.wait(key); });
    if constexpr (Kind::has_steps) {
      auto const t = static_cast<std::int64_t>(input_.below(4)) - 1;
      if (expect(found != model_.end() && t >= 0, [&] { store_.set_steps(key, t); })) found->second.t = t;
    }
    if constexpr (requires { store_.set_hyperparameters(halving{}); })
      expect(true, [&] { store_.set_hyperparameters(halving{}); });
  }

  /// Calls that can never be right.
  void hostile() {
    vector& some = numbers(12);
    constexpr std::int64_t huge = std::int64_t{1} << 61;
    std::string const& key = name();
    switch (input_.below(7)) {
      case 0: expect(false, [&] { store_.init("huge", view(some.data(), shape{huge})); }); break;
      case 1: expect(false, [&] { store_.init("huge", view(some.data(), shape{huge / 4})); }); break;
      case 2: expect(false, [&] { store_.push(key, view(some.data(), shape{huge, 4, 9})); }); break;
      case 3: expect(false, [&] { store_.pull("never", some); }); break;
      case 4: expect(false, [&] { store_.push(key, view(some.data(), shape{3, 4, 1})); }); break;
      case 5:
        if constexpr (requires { store_.set_hyperparameters(halving{-1}); })
          expect(false, [&] { store_.set_hyperparameters(halving{-1}); });
        break;
      case 6: {
        auto const range = std::views::iota(0, 2) | std::views::transform([&](int) {
                             static_cast<void>(store_.shape(key));  // the store is asked while it asks
                             return view(some.data(), shape{3, 4});
                           });
        expect(false, [&] { store_.push(key, range); });
        break;
      }
    }
  }

  /// All that the store holds is what the model holds.
  void compare() {
    store_.wait();
    fuzz_check(store_.size() == model_.size(), "no key too few or too many");
    for (auto const& [key, k] : model_) {
      vector out(k.w.size());
      store_.pull(key, tensor_view(out.data(), k.extents)).wait();
      fuzz_check(out == k.w, "stored values are those of the model");
      if constexpr (Kind::has_steps) {
        fuzz_check(store_.steps(key) == k.t, "step counts are those of the model");
        if (Kind::update_of(key) == update_kind::halves) {
          auto const state = Kind::state(store_, key);
          fuzz_check(state == k.m, "states are those of the model");
        }
      }
    }
  }

  fuzz_input& input_;
  std::size_t devices_;
  std::deque<vector> memory_;  // of gradients and outputs, while calls may use them
  std::deque<rows> rows_;
  model model_;
  decltype(Kind::make(std::vector<cpu_device<>>())) store_;
};

}  // namespace pushpull::test
