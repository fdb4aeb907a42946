/// @file
/// A store that steps a model's parameters, of which some are tables of rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/row_sparse.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/optimizer/store_optimizer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Moves rows between a table and a list of them, one per index.
template <class T>
struct move_row {
  T* list;
  std::int64_t const* ids;
  T* table;
  std::int64_t length;
  bool to_table;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    for (std::int64_t k = 0; k < length; ++k) {
      T& own = table[ids[i] * length + k];
      if (to_table) {
        own = list[i * length + k];
      } else {
        list[i * length + k] = own;
      }
    }
  }
};
/// Zeros for a row of a table.
template <class T>
struct zero_row {
  std::int64_t const* ids;
  T* table;
  std::int64_t length;

  PUSHPULL_HOST_DEVICE void operator()(std::int64_t i) const {
    for (std::int64_t k = 0; k < length; ++k) table[ids[i] * length + k] = T{};
  }
};

/// As store_optimizer; tables are keys of the store beside those of the parameter_store. Devices have memory of whole tables and of
/// their gradients, but a step reads and moves the rows alone that `prepare` was told. Rules update them as pushes of row-sparse
/// gradients do: rows outside a batch keep value and states.
template <class S, class Rule>
class table_optimizer final : public store_optimizer<S, Rule> {
  using base = store_optimizer<S, Rule>;
  using T = typename S::value_type;
  using D = typename S::device_type;

 public:
  using typename base::master_type;
  using typename base::view_type;

  table_optimizer(std::unique_ptr<S> store, sample_scale<Rule> scale, std::set<std::string> const& names)
      : base(std::move(store), std::move(scale)) {
    for (std::string const& name : names) tables_[name];
  }

  void add(std::string const& name, tensor_view<master_type const> const& value,
           parameter_options const& options) override {
    auto const found = tables_.find(name);
    if (found == tables_.end()) return base::add(name, value, options);
    auto const is_one = [](double x) { return !(x < 1) && !(x > 1); };
    expects<bad_option>(
        options.requires_grad && is_one(options.learning_rate_multiplier) && is_one(options.weight_decay_multiplier),
        [&] {
          return "init_optimizer: table \"" + name +
                 "\" needs a gradient, and multipliers of 1: those of tables are not supported";
        });
    tensor<T> converted(cpu_device<>(), value.shape());
    auto const view = converted.view();
    copy(value, view);
    store().init(name, tensor_view<T const>(view));
    store().wait();
    table& t = found->second;
    for (D const& device : store().devices()) {
      t.gradients.emplace_back(device, value.shape());
      t.rows.emplace_back(device, value.shape());
      copy(view, t.mirrors.emplace_back(device, value.shape()).view());
    }
  }
  view_type value(std::string const& name, std::size_t n) override {
    auto const found = tables_.find(name);
    return found == tables_.end() ? base::value(name, n) : found->second.mirrors[n].view();
  }
  view_type grad(std::string const& name, std::size_t n) override {
    auto const found = tables_.find(name);
    return found == tables_.end() ? base::grad(name, n) : found->second.gradients[n].view();
  }
  bool steps_in_parts() const override { return false; }
  bool has_tables() const override { return !tables_.empty(); }

  /// @throws invalid_argument if a row does not exist
  bool prepare(std::string const& name, std::vector<std::int64_t> const& row_ids) override {
    auto const found = tables_.find(name);
    if (found == tables_.end()) return false;
    table& t = found->second;
    t.prepared = false;
    store().row_sparse_pull(name, t.rows, row_ids);
    store().wait();
    for_each_device(t, [&](auto& rows, view_type const& mirror, view_type const& gradient) {
      auto const length = rows.row_length();
      rows.device().for_each(rows.rows(), move_row<T>{rows.values(), rows.row_ids(), mirror.data(), length, true});
      rows.device().for_each(rows.rows(), zero_row<T>{rows.row_ids(), gradient.data(), length});
    });
    t.prepared = true;
    return true;
  }
  void choose(std::vector<std::string> const& names, std::vector<char> const& chosen) override {
    std::vector<std::string> others;
    std::vector<char> of_others;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      if (tables_.contains(names[i])) continue;
      others.push_back(names[i]);
      of_others.push_back(chosen[i]);
    }
    if (std::find(of_others.begin(), of_others.end(), 0) == of_others.end()) of_others.clear();
    base::choose(others, of_others);
  }
  /// The tables whose rows were prepared since the last step take part. The next step needs `prepare` again.
  void update() override {
    base::update();
    for (auto& [name, t] : tables_) {
      if (!std::exchange(t.prepared, false)) continue;
      for_each_device(t, [](auto& rows, view_type const&, view_type const& gradient) {
        rows.device().for_each(rows.rows(),
                               move_row<T>{rows.values(), rows.row_ids(), gradient.data(), rows.row_length(), false});
      });
      store().push(name, t.rows);
    }
    store().wait();
  }
  void assign(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values,
              rule_states states) override {
    this->parameters().materialize();
    store().assign(names, values, states);
    store().wait();
    for (std::size_t i = 0; i < names.size(); ++i)
      if (auto const found = tables_.find(names[i]); found != tables_.end())
        for (auto& mirror : found->second.mirrors) copy(values[i], mirror.view());
  }
  void read(std::string const& name, tensor_view<master_type> const& out) override {
    if (!tables_.contains(name)) return base::read(name, out);
    read_key(store(), name, out);
  }

 private:
  struct table {
    std::vector<tensor<T, D>> mirrors{}, gradients{};  // of each device, whole
    std::vector<row_sparse<T, D>> rows{};              // of each device: values of prepare, then gradients of the step
    bool prepared = false;
  };

  S& store() const { return this->store_of_rule(); }
  template <class F>
  static void for_each_device(table& t, F const& f) {
    for (std::size_t n = 0; n < t.rows.size(); ++n) f(t.rows[n], t.mirrors[n].view(), t.gradients[n].view());
  }

  std::map<std::string, table> tables_;
};

}  // namespace pushpull::detail
