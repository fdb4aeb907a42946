/// @file
/// A store that adds gradients up, and the rule on each device by itself, as the optimizer of a model.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/checkpoint/optimizer_states.hpp>
#include <pushpull/config.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/parameter_store.hpp>
#include <pushpull/store/wait_at_exit.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/optimizer/model_optimizer.hpp>
#include <pushpull/train/optimizer/rescaled.hpp>
#include <pushpull/train/optimizer/store_optimizer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Every device has all masters and all states, which are the same on all. Over ranks the store knows the parameters without a
/// gradient too: each rank takes the value of rank 0 from it. A step costs a pass for the sums and one for the
/// rule, where store_optimizer has one pass for both.
/// @tparam S  The store, without a rule. @tparam Rule  The rule.
template <class S, class Rule>
class local_optimizer final : public train::model_optimizer<typename S::value_type, typename S::device_type> {
  using T = typename S::value_type;
  using D = typename S::device_type;
  using base = train::model_optimizer<T, D>;
  using local_store = kv_store<T, D, rescaled_t<Rule>>;

 public:
  using typename base::master_type;
  using typename base::view_type;

  local_optimizer(S& store, rescaled_t<Rule> const& rule, sample_scale<Rule> scale)
      : store_(&store), scale_(std::move(scale)) {
    make(rule);
  }
  local_optimizer(std::unique_ptr<S> store, rescaled_t<Rule> const& rule, sample_scale<Rule> scale)
      : own_(std::move(store)), store_(own_.get()), scale_(std::move(scale)) {
    make(rule);
  }

  void add(std::string const& name, tensor_view<master_type const> const& value,
           parameter_options const& options) override {
    bool const has_ranks = num_workers() > 1;
    if (options.requires_grad || has_ranks) {
      tensor<T> converted(cpu_device<>(), value.shape());
      auto const view = converted.view();
      copy(value, view);
      store_->init(name, tensor_view<T const>(view));
      store_->wait();
    }
    if (options.requires_grad) trained_.push_back(name);
    auto const add_locally = [&](tensor_view<master_type const> const& initial) {
      for (auto& device : local_) device->parameters.add(name, initial, options);
    };
    if (!has_ranks) return add_locally(value);
    tensor<master_type> const agreed = stored(name, value.shape());
    add_locally(agreed.view());
  }
  void begin() override {
    for (auto& device : local_) {
      device->parameters.materialize();
      if (has_multipliers(device->parameters)) add_multiplier_groups(device->parameters, device->store.updater(0));
    }
    for (std::string const& name : trained_) {
      auto& list = gradients_.emplace_back();
      for (auto& device : local_) list.push_back(device->parameters.grad(name, std::size_t{0}));
    }
  }

  view_type value(std::string const& name, std::size_t n) override {
    return local_[n]->parameters.value(name, std::size_t{0});
  }
  view_type grad(std::string const& name, std::size_t n) override {
    return local_[n]->parameters.grad(name, std::size_t{0});
  }
  void choose(std::vector<std::string> const& names, std::vector<char> const& chosen) override {
    left_out_.assign(trained_.size(), 0);
    for (std::size_t i = 0; i < chosen.size(); ++i)
      if (chosen[i] == 0)
        for (std::size_t k = 0; k < trained_.size(); ++k)
          if (trained_[k] == names[i]) left_out_[k] = 1;
    for (auto& device : local_) device->steps.choose(names, chosen);
  }
  void update() override {
    reduce();
    apply();
  }
  bool reduce() override {
    wait_at_exit const finished(*store_);
    for (std::size_t i = 0; i < trained_.size(); ++i)
      if (left_out_.empty() || left_out_[i] == 0)
        store_->pushpull(trained_[i], gradients_[i], gradients_[i], priority{-static_cast<int>(i)});
    store_->wait();
    return true;
  }
  void apply() override {
    for (auto& device : local_) device->steps.update(device->parameters);
  }
  bool steps_in_parts() const override { return false; }
  void ready(std::string const&) override {}
  void abandon_step() override {}
  void wait(std::string const&) override {}
  void wait() override {
    for (auto& device : local_) device->store.wait();
  }
  void assign(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values,
              rule_states states) override {
    if (num_workers() == 1) return assign_locally(names, values, states);
    assign_stored(names, values);
    std::vector<tensor<master_type>> agreed;
    std::vector<tensor_view<master_type const>> views;
    for (std::size_t i = 0; i < names.size(); ++i)
      views.push_back(std::as_const(agreed.emplace_back(stored(names[i], values[i].shape()))).view());
    assign_locally(names, views, states);
  }
  void read(std::string const& name, tensor_view<master_type> const& out) override {
    auto& first = local_.front()->parameters;
    read_trained(first, name, first.requires_grad(name), out);
  }
  void set_samples(double samples) override {
    scales_.resize(local_.size(), scale_);
    for (std::size_t n = 0; n < local_.size(); ++n) scales_[n].set_samples(samples, local_[n]->store);
  }
  std::optional<double> learning_rate() const override { return learning_rate_of(local_.front()->store.updater(0)); }
  int num_workers() const override {
    if constexpr (requires { store_->num_workers(); }) return store_->num_workers();
    return 1;
  }
  int rank() const override {
    if constexpr (requires { store_->rank(); }) return store_->rank();
    return 0;
  }
  void on_first_rank(std::function<void()> const& f) override { call_on_first_rank(*store_, rank(), f); }
  bool updates_on_store() const override { return false; }
  void save_states(std::filesystem::path const& path) override {
    on_first_rank([&] { checkpoint::save_optimizer_states(local_.front()->store, path); });
  }
  void load_states(std::filesystem::path const& path) override {
    for (auto& device : local_) checkpoint::load_optimizer_states(device->store, path);
  }

 protected:
  void* target(void const* tag) const override { return tag == &base::template type_tag<S> ? store_ : nullptr; }

 private:
  struct local {
    local(D const& device, rescaled_t<Rule> const& rule) : store({device}, rule), parameters(store) {}
    local_store store;
    parameter_store<local_store> parameters;
    chosen_steps<local_store> steps{};
  };

  void make(rescaled_t<Rule> const& rule) {
    for (D const& device : store_->devices()) local_.push_back(std::make_unique<local>(device, rule));
  }
  void assign_locally(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values,
                      rule_states states) {
    for (auto& device : local_) assign_all(device->parameters, names, values, states);
  }
  /// The store's value of a parameter: over ranks that of rank 0, by `init` or `assign_stored`.
  tensor<master_type> stored(std::string const& name, shape const& extents) {
    tensor<master_type> result(cpu_device<>(), extents);
    read_key(*store_, name, result.view());
    return result;
  }
  /// Values of the store, which counts those of rank 0. A store that cannot assign keeps its values.
  void assign_stored(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values) {
    std::vector<tensor<T>> converted;
    for (auto const& value : values) {
      auto const view = converted.emplace_back(cpu_device<>(), value.shape()).view();
      copy(value, view);
    }
    if constexpr (requires { store_->assign(names, converted); }) {
      store_->assign(names, converted);
    } else if constexpr (requires { store_->assign(names[0], converted[0]); }) {
      for (std::size_t i = 0; i < names.size(); ++i) store_->assign(names[i], converted[i]);
    }
  }

  std::unique_ptr<S> own_;
  S* store_;
  sample_scale<Rule> scale_;
  std::vector<sample_scale<Rule>> scales_;     // of each device's store
  std::vector<std::unique_ptr<local>> local_;  // of each device
  std::vector<std::string> trained_;
  std::vector<char> left_out_;                     // of trained_, by the present choice
  std::vector<std::vector<view_type>> gradients_;  // [trained][device]
};

}  // namespace pushpull::detail
