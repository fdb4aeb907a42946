/// @file
/// The part of a module that steps its parameters and saves them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/create.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/train/module/checkpoint_files.hpp>
#include <pushpull/train/module/initialized_module.hpp>
#include <pushpull/train/optimizer/local_optimizer.hpp>
#include <pushpull/train/optimizer/store_optimizer.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

template <class S, class Rule>
class table_optimizer;  // only programs with tables of rows pay for it: table_optimizer.hpp

/// The optimizer, the steps and the checkpoints of a module.
template <train::ExecutorFactory F, train::SlicingPolicy Slicing>
class optimized_module : public initialized_module<F, Slicing> {
  using base = initialized_module<F, Slicing>;

 public:
  using base::base;
  using typename base::device_type;
  using typename base::master_type;
  using typename base::optimizer_type;
  using typename base::value_type;

  /// Steps by a rule in a store of the module's own, over all of its devices, with the policies of a kv_store: element::master,
  /// a communicator, and so on. Unless the rule has a stage `rescale`, gradients become means over the samples of a step.
  /// @throws not_bound, not_initialized, not_training; the errors of kv_store; bad_option if `update_on_store` is false. If the
  /// module has an optimizer it does nothing but a warning, unless forced: states then start again. Gradients that were computed
  /// before belong to no step.
  template <Updater Rule, HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, train::optimizer_options options = {}, Policies const&... policies) {
    expect_own_store(options);
    if (!expect_no_optimizer(options)) return;
    install(own_store<Rule>(rule, options, policies...), options);
  }
  /// Steps on each device, with gradients that a store of the module's own adds up over devices and ranks. Masters and states
  /// exist once per device, and a step has the halves `reduce_grads` and `apply`. @throws as above, but for bad_option
  template <Updater Rule, HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, train::on_each_device_t, train::optimizer_options options = {},
                      Policies const&... policies) {
    if (!expect_no_optimizer(options)) return;
    using store_type = kv_store<value_type, device_type, Policies...>;
    install_local(std::make_unique<store_type>(this->devices(), policies...), rule, options);
  }
  /// Steps in the backward pass. The executor is a HookedExecutor. Does not compile with a rule that sums over all parameters,
  /// such as clip_global_norm: its step begins when the last gradient is complete. @throws as above
  template <Updater Rule, HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, train::in_backward_t, train::optimizer_options options = {},
                      Policies const&... policies) {
    static_assert(train::HookedExecutor<typename F::executor_type>,
                  "init_optimizer: in_backward needs a HookedExecutor: on_grad_ready is missing");
    expect_own_store(options);
    if (!expect_no_optimizer(options)) return;
    auto next = own_store<Rule>(rule, options, policies...);
    next->parameters().update_in_backward();
    options.overlap = train::overlap::on;
    install(std::move(next), options);
  }
  /// Steps in a store of the module's own, in which some parameters are tables of rows: `prepare(batch, row_ids)` before each
  /// forward pass pulls the rows that it needs, and the step moves those rows alone. Backward adds to the rows of the table's
  /// gradient, which `prepare` has zeroed, and touches no others. Needs `pushpull/train/optimizer/table_optimizer.hpp`.
  /// @throws also bad_option if a name is none of the model's, or a table has multipliers
  template <Updater Rule, HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, train::tables const& tables, train::optimizer_options options = {},
                      Policies const&... policies) {
    expect_own_store(options);
    if (!expect_no_optimizer(options)) return;
    auto const& names = this->group_.param_names();
    for (std::string const& name : tables.names)
      expects<bad_option>(std::find(names.begin(), names.end(), name) != names.end(), [&] {
        return "init_optimizer: the model has no parameter \"" + name + "\" to be a table of rows";
      });
    using store_type = kv_store<value_type, device_type, rescaled_t<Rule>, Policies...>;
    auto store = std::make_unique<store_type>(this->devices(), rescaled(rule), policies...);
    install(std::make_shared<table_optimizer<store_type, Rule>>(std::move(store), sample_scale<Rule>(options.rescale),
                                                                tables.names),
            options);
  }
  /// Steps by the rule of a store, which outlives the module, on the module's devices. The rule is not changed: it gets sums over
  /// samples and devices. @throws also unknown_device; duplicate_key if the store has a parameter's name
  template <Store S>
    requires requires(S& store) { parameter_store<S>(store); }
  void init_optimizer(S& store, train::optimizer_options options = {}) {
    if (!expect_no_optimizer(options)) return;
    expect_devices(store);
    if constexpr (requires {
                    { store.has_updater() } -> std::same_as<bool>;
                  })
      expects<no_optimizer>(store.has_updater(), [] {
        return std::string("init_optimizer: the store has no rule: give one, init_optimizer(store, rule)");
      });
    install(std::make_shared<store_optimizer<S, void>>(store, sample_scale<void>()), options);
  }
  /// Steps by a rule in a store without one. An any_store gets the rule if `update_on_store`; a store whose type says that it
  /// has no rule adds gradients up, and each device applies the rule.
  template <Store S, Updater Rule>
  void init_optimizer(S& store, Rule const& rule, train::optimizer_options options = {}) {
    if (!expect_no_optimizer(options)) return;
    expect_devices(store);
    if constexpr (requires {
                    store.set_optimizer(rescaled(rule));
                    store.groups();
                  }) {
      if (options.update_on_store) {
        expects<invalid_argument>(store.is_replaceable(), [] {
          return std::string(
              "init_optimizer: any_store was made of a user's store, which updates as it does: give that a "
              "rule, then init_optimizer(store)");
        });
        store.set_optimizer(rescaled(rule));
        return install(std::make_shared<store_optimizer<S, Rule>>(store, sample_scale<Rule>(options.rescale)), options);
      }
    }
    install_local(store, rule, options);
  }
  /// Steps by a rule in a store that has one of MXNet's names: see `create`. Of one process "local" and "device" need no such
  /// store on one device, and "local" adds gradients up only if a parameter has more than 2^24 elements.
  /// @param communicator  None, or the Communicator of "dist_sync" and "dist_device_sync".
  /// @throws also those of `create`
  template <Updater Rule, class... C>
    requires(Communicator<C> && ...)
  void init_optimizer(std::string_view store_name, Rule const& rule, train::optimizer_options options = {},
                      C const&... communicator) {
    if (!expect_no_optimizer(options)) return;
    std::string const name = lower_case(store_name);
    bool const distributed = name.find("dist") != name.npos;
    if (!distributed && sizeof...(C) == 0 && this->devices().size() == 1 && options.update_on_store)
      return init_optimizer(rule, options);
    using store_type = created_store_t<device_type, compressors<>, value_type>;
    auto store = std::make_unique<store_type>(create<value_type>(store_name, this->devices(), communicator...));
    bool on_store = options.update_on_store;
    for (std::size_t i = 0; i < this->group_.param_names().size(); ++i)
      on_store = on_store && (name != "local" || this->group_.param(i, 0).size() <= std::size_t{1} << 24U);
    if (!on_store) return install_local(std::move(store), rule, options);
    store->set_optimizer(rescaled(rule));
    install(std::make_shared<store_optimizer<store_type, Rule>>(std::move(store), sample_scale<Rule>(options.rescale)),
            options);
  }
  /// As initialized_module's, which says more. The optimizer goes on with the executors that are made.
  void bind(std::vector<train::descriptor> data, std::vector<train::descriptor> labels = {},
            train::module_bind_options options = {}) {
    base::bind(std::move(data), std::move(labels), std::move(options));
    if (this->optimizer_ != nullptr) connect();
  }
  /// Binds with the parameters, the memory and the optimizer, if there is one, of another module. @throws as bind
  void bind(std::vector<train::descriptor> data, std::vector<train::descriptor> labels,
            train::module_bind_options const& options, optimized_module& shared) {
    bool const ignored = this->is_bound() && !options.force_rebind;
    base::bind(std::move(data), std::move(labels), options, shared);
    if (!ignored && shared.optimizer_ != nullptr) share_optimizer(shared);
  }
  /// Uses the optimizer of another module, which shares the parameters. @throws no_optimizer if it has none
  void share_optimizer(optimized_module& other) {
    expects<no_optimizer>(other.optimizer_ != nullptr,
                          [] { return std::string("share_optimizer: the other module has no optimizer"); });
    this->optimizer_ = other.optimizer_;
    this->forget_gradients();
    this->bound_samples_ = other.bound_samples_;
    this->rescale_ = other.rescale_;
    may_overlap_ = other.may_overlap_;
    connect();
  }
  /// The optimizer: its store, for groups of parameters and the like. @throws no_optimizer
  optimizer_type& optimizer() {
    expect_optimizer("optimizer");
    return *this->optimizer_;
  }

  /// One step over all parameters with the gradients of the last backward; after one of a bucket with fewer parameters, or with
  /// fewer requests than the optimizer was made for, over those: the others keep values, states and step counts. @throws not_bound, not_initialized, no_optimizer,
  /// not_training; stale_gradients if there was no backward since the last step, unless `ignore_stale`, or after reduce_grads
  void update(bool ignore_stale = false) {
    begin_step("update", ignore_stale);
    bool const is_made = this->stepped_ || (this->began_ && this->waits_);
    if (!is_made) this->optimizer_->update();
    end_step();
  }
  /// The first half of a step, where updates do not run on the store: gradients become sums over devices and ranks.
  /// @throws as update; bad_option where the store steps
  void reduce_grads() {
    expect_halves("reduce_grads");
    begin_step("reduce_grads", false);
    this->reduced_ = this->optimizer_->reduce();
  }
  /// The second half of a step: the rule on each device. @throws as reduce_grads; stale_gradients unless reduce_grads came before
  void apply() {
    this->expect_ready("apply");
    expect_halves("apply");
    expect_training("apply");
    expects<stale_gradients>(this->reduced_, [] { return std::string("apply: reduce_grads first"); });
    this->optimizer_->apply();
    end_step();
  }

  /// The optimizer's states and step counts. @throws no_optimizer, file_error
  void save_states(std::filesystem::path const& path) {
    expect_optimizer("save_states");
    this->optimizer_->save_states(path);
  }
  /// Of a file of save_states, of any number of devices. @throws no_optimizer, file_error
  void load_states(std::filesystem::path const& path) {
    expect_optimizer("load_states");
    this->optimizer_->load_states(path);
  }

  /// Writes `<prefix>-<epoch>.params`, a safetensors file with the tensors "arg:<name>" and "aux:<name>", and
  /// `<prefix>-<epoch>.states` if the module has an optimizer. Epochs have four digits or more.
  /// Of several ranks all call it, rank 0 writes, and all return or throw; the parameters come last. @throws not_initialized, file_error
  void save_checkpoint(std::string const& prefix, std::int64_t epoch, train::checkpoint_options options = {}) {
    auto const values = this->params();
    auto const path = checkpoint_file(prefix, epoch, "params");
    if (this->optimizer_ == nullptr) return write_params(path, values);
    if (options.states) save_states(checkpoint_file(prefix, epoch, "states"));
    this->optimizer_->on_first_rank([&] { write_params(path, values); });
  }
  /// Takes parameters and auxiliary states of a checkpoint, and the states of the optimizer: at once, or those that the module
  /// cannot take yet in `bind` and `init_optimizer`, which take those of the last call. Any number of devices may have saved it.
  /// Names that it lacks, if the options allow that, keep their values; in a module without values they get those of init_params.
  /// @throws file_error; missing_param and extra_param, which list all names, unless the options allow them; shape_mismatch
  void load_checkpoint(std::string const& prefix, std::int64_t epoch, train::checkpoint_options options = {}) {
    auto values = read_params<master_type>(checkpoint_file(prefix, epoch, "params"));
    train::param_options const allowed{options.allow_missing, options.allow_extra, true};
    std::filesystem::path const states = checkpoint_file(prefix, epoch, "states");
    this->compare_names("load_checkpoint", values.args, values.aux, allowed);
    if (this->is_bound()) {
      this->expect_names("load_checkpoint", values.args, values.aux, allowed);
      if (options.states && this->optimizer_ != nullptr) load_states(states);
      this->is_initialized() ? this->write(values) : this->write_first(std::move(values));
    } else {
      this->preload(std::move(values));
    }
    preloaded_states_.reset();
    if (options.states && this->optimizer_ == nullptr) preloaded_states_ = states;
  }

  /// @throws no_optimizer
  void expect_optimizer(char const* call) const {
    expects<no_optimizer>(this->optimizer_ != nullptr, [&] { return std::string(call) + ": init_optimizer first"; });
  }

 protected:
  ~optimized_module() = default;

 private:
  static void expect_own_store(train::optimizer_options const& options) {
    expects<bad_option>(options.update_on_store, [] {
      return std::string(
          "init_optimizer: a store of its own steps: for steps on each device pass train::on_each_device");
    });
  }
  void expect_halves(char const* call) const {
    expect_optimizer(call);
    expects<bad_option>(!this->optimizer_->updates_on_store(), [&] {
      return std::string(call) + ": the store adds and steps at once: init_optimizer(rule, train::on_each_device)";
    });
  }
  void expect_training(char const* call) const {
    expects<not_training>(this->is_for_training(),
                          [&] { return std::string(call) + ": the module was bound for inference"; });
  }
  bool expect_no_optimizer(train::optimizer_options const& options) {
    this->expect_ready("init_optimizer");
    expect_training("init_optimizer");
    if (this->optimizer_ == nullptr || options.force) return true;
    this->options_.warn("init_optimizer: the module has an optimizer, the call is ignored: set force");
    return false;
  }
  template <class S>
  void expect_devices(S const& store) const {
    expects<unknown_device>(store.devices() == this->devices(), [] {
      return std::string("init_optimizer: a store on the module's devices, in their order, expected");
    });
  }
  /// The rule in a new store on the module's devices.
  template <class Rule, class... Policies>
  auto own_store(Rule const& rule, train::optimizer_options const& options, Policies const&... policies) {
    using store_type = kv_store<value_type, device_type, rescaled_t<Rule>, Policies...>;
    return std::make_shared<store_optimizer<store_type, Rule>>(
        std::make_unique<store_type>(this->devices(), rescaled(rule), policies...),
        sample_scale<Rule>(options.rescale));
  }
  template <class S, class Rule>
  void install_local(std::unique_ptr<S> store, Rule const& rule, train::optimizer_options const& options) {
    install(std::make_shared<local_optimizer<S, Rule>>(std::move(store), rescaled(rule),
                                                       sample_scale<Rule>(options.rescale)),
            options);
  }
  template <class S, class Rule>
  void install_local(S& store, Rule const& rule, train::optimizer_options const& options) {
    install(std::make_shared<local_optimizer<S, Rule>>(store, rescaled(rule), sample_scale<Rule>(options.rescale)),
            options);
  }

  /// Parameters are registered first to last, which is the order of a forward pass, so the first have the highest priority.
  template <class O>
  void install(std::shared_ptr<O> next, train::optimizer_options const& options) {
    auto const values = this->params();
    auto& group = this->group_;
    for (std::size_t i = 0; i < group.param_names().size(); ++i) {
      std::string const& name = group.param_names()[i];
      parameter_options registered{.requires_grad = group.has_gradient(i)};
      if (options.multipliers)
        std::tie(registered.learning_rate_multiplier, registered.weight_decay_multiplier) = options.multipliers(name);
      next->add(name, values.args.find(name)->second.view(), registered);
    }
    next->begin();
    if (preloaded_states_) next->load_states(*preloaded_states_);
    group.attach(*next);
    this->forget_gradients();  // which were in other memory
    group.end_step();
    group.zero_grad();
    preloaded_states_.reset();
    auto const old = std::exchange(this->optimizer_, std::move(next));
    this->rescale_ = options.rescale;
    this->bound_samples_ = static_cast<double>(group.batch_size().value_or(1)) * this->optimizer_->num_workers();
    may_overlap_ = train::HookedExecutor<typename F::executor_type> && this->optimizer_->steps_in_parts() &&
                   (options.overlap == train::overlap::on ||
                    (options.overlap == train::overlap::automatic && this->optimizer_->num_workers() > 1));
    connect();
  }

  void begin_step(char const* call, bool ignore_stale) {
    this->expect_ready(call);
    expect_optimizer(call);
    expect_training(call);
    expects<stale_gradients>(
        !this->reduced_, [&] { return std::string(call) + ": the gradients are summed over devices already: apply"; });
    expects<stale_gradients>(this->has_gradients_ || ignore_stale,
                             [&] { return std::string(call) + ": no backward since the last step"; });
    if (!this->began_ && !this->stepped_) this->scale_step();
    choose_parameters();
  }
  /// The step is of the parameters whose gradients were computed since the last one. Of all, if none was.
  void choose_parameters() {
    static std::vector<char> const all;
    this->optimizer_->choose(this->group_.shared_names(), this->group_.computed_some() ? this->group_.fresh() : all);
  }
  void end_step() {
    this->has_gradients_ = this->began_ = this->stepped_ = this->reduced_ = false;
    this->group_.end_step();
  }
  /// Lets the executors begin steps, and wait for them. A model that does not compute all gradients cannot: the step would never be
  /// complete. Neither can one that adds gradients up: a step takes several backward passes.
  void connect() {
    this->overlaps_ = may_overlap_ && this->group_.computes_all();
    for (std::size_t i = 0; i < this->group_.param_names().size(); ++i)
      this->overlaps_ = this->overlaps_ && this->group_.request(i) != train::grad_request::add;
    this->waits_ = false;
    if constexpr (train::HookedExecutor<typename F::executor_type>) {
      auto& group = this->group_;
      if (!this->overlaps_) {
        group.on_grad_ready({});
        group.on_param_needed({});
        return;
      }
      group.on_grad_ready([this](std::size_t i) {
        if (this->group_.request(i) != train::grad_request::none)
          this->optimizer_->ready(this->group_.param_names()[i]);
      });
      this->waits_ =
          group.on_param_needed([this](std::size_t i) { this->optimizer_->wait(this->group_.param_names()[i]); });
    }
  }

  std::optional<std::filesystem::path> preloaded_states_;
  bool may_overlap_ = false;  // as the optimizer's options have it
};

}  // namespace pushpull::detail
