/// @file
/// Reading a file of states into a store: all is checked, and only then set.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/load_options.hpp>
#include <pushpull/checkpoint/states_format.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/saved_values.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// Which arrays of a checkpoint a load takes.
enum class loaded_arrays {
  states,            ///< And sums. Tensors with the names of keys are weights for other readers.
  values_and_states  ///< Every key has a value.
};

/// Compares a file of states with a store, and sets what is to be set.
/// @tparam File  Has path(), metadata(), entries(), contains(name) and find(name), as safetensors_file.
template <class S, class File>
class states_loader {
  using key_type = typename decltype(std::declval<S&>().keys())::value_type;

 public:
  states_loader(S& store, File const& file, load_options const& options, loaded_arrays which = loaded_arrays::states)
      : store_(store), file_(file), options_(options), which_(which), keys_(store.keys()), name_of_(keys_) {
    if constexpr (!has_rules_of_keys<S>) {
      rule_ = rule_of(store_, 0);
    } else if (!keys_.empty()) {
      rule_ = rule_of(store_, keys_.front());
    }
  }

  /// @throws file_error; invalid_argument on a key that holds a state in the place of its weights
  void check() {
    for (key_type const& key : keys_) check_key(key);
    check_rest();
    check_carried();
  }

  /// After `check`.
  /// @param read  read(entry, part) -> saved_range: those elements of the entry that part(), an array_part, names, or more.
  ///              They must stay.
  template <class Read>
  void read(Read const& read) {
    using pushpull::detail::saved_array;
    for (key_values& k : loaded_) {
      auto const part_of = [&](saved_array what, std::string const& state = "") {
        return [this, key = k.key, what, state] { return store_.local_part(*key, what, state, false); };
      };
      if (k.value != nullptr)
        k.values.value = read(*k.value, [&] {
          if (!store_.is_mirrored(*k.key)) return part_of(saved_array::value)();
          return pushpull::detail::array_part{"", 0, static_cast<std::int64_t>(k.value->shape.size())};
        });
      auto const names = names_of_states(store_, *k.key);
      for (std::size_t s = 0; s < names.size(); ++s)
        k.values.states.push_back(read(*k.states[s], part_of(saved_array::state, names[s])));
      if (k.sum != nullptr) k.values.sum = read(*k.sum, part_of(saved_array::sum));
    }
  }
  /// After `read`. The values must stay until `changes` is committed.
  void prepare(pushpull::detail::prepared_changes& changes) {
    for (key_values const& k : loaded_) store_.prepare_values(changes, *k.key, k.values);
    store_.prepare_carried_numbers(changes, carried_);
  }
  load_report report() { return std::move(report_); }

 private:
  template <class Message>
  void expects(bool holds, Message const& message) const {
    pushpull::detail::expects<file_error>(holds, [&] { return file_.path().string() + ": " + message(); });
  }

  struct key_values {
    key_type const* key;
    entry const* value = nullptr;
    std::vector<entry const*> states = {};  // in the order of the names
    entry const* sum = nullptr;
    pushpull::detail::saved_values values = {};
  };

  void check_key(key_type const& key) {
    std::string const text = name_of_(key), steps = text + "/steps";
    if (options_.new_keys && find_metadata(file_, steps) == nullptr) {
      report_.missing.push_back(text);
      return;
    }
    expect_weights_in_place("load_optimizer_states", store_, key);
    key_values k{&key};
    k.values.steps = count_in(file_, steps, 0, "steps");
    known_.insert(steps);
    if constexpr (has_rules_of_keys<S>) {
      check_rule(text, rule_of(store_, key));
    } else {
      check_rule(text, rule_);
    }
    using pushpull::detail::saved_array;
    if (which_ == loaded_arrays::values_and_states) {
      k.value = &tensor(text, dtype_of(store_, key, saved_array::value), store_.shape(key));
    } else {
      known_.insert(text);
    }
    for (auto const& name : names_of_states(store_, key))
      k.states.push_back(
          &tensor(text + "/" + name, dtype_of(store_, key, saved_array::state, name), store_.state_shape(key, name)));
    check_sum(k, text);
    report_.loaded.push_back(text);
    loaded_.push_back(std::move(k));
  }

  /// A tensor of the file, of which the store knows.
  entry const& tensor(std::string const& name, std::string const& dtype, shape const& expected) {
    entry const& e = file_.find(name);
    expects(e.dtype == dtype, [&] {
      return "tensor " + in_quotes(e.name) + ": elements of " + dtype + " expected, got " + in_quotes(e.dtype);
    });
    expects(e.shape == expected, [&] {
      return "tensor " + in_quotes(e.name) + ": shape " + to_string(expected) + " expected, got " + to_string(e.shape);
    });
    known_.insert(name);
    return e;
  }

  void check_sum(key_values& k, std::string const& text) {
    std::string const name = text + std::string(sum_entry);
    if (!file_.contains(name)) return;
    known_.insert(name);
    if (!options_.micro_batches) {
      report_.left.push_back(name);
      return;
    }
    std::int64_t const count = count_in(file_, name, 1, "micro-batches");
    bool accumulates = Accumulating<S>;
    if constexpr (AccumulatingAtRunTime<S>) accumulates = store_.accumulates();
    expects(accumulates, [&] {
      return "tensor " + in_quotes(name) + ": the sum of " + std::to_string(count) +
             " micro-batches, the store does not accumulate; load_options{.micro_batches = false} leaves it";
    });
    k.values.micro_batches = count;
    if constexpr (Accumulating<S>)
      k.sum = &tensor(name, dtype_of(store_, *k.key, pushpull::detail::saved_array::sum), store_.shape(*k.key));
  }

  void check_rule(std::string const& text, update::rule_description const& own) const {
    if (options_.other_rule || own.name.empty()) return;
    std::string const prefix = find_metadata(file_, text + "/" + std::string(rule_entry)) != nullptr ? text + "/" : "";
    std::string const* const name = find_metadata(file_, prefix + std::string(rule_entry));
    auto const where = [&] {
      return "key " + in_quotes(text) + ": states of the rule " + quoted_whole(own.name) + " expected, ";
    };
    if (name == nullptr) {
      expects(own.stateful.empty() && own.carried.empty(), [&] {
        return where() +
               "the file names no rule: an earlier version wrote it; if it is this one, "
               "load_options{.other_rule = true} loads it";
      });
      return;
    }
    if (*name == own.name) return;
    std::string const* const stateful = find_metadata(file_, prefix + std::string(stateful_entry));
    bool const same_states = stateful != nullptr && *stateful == own.stateful;
    expects(options_.other_stages && same_states, [&] {
      return where() + "got those of " + quoted_whole(*name) +
             (same_states ? "; load_options{.other_stages = true} loads what both have" : "");
    });
  }
  /// Names of rules are not cut: the difference may stand at their end. Those of a file may be anything.
  static std::string quoted_whole(std::string_view name) {
    constexpr std::size_t limit = 1000;
    std::string text = "\"";
    for (char const c : name.substr(0, limit)) text += (c >= 0 && c < ' ') || c == 0x7F ? '?' : c;
    return text + (name.size() > limit ? "...\"" : "\"");
  }

  /// The further entries of the file.
  void check_rest() {
    std::set<std::string, std::less<>> gone;
    for (auto const& item : file_.metadata()) {
      std::string_view const name = item.first;
      if (!name.ends_with("/steps") || known_.contains(name)) continue;
      expects(options_.gone_keys, [&] {
        return "metadata " + in_quotes(name) + ": the store has no such key; load_options{.gone_keys = true} leaves it";
      });
      report_.left.push_back(*gone.emplace(name.substr(0, name.rfind('/'))).first);
    }
    for (entry const& e : file_.entries()) {
      if (known_.contains(e.name)) continue;
      bool of_gone_key = gone.contains(e.name);
      for (std::size_t at = e.name.rfind('/'); at != e.name.npos && !of_gone_key;
           at = at == 0 ? e.name.npos : e.name.rfind('/', at - 1))
        of_gone_key = gone.contains(std::string_view(e.name).substr(0, at));
      if (of_gone_key) continue;
      expects(options_.other_rule,
              [&] { return "tensor " + in_quotes(e.name) + ": the store has no such key or state"; });
      report_.left.push_back(e.name);
    }
  }

  /// The persistent values.
  void check_carried() {
    carried_ = store_.carried_numbers();
    std::string const* const name = find_metadata(file_, rule_entry);
    if (name == nullptr && options_.other_rule && find_metadata(file_, carried_entry) == nullptr) {
      for (auto const& range : rule_.carried) report_.missing.push_back(range.stage);
      return;
    }
    if (name == nullptr || *name == rule_.name || rule_.name.empty()) {  // or a key's rule was compared
      carried_ = numbers_in(file_, carried_entry, carried_.size());
      return;
    }
    expects(options_.other_stages || options_.other_rule, [&] {  // of a file that shares no key with the store
      return "the rule " + quoted_whole(rule_.name) + " expected, got " + quoted_whole(*name);
    });
    std::set<std::string, std::less<>> own;
    for (auto const& range : rule_.carried) {
      std::string const entry_name = std::string(carried_entry) + "." + range.stage;
      own.insert(entry_name);
      if (find_metadata(file_, entry_name) == nullptr) {
        report_.missing.push_back(range.stage);
        continue;
      }
      auto const numbers = numbers_in(file_, entry_name, range.count);
      std::copy(numbers.begin(), numbers.end(), carried_.begin() + static_cast<std::ptrdiff_t>(range.first));
    }
    std::string const prefix = std::string(carried_entry) + ".";
    for (auto const& item : file_.metadata())
      if (item.first.starts_with(prefix) && !item.first.ends_with("/steps") && !own.contains(item.first))
        report_.left.push_back(item.first.substr(prefix.size()));
  }

  S& store_;
  File const& file_;
  load_options const& options_;
  loaded_arrays const which_;
  std::vector<key_type> const keys_;
  key_names const name_of_;
  update::rule_description rule_;  // of the store, or of its first key
  std::set<std::string, std::less<>> known_;
  std::vector<key_values> loaded_;
  std::vector<double> carried_;
  load_report report_;
};

}  // namespace pushpull::checkpoint::detail
