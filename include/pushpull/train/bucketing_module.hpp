/// @file
/// A model whose graph depends on the batch: one module per bucket, with the same parameters.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <pushpull/checkpoint/safetensors.hpp>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/module.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// Modules for batches of several kinds, sequence lengths for instance. They share parameters, gradients, auxiliary states,
/// memory of inputs and the optimizer. A batch names its bucket; the executors of a bucket are made for its first batch. Bind the
/// largest bucket first, as the default: later ones then need no memory. A bucket's model may have fewer parameters than the
/// default's: a step after its backward pass leaves the others alone. Of several ranks all then train the same bucket in a step.
/// @tparam F  The type of all buckets' factories. @tparam Slicing  How batches are cut over devices.
template <ExecutorFactory F, SlicingPolicy Slicing = balanced>
class bucketing_module : public training_loop<bucketing_module<F, Slicing>, output_element<typename F::executor_type>> {
 public:
  using module_type = module<F, Slicing>;
  using device_type = typename module_type::device_type;
  using output_type = typename module_type::output_type;
  using params_type = typename module_type::params_type;
  using generator = std::function<F(bucket_key)>;

  /// @param make        make(key) -> the factory of a bucket.
  /// @param default_key  The bucket that bind binds, whose model has all parameters.
  /// @throws as module
  bucketing_module(generator make, bucket_key default_key, std::vector<device_type> devices,
                   module_options options = {})
      : make_(std::move(make)), devices_(std::move(devices)), options_(std::move(options)), default_key_(default_key) {
    add(default_key);
  }

  /// Whether bind was called; for training; whether parameters have values; whether there is an optimizer. Of all buckets.
  bool is_bound() const { return first().is_bound(); }
  bool is_for_training() const { return first().is_for_training(); }
  bool is_initialized() const { return first().is_initialized(); }
  bool has_optimizer() const { return first().has_optimizer(); }
  std::vector<device_type> const& devices() const { return devices_; }
  /// The buckets that were bound.
  std::vector<bucket_key> keys() const {
    std::vector<bucket_key> result;
    for (auto const& [key, m] : buckets_)
      if (m->is_bound()) result.push_back(key);
    return result;
  }
  /// The bucket of the last batch or select.
  bucket_key current_key() const { return current_; }
  /// The module of the current bucket.
  module_type& current() { return *buckets_.find(current_)->second; }
  /// The executors of the current bucket.
  auto& group() { return current().group(); }
  /// Names and shapes of its outputs. @throws not_bound
  auto output_shapes() { return current().output_shapes(); }

  /// Binds the default bucket. Forced, all other buckets are made again when their next batch comes; parameters stay.
  /// @throws as module::bind
  void bind(std::vector<descriptor> data, std::vector<descriptor> labels = {}, module_bind_options options = {}) {
    bool const was_bound = is_bound(), again = was_bound && options.force_rebind;
    first().bind(std::move(data), std::move(labels), options);
    if (again) {
      auto own = buckets_.extract(default_key_);
      buckets_.clear();
      buckets_.insert(std::move(own));
    }
    if (again || current_ == default_key_) current_ = default_key_;
    if (was_bound && !again) return;  // the call was ignored
    bind_options_ = options;
    bind_options_.force_rebind = false;
  }
  /// For the shapes of a source's batches: those of the default bucket. @throws as bind
  template <DataSource S>
  void bind_to(S const& source, module_bind_options options = {}) {
    auto descs = source.descs();
    bind(std::move(descs.data), std::move(descs.labels), options);
  }

  /// The bucket of the calls that follow. A new one is bound to these data and labels, in the mode, with the requests and with the
  /// monitor of the default bucket. @throws not_bound; as module::bind
  void select(bucket_key key, std::vector<descriptor> data, std::vector<descriptor> labels = {}) {
    first().group().expect_bound("select");
    auto found = buckets_.find(key);
    if (found == buckets_.end()) {
      pushpull::detail::expects<not_initialized>(first().is_initialized(),
                                                 [] { return std::string("select: init_params first"); });
      F factory = make_(key);
      module_options own = options_;
      std::vector<std::string> const names = pushpull::detail::texts(factory.param_names());
      std::erase_if(own.fixed, [&](std::string const& name) { return std::ranges::find(names, name) == names.end(); });
      auto next = std::make_unique<module_type>(std::move(factory), devices_, std::move(own));
      auto binding = bind_options_;
      binding.requests = requests_of(names, data);
      next->bind(std::move(data), std::move(labels), binding, first());
      if constexpr (MonitoredExecutor<typename F::executor_type>)
        if (monitor_ != nullptr) next->install_monitor(*monitor_);
      found = buckets_.emplace(key, std::move(next)).first;
    }
    if (!(found->second.get() == &current())) found->second->continue_from(current());
    current_ = key;
  }

  /// Gives all parameters and auxiliary states values: see module::init_params, whose initializer and options these are.
  /// @throws not_bound; the initializer's errors
  void init_params(initializer const& values = initializers::by_suffix_or_uniform(), init_options options = {}) {
    first().init_params(values, options);
  }
  /// From given values by name. @throws also missing_param, extra_param, shape_mismatch
  template <class Args, class Aux>
  void init_params(initializer const& others, Args const& args, Aux const& aux, init_options options = {}) {
    first().init_params(others, args, aux, options);
  }
  /// Replaces values by name, in all buckets and in the store. @throws as module::set_params
  template <class Args, class Aux>
  void set_params(Args const& args, Aux const& aux, param_options options = {}) {
    first().set_params(args, aux, options);
  }
  /// A copy of all trained values and auxiliary states. Waits. @throws not_initialized
  params_type params() const { return first().params(); }
  /// Gives the mean of each auxiliary state to all devices. @throws not_bound, not_initialized
  void spread_aux() { first().spread_aux(); }

  /// The optimizer of all buckets, those that are bound later included: the calls of module, with their arguments and errors.
  template <Updater Rule, pushpull::detail::HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, optimizer_options options = {}, Policies const&... policies) {
    first().init_optimizer(rule, std::move(options), policies...);
    share_optimizer();
  }
  /// Steps in the backward pass, of buckets that compute all gradients.
  template <Updater Rule, pushpull::detail::HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, in_backward_t, optimizer_options options = {}, Policies const&... policies) {
    first().init_optimizer(rule, in_backward, std::move(options), policies...);
    share_optimizer();
  }
  /// Some parameters are tables of rows: see module::init_optimizer. Call `prepare(batch, row_ids)` before each forward pass.
  template <Updater Rule, pushpull::detail::HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, tables const& of_rows, optimizer_options options = {},
                      Policies const&... policies) {
    first().init_optimizer(rule, of_rows, std::move(options), policies...);
    share_optimizer();
  }
  /// The store adds gradients up, and each device applies the rule.
  template <Updater Rule, pushpull::detail::HasPolicyKind... Policies>
  void init_optimizer(Rule const& rule, on_each_device_t, optimizer_options options = {}, Policies const&... policies) {
    first().init_optimizer(rule, on_each_device, std::move(options), policies...);
    share_optimizer();
  }
  /// Over a store with a rule.
  template <Store S>
  void init_optimizer(S& store, optimizer_options options = {}) {
    first().init_optimizer(store, std::move(options));
    share_optimizer();
  }
  /// Over a store that gets a rule.
  template <Store S, Updater Rule>
  void init_optimizer(S& store, Rule const& rule, optimizer_options options = {}) {
    first().init_optimizer(store, rule, std::move(options));
    share_optimizer();
  }
  /// Over a store by its name.
  template <Updater Rule, class... C>
    requires(Communicator<C> && ...)
  void init_optimizer(std::string_view store_name, Rule const& rule, optimizer_options options = {},
                      C const&... communicator) {
    first().init_optimizer(store_name, rule, std::move(options), communicator...);
    share_optimizer();
  }
  /// The optimizer. @throws no_optimizer
  auto& optimizer() { return first().optimizer(); }

  /// Selects the batch's bucket, which is the current one if the batch names none, and runs it.
  /// @throws not_bound, not_initialized; as module::forward
  template <class Data, class Label>
  void forward(batch<Data, Label> const& of, std::optional<mode> run = {}) {
    expect_ready("forward");
    prepare(of);
    if (of.bucket) select(*of.bucket, {}, {});
    current().forward(of, run);
  }
  /// The gradients of the last forward, in the current bucket: see module::backward. @throws as module::backward
  template <class... A>
  void backward(A const&... head_grads) {
    current().backward(head_grads...);
  }
  /// forward, for training, and backward. @throws as these
  template <class Batch>
  void forward_backward(Batch const& of) {
    forward(of, mode::training);
    backward();
  }
  /// One step over the parameters whose gradients buckets have computed since the last one. @throws as module::update
  void update(bool ignore_stale = false) { current().update(ignore_stale); }
  /// The next backward of any bucket overwrites gradients whose request is `add`.
  void zero_grad() { current().zero_grad(); }
  /// The outputs of the last forward, and the gradients of its data: see module.
  auto outputs() { return current().outputs(); }
  auto merged_outputs() { return current().merged_outputs(); }
  auto merged_input_grads() { return current().merged_input_grads(); }
  /// Counts the last forward in a metric: see module::update_metric.
  template <class M, class... A>
  void update_metric(M& metric, A const&... arguments) {
    current().update_metric(metric, arguments...);
  }

  /// Binds the bucket of a batch that comes later; the current bucket stays. @throws not_bound, not_initialized
  template <class Batch>
  void prepare(Batch const& of) {
    first().group().expect_bound("prepare");
    if (!of.bucket || buckets_.contains(*of.bucket)) return;
    auto const back = current_;
    auto descs = std::pair(of.data_descs.empty() ? shaped(first().data_descs(), of.data) : of.data_descs,
                           of.label_descs.empty() ? shaped(first().label_descs(), of.labels) : of.label_descs);
    select(*of.bucket, std::move(descs.first), std::move(descs.second));
    if (current_ != back) {
      buckets_.find(back)->second->continue_from(current());
      current_ = back;
    }
  }

  /// Also pulls the rows of tables that the batch needs: row_ids(batch) -> row ids by name. @throws also as module::prepare
  template <class Batch, std::invocable<Batch const&> RowIds>
  void prepare(Batch const& of, RowIds const& row_ids) {
    prepare(of);
    first().prepare(of, row_ids);
  }

  /// On all buckets, also those that are bound later.
  void install_monitor(monitor& observer) {
    first().group().expect_bound("install_monitor");
    monitor_ = &observer;
    for (auto& [key, m] : buckets_) m->install_monitor(observer);
  }
  /// A pass of the current bucket that a monitor may observe begins and ends: see module.
  void tic() { current().tic(); }
  std::vector<monitor_record> toc() { return current().toc(); }

  /// The optimizer's states and step counts, in a file. @throws no_optimizer, file_error
  void save_states(std::filesystem::path const& path) { first().save_states(path); }
  void load_states(std::filesystem::path const& path) { first().load_states(path); }
  /// As module::save_checkpoint, and `<prefix>.buckets`, a safetensors file with the keys of all buckets.
  /// @throws not_initialized, file_error
  void save_checkpoint(std::string const& prefix, std::int64_t epoch, checkpoint_options options = {}) {
    first().save_checkpoint(prefix, epoch, options);
    auto const write = [&, all = keys()] {
      checkpoint::write_safetensors(prefix + ".buckets", std::vector{checkpoint::entry_of("keys", all)});
    };
    has_optimizer() ? optimizer().on_first_rank(write) : write();
  }
  /// As module::load_checkpoint. Buckets are bound when their batches come. @throws as module::load_checkpoint
  void load_checkpoint(std::string const& prefix, std::int64_t epoch, checkpoint_options options = {}) {
    first().load_checkpoint(prefix, epoch, options);
  }

  /// @throws not_bound, not_initialized
  void expect_ready(char const* call) const {
    first().group().expect_bound(call);
    pushpull::detail::expects<not_initialized>(is_initialized(),
                                               [&] { return std::string(call) + ": init_params first"; });
  }
  /// @throws no_optimizer
  void expect_optimizer(char const* call) const {
    pushpull::detail::expects<no_optimizer>(has_optimizer(),
                                            [&] { return std::string(call) + ": init_optimizer first"; });
  }

 private:
  void share_optimizer() {
    for (auto& [key, m] : buckets_)
      if (key != default_key_) m->share_optimizer(first());
  }
  module_type& first() const { return *buckets_.find(default_key_)->second; }
  void add(bucket_key key) {
    current_ = key;
    buckets_.emplace(key, std::make_unique<module_type>(make_(key), devices_, options_));
  }
  /// The requests of the default bucket, for the parameters and the data that another bucket has.
  grad_requests requests_of(std::vector<std::string> const& names, std::vector<descriptor> const& data) const {
    if (std::holds_alternative<grad_request>(bind_options_.requests)) return bind_options_.requests;
    auto const& all = first().group().param_names();
    input_descriptors const inputs{first().data_descs(), first().label_descs()};
    auto const of_default = resolve(bind_options_.requests, inputs, all, options_.fixed, bind_options_.for_training,
                                    bind_options_.inputs_need_grad);
    std::map<std::string, grad_request, std::less<>> result;
    for (std::size_t i = 0; i < all.size(); ++i)
      if (std::ranges::find(names, all[i]) != names.end()) result.emplace(all[i], of_default.params[i]);
    for (std::size_t i = 0; i < inputs.data.size(); ++i)
      if (std::ranges::find(data, inputs.data[i].name, &descriptor::name) != data.end())
        result.emplace(inputs.data[i].name, of_default.inputs[i]);
    return result;
  }
  template <class Views>
  static std::vector<descriptor> shaped(std::vector<descriptor> descs, Views const& arrays) {
    for (std::size_t i = 0; i < descs.size() && i < arrays.size(); ++i) descs[i].shape = arrays[i].shape();
    return descs;
  }

  generator make_;
  std::vector<device_type> devices_;
  module_options options_;
  bucket_key default_key_, current_ = 0;
  std::map<bucket_key, std::unique_ptr<module_type>> buckets_;
  module_bind_options bind_options_;
  monitor* monitor_ = nullptr;
};

/// The keys that save_checkpoint wrote. @throws file_error
inline std::vector<bucket_key> read_bucket_keys(std::string const& prefix) {
  checkpoint::safetensors_file const file(prefix + ".buckets");
  auto const& entry = file.find("keys");
  std::vector<bucket_key> keys(entry.shape.size());
  checkpoint::copy(entry, keys);
  return keys;
}

}  // namespace pushpull::train
