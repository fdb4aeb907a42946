/// @file
/// A random program of calls on the store of each rank: the same on all ranks and in one process that has all of their
/// sources. It notes whatever the store shows, for a comparison.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace pushpull::test {

/// Which ranks of a job a store stands for: one, or all in one process.
struct ranks_here {
  std::size_t first, count, all;
};

/// What a call has shown.
struct noted {
  std::string call;
  std::vector<std::uint32_t> bits;
  bool operator==(noted const&) const = default;
};

/// @tparam Kind  make(devices, communicator) -> a store of floats; rule(learning rate); rows, whether it takes such;
///               infinite, whether gradients may be.
template <class Kind, class Communicator>
class random_program {
  using vector = std::vector<float>;
  using view = tensor_view<float>;
  using views = std::vector<view>;
  using strings = std::vector<std::string>;
  using store_type = decltype(Kind::make(std::vector<cpu_device<>>(), std::declval<Communicator const&>()));

  struct key {
    std::string name;
    shape extents;
  };

 public:
  random_program(unsigned seed, ranks_here const& here, Communicator const& c)
      : random_(seed),
        alone_(static_cast<unsigned>(seed + 1000 * here.first)),
        here_(here),
        devices_(1 + below(3)),
        store_(Kind::make(cpu_devices(static_cast<int>(devices_ * here.count)), c)) {}

  std::vector<noted> run() {
    init();
    for (std::size_t calls = 4 + below(20); calls > 0; --calls) {
      ++number_;
      switch (below(14)) {
        case 0: init(); break;
        case 1: push(); break;
        case 2: push_list(); break;
        case 3: pushpull(); break;
        case 4: pushpull_list(); break;
        case 5: pull(any_key()); break;
        case 6: assign(); break;
        case 7: accumulate(); break;
        case 8: store_.set_hyperparameters(Kind::rule(0.01 * static_cast<double>(1 + below(20)))); break;
        case 9: swap(); break;
        case 10: push_rows(); break;
        case 11: pull_rows(); break;
        default: step_of_parameters(); break;
      }
      if (alone_() % 4 == 0) {  // which other ranks do not know of
        auto const& k = keys_[alone_() % keys_.size()];
        store_.pull(k.name, view(room(k.extents.size()).data(), k.extents));
      }
      if (once_in(3)) wait();
    }
    for (key const& k : keys_) inspect(k);
    note_parameters();
    return std::move(notes_);
  }

 private:
  std::size_t below(std::size_t count) { return random_() % count; }
  bool once_in(std::size_t count) { return below(count) == 0; }
  key const& any_key() { return keys_[below(keys_.size())]; }
  /// Different keys, in any order.
  std::vector<key> some_keys() {
    std::vector<key> chosen;
    for (key const& k : keys_)
      if (once_in(2)) chosen.push_back(k);
    if (chosen.empty()) chosen.push_back(any_key());
    std::shuffle(chosen.begin(), chosen.end(), random_);
    return chosen;
  }
  static strings names_of(std::vector<key> const& keys) {
    strings names;
    for (key const& k : keys) names.push_back(k.name);
    return names;
  }
  shape any_shape() {
    static constexpr std::int64_t sizes[] = {0, 1, 2, 17, 127, 1024, 1031, 2048, 3072, 4099};
    static std::vector<shape> const tables{{7, 3}, {1, 1024}, {300, 7}, {2, 1500}, {32, 64}, {3, 0}, {0, 4}};
    if (once_in(3)) return tables[below(tables.size())];
    return {sizes[below(std::size(sizes))]};
  }

  /// Memory that stays until all calls are finished.
  vector& room(std::size_t size) { return memory_.emplace_back(size); }
  /// Numbers in [-1, 1): a function of the call, the key and the source. Their sum depends on its order, unless micro-batches
  /// are added up, which ranks do in another order than one process.
  vector& numbers(std::string const& name, std::size_t source, std::size_t size) {
    std::uint64_t state = (number_ * 1000 + source) * 1000 + detail::hash_of(name) % 997;
    vector& result = room(size);
    for (float& x : result) {
      state += 0x9E3779B97F4A7C15U;
      std::uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
      z ^= z >> 27;
      x = static_cast<float>(store_type::accumulates ? z >> 54 << 14 : z >> 40) * 0x1p-23F - 1;
    }
    return result;
  }
  /// A value of which that of rank 0 counts.
  view value_of(key const& k) {
    return {numbers(k.name, here_.first == 0 ? 900 : 901, k.extents.size()).data(), k.extents};
  }
  /// The gradients that the ranks here bring, `each` of them.
  views gradients(key const& k, std::size_t each) {
    std::size_t const size = k.extents.size();
    bool const infinite = Kind::infinite && once_in(6) && size > 0;
    std::size_t const bad = below(each * here_.all), element = below(std::max(size, std::size_t{1}));
    views result;
    for (std::size_t source = here_.first * each; source < (here_.first + here_.count) * each; ++source) {
      vector& g = numbers(k.name, source, size);
      if (infinite && source == bad) g[element] = std::numeric_limits<float>::infinity();
      result.emplace_back(g.data(), k.extents);
    }
    return result;
  }
  std::vector<views> gradients(std::vector<key> const& keys) {
    std::size_t const each = 1 + below(3);
    std::vector<views> result;
    for (key const& k : keys) result.push_back(gradients(k, each));
    return result;
  }
  views outputs(std::vector<key> const& keys) {
    views result;
    for (key const& k : keys) result.emplace_back(room(k.extents.size()).data(), k.extents);
    return result;
  }

  template <class T>
  void note(std::string const& call, T const* elements, std::size_t count) {
    static_assert(sizeof(T) % sizeof(std::uint32_t) == 0);
    noted& entry = notes_.emplace_back(noted{"call " + std::to_string(number_) + ", " + call, {}});
    entry.bits.resize(count * sizeof(T) / sizeof(std::uint32_t));
    if (count > 0) std::memcpy(entry.bits.data(), elements, count * sizeof(T));
  }
  void note(std::string const& call, view const& v) { note(call, v.data(), v.size()); }
  void note(std::string const& call, std::vector<key> const& keys, views const& all) {
    for (std::size_t i = 0; i < keys.size(); ++i) note(call + " " + keys[i].name, all[i]);
  }
  /// A store refuses the same calls on all ranks, and goes on.
  template <class F>
  void attempt(std::string const& call, F const& f) {
    try {
      f();
    } catch (comm_error const&) {
      throw;
    } catch (error const& e) {
      note(call + ": " + e.what(), static_cast<float const*>(nullptr), 0);
    }
  }
  void wait() {
    store_.wait();
    memory_.clear();
    rows_.clear();
  }

  void init() {
    std::vector<key> fresh;
    for (std::size_t count = 1 + below(3); count > 0; --count)
      fresh.push_back({"k" + std::to_string(keys_.size() + fresh.size()), any_shape()});
    views values;
    for (key const& k : fresh) values.push_back(value_of(k));
    views const out = outputs(fresh);
    keys_.insert(keys_.end(), fresh.begin(), fresh.end());
    if (once_in(3)) {
      store_.broadcast(names_of(fresh), values, out).wait();
      return note("broadcast", fresh, out);
    }
    if constexpr (Kind::rows)
      if (fresh.size() == 1 && fresh[0].extents.rank() == 2)
        return store_.init(fresh[0].name, rows_of(fresh[0], here_.first == 0 ? 900 : 901));
    store_.init(names_of(fresh), values);
  }
  void push() {
    key const& k = any_key();
    auto const g = gradients(k, 1 + below(3));
    attempt("push", [&] { store_.push(k.name, g); });
  }
  void push_list() {
    auto const chosen = some_keys();
    auto const g = gradients(chosen);
    attempt("push", [&] { store_.push(names_of(chosen), g); });
  }
  void pushpull() {
    key const& k = any_key();
    auto const g = gradients(k, 1 + below(3));
    view const out = outputs({k})[0];
    attempt("pushpull", [&] { store_.pushpull(k.name, g, out).wait(); });
    note("pushpull " + k.name, out);
  }
  void pushpull_list() {
    auto const chosen = some_keys();
    auto const g = gradients(chosen);
    auto const out = outputs(chosen);
    attempt("pushpull", [&] { store_.pushpull(names_of(chosen), g, out).wait(); });
    note("pushpull", chosen, out);
  }
  void pull(key const& k) {
    view const out = outputs({k})[0];
    store_.pull(k.name, out).wait();
    note("pull " + k.name, out);
  }
  void assign() {
    key const& k = any_key();
    attempt("assign", [&] { store_.assign(k.name, value_of(k)); });
  }
  void accumulate() {
    if constexpr (store_type::accumulates) {
      key const& k = any_key();
      auto const g = gradients(k, 1 + below(3));
      attempt("accumulate", [&] { store_.accumulate(k.name, g); });
    } else {
      push();
    }
  }
  /// There and back, with calls in between.
  void swap() {
    auto const names = store_.state_names();
    if (names.empty()) return inspect(any_key());
    auto const state = names[below(names.size())];
    attempt("swap", [&] { store_.swap(state); });
    pull(any_key());
    if (once_in(2)) push();
    if (once_in(2)) pull(any_key());
    attempt("swap back", [&] { store_.swap(state); });
  }
  void inspect(key const& k) {
    pull(k);
    auto const steps = store_.steps(k.name);
    note("steps " + k.name, &steps, 1);
    for (auto const& name : store_.state_names()) {
      auto const state = store_.template state<float>(k.name, name);
      note("state " + std::string(name) + " " + k.name, state.data(), state.size());
    }
  }

  row_sparse<float>& rows_of(key const& k, std::size_t source) {
    auto const all = static_cast<std::uint64_t>(k.extents[0]);
    std::mt19937 random(static_cast<unsigned>(number_ * 1000 + source));
    auto const count = all == 0 ? 0 : static_cast<std::int64_t>(random() % std::min<std::uint64_t>(all + 3, 20));
    row_sparse<float>& rows = rows_.emplace_back(cpu_device<>(), k.extents, count);
    for (std::int64_t i = 0; i < count; ++i) rows.row_ids()[i] = static_cast<std::int64_t>(random() % all);
    vector const& values = numbers(k.name, source, static_cast<std::size_t>(count * rows.row_length()));
    std::copy(values.begin(), values.end(), rows.values());
    return rows;
  }
  void push_rows() {
    if constexpr (Kind::rows) {
      key const& k = any_key();
      std::size_t const each = 1 + below(2);
      auto const updates = once_in(2) ? row_updates::lazy : row_updates::standard;
      auto& gradients = row_lists_.emplace_back();
      for (std::size_t source = here_.first * each; source < (here_.first + here_.count) * each; ++source) {
        gradients.push_back(std::move(rows_of(k, source)));
        rows_.pop_back();
      }
      view const out = outputs({k})[0];
      if (once_in(2)) {
        attempt("push of rows", [&] { store_.push(k.name, gradients, updates).wait(); });
      } else {
        attempt("pushpull of rows", [&] { store_.pushpull(k.name, gradients, out, updates).wait(); });
        note("pushpull of rows " + k.name, out);
      }
      row_lists_.clear();
    } else {
      push();
    }
  }
  void pull_rows() {
    if constexpr (Kind::rows) {
      key const& k = any_key();
      if (k.extents[0] == 0) return;
      std::vector<std::int64_t> ids;
      for (std::size_t n = below(6); n > 0; --n)
        ids.push_back(static_cast<std::int64_t>(below(static_cast<std::size_t>(k.extents[0]))));
      row_sparse<float> out(cpu_device<>(), k.extents);
      store_.row_sparse_pull(k.name, out, ids).wait();
      note("row ids " + k.name, out.row_ids(), static_cast<std::size_t>(out.rows()));
      note("rows " + k.name, out.values(), static_cast<std::size_t>(out.rows() * out.row_length()));
    } else {
      pull(any_key());
    }
  }

  void step_of_parameters() {
    if (!parameters_) {
      parameters_.emplace(store_);
      parameters_->set_bucket_bytes(4000);
    }
    if (parameter_names_.empty() || once_in(4)) {
      key const k{"p" + std::to_string(parameter_names_.size()), any_shape()};
      parameters_->add(k.name, value_of(k), {.requires_grad = !once_in(5)});
      parameter_names_.push_back(k.name);
    }
    auto const& some = parameter_names_[below(parameter_names_.size())];
    if (once_in(5)) parameters_->freeze(some);
    if (once_in(5)) parameters_->unfreeze(some);
    if (once_in(5)) parameters_->assign(some, value_of({some, parameters_->value(some, std::size_t{0}).shape()}));
    for (std::size_t steps = 1 + below(3); steps > 0; --steps) {
      ++number_;
      step_in_parts();
      note_parameters();
    }
  }
  void write_gradients(std::string const& name) {
    for (std::size_t n = 0; n < devices_ * here_.count; ++n) {
      view const g = parameters_->grad(name, n);
      vector const& x = numbers(name, here_.first * devices_ + n, g.size());
      std::copy(x.begin(), x.end(), g.data());
    }
  }
  /// Some or all parts begin while gradients of others are written.
  void step_in_parts() {
    bool const adds = store_type::accumulates && once_in(3), in_parts = !adds && once_in(2), all = once_in(2);
    bool complete = in_parts;
    for (auto const& name : parameter_names_) {
      if (!parameters_->requires_grad(name)) continue;
      write_gradients(name);
      bool const begins = in_parts && (all || once_in(2));
      complete = complete && begins;
      if (begins) attempt("ready", [&] { parameters_->ready(name); });
      if (begins && once_in(4)) push();
    }
    attempt("step of parameters", [&] {
      if constexpr (store_type::accumulates)
        if (adds) return parameters_->accumulate_all();
      if (!complete || once_in(2)) return parameters_->update_all();
      for (auto const& name : parameter_names_) parameters_->wait(name);
    });
  }
  void note_parameters() {
    for (auto const& name : parameter_names_) {
      view const first = parameters_->value(name, std::size_t{0});
      note("parameter " + name, first);
      for (std::size_t n = 1; n < devices_ * here_.count; ++n) {
        view const other = parameters_->value(name, n);
        if (first.size() > 0 && std::memcmp(first.data(), other.data(), first.size() * sizeof(float)) != 0)
          note("another mirror " + name, other);
      }
    }
  }

  std::mt19937 random_, alone_;  // as on the other ranks, and of this rank
  ranks_here here_;
  std::size_t devices_;  // of a rank
  std::size_t number_ = 0;
  std::deque<vector> memory_;
  std::deque<row_sparse<float>> rows_;
  std::deque<std::vector<row_sparse<float>>> row_lists_;
  store_type store_;
  std::optional<parameter_store<store_type>> parameters_;
  std::vector<key> keys_;
  strings parameter_names_;
  std::vector<noted> notes_;
};

}  // namespace pushpull::test
