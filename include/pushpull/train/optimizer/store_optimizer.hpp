/// @file
/// A parameter_store over a store that applies a rule, as the optimizer of a model.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/checkpoint/rank_agreement.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/store/multiplier_groups.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/parameter_store.hpp>
#include <pushpull/store/policies.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/optimizer/chosen_steps.hpp>
#include <pushpull/train/optimizer/model_optimizer.hpp>
#include <pushpull/train/optimizer/rescaled.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// The value of a store's key, in any element type.
template <class S, class M>
void read_key(S& store, std::string const& name, tensor_view<M> const& out) {
  if constexpr (requires { store.pull(name, out); }) {
    store.pull(name, out);
    store.wait();
  } else {
    tensor<typename S::value_type> value(cpu_device<>(), out.shape());
    auto const view = value.view();
    store.pull(name, view);
    store.wait();
    copy(view, out);
  }
}

/// The trained value of a parameter, in any element type.
template <class S, class M>
void read_trained(parameter_store<S>& parameters, std::string const& name, bool trained, tensor_view<M> const& out) {
  S& store = parameters.store();
  if (!trained) {
    copy(parameters.value(name, std::size_t{0}), out);
  } else {
    read_key(store, name, out);
  }
}

/// Writes values of several parameters: all or none, where the store takes lists.
template <class S, class Values>
void assign_all(parameter_store<S>& parameters, std::vector<std::string> const& names, Values const& values,
                rule_states states) {
  if constexpr (requires { parameters.set_value(names, values, states); }) {
    parameters.set_value(names, values, states);
  } else {
    for (std::size_t i = 0; i < names.size(); ++i) parameters.set_value(names[i], values[i], states);
  }
}

/// Calls f on the first rank of a store; all ranks return or throw together, if the store can tell its ranks.
template <class S>
void call_on_first_rank(S const& store, int rank, std::function<void()> const& f) {
  if constexpr (requires { store.owning_ranks(); }) {
    checkpoint::detail::all_or_none(store.owning_ranks(), "save_checkpoint", [&] {
      if (rank == 0) f();
    });
  } else if (rank == 0) {
    f();
  }
}

/// Whether any parameter was registered with a multiplier.
template <class Parameters>
bool has_multipliers(Parameters const& parameters) {
  auto const is_one = [](double x) { return !(x < 1) && !(x > 1); };
  for (parameter_info const p : parameters)
    if (!is_one(p.options.learning_rate_multiplier) || !is_one(p.options.weight_decay_multiplier)) return true;
  return false;
}

/// @tparam S     The store. @tparam Rule  The rule that the module was given for it, void if the store brought its own.
template <class S, class Rule>
class store_optimizer : public train::model_optimizer<typename S::value_type, typename S::device_type> {
  using base = train::model_optimizer<typename S::value_type, typename S::device_type>;

 public:
  using typename base::master_type;
  using typename base::view_type;

  /// Over a store of somebody else's, which outlives this.
  store_optimizer(S& store, sample_scale<Rule> scale) : store_(&store), scale_(std::move(scale)), parameters_(store) {}
  /// Over a store of its own.
  store_optimizer(std::unique_ptr<S> store, sample_scale<Rule> scale)
      : own_(std::move(store)), store_(own_.get()), scale_(std::move(scale)), parameters_(*store_) {}

  void add(std::string const& name, tensor_view<master_type const> const& value,
           parameter_options const& options) override {
    parameters_.add(name, value, options);
  }
  void begin() override {
    parameters_.materialize();
    if constexpr (requires { add_multiplier_groups(parameters_, rule()); })
      if (has_multipliers(parameters_)) add_multiplier_groups(parameters_, rule());
  }

  view_type value(std::string const& name, std::size_t n) override { return parameters_.value(name, n); }
  view_type grad(std::string const& name, std::size_t n) override { return parameters_.grad(name, n); }
  void choose(std::vector<std::string> const& names, std::vector<char> const& chosen) override {
    steps_.choose(names, chosen);
  }
  void update() override { steps_.update(parameters_); }
  bool reduce() override { return false; }
  void apply() override { update(); }
  bool steps_in_parts() const override { return true; }
  void ready(std::string const& name) override { parameters_.ready(name); }
  void abandon_step() override { parameters_.abandon_step(); }
  void wait(std::string const& name) override { parameters_.wait(name); }
  void wait() override {
    for (auto const& parameter : parameters_) parameters_.wait(parameter.name);
    store_->wait();
  }
  parameter_store<S>& parameters() { return parameters_; }
  void assign(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values,
              rule_states states) override {
    assign_all(parameters_, names, values, states);
  }
  void read(std::string const& name, tensor_view<master_type> const& out) override {
    read_trained(parameters_, name, parameters_.requires_grad(name), out);
  }
  void set_samples(double samples) override { scale_.set_samples(samples, *store_); }
  std::optional<double> learning_rate() const override {
    if constexpr (requires { rule(); }) return learning_rate_of(rule());
    return std::nullopt;
  }
  int num_workers() const override {
    if constexpr (requires { parameters_.num_workers(); }) return parameters_.num_workers();
    return 1;
  }
  int rank() const override {
    if constexpr (requires { parameters_.rank(); }) return parameters_.rank();
    return 0;
  }
  void on_first_rank(std::function<void()> const& f) override { call_on_first_rank(*store_, rank(), f); }
  bool updates_on_store() const override { return true; }
  void save_states([[maybe_unused]] std::filesystem::path const& path) override {
    if constexpr (checkpoint::OptimizerStateStore<S>) {
      checkpoint::save_optimizer_states(*store_, path);
    } else {
      raise<invalid_argument>(std::string("save_states: the store is no OptimizerStateStore"));
    }
  }
  void load_states([[maybe_unused]] std::filesystem::path const& path) override {
    if constexpr (checkpoint::OptimizerStateStore<S>) {
      parameters_.materialize();
      checkpoint::load_optimizer_states(*store_, path);
    } else {
      raise<invalid_argument>(std::string("load_states: the store is no OptimizerStateStore"));
    }
  }

 protected:
  void* target(void const* tag) const override { return tag == &base::template type_tag<S> ? store_ : nullptr; }
  S& store_of_rule() const { return *store_; }

 private:
  /// The store's rule, as it is now.
  auto rule() const
    requires(!std::is_void_v<Rule> || requires(S const& store) { store.updater(std::size_t{}); })
  {
    if constexpr (std::is_void_v<Rule>) {
      return store_->updater(0);
    } else {
      return rule_of_group<rescaled_t<Rule>>(*store_, 0);
    }
  }

  std::unique_ptr<S> own_;
  S* store_;
  sample_scale<Rule> scale_;
  parameter_store<S> parameters_;
  chosen_steps<S> steps_;
};

}  // namespace pushpull::detail
