/// @file
/// A store with a rule, of any types, that steps a model's parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/rule_states.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::train {

/// The parameters of a model in a store: mirrors and gradients on every device, and the step. Types of rules and stores end
/// here: one virtual call per step, and per parameter where a step is made in parts. Modules share it.
/// @tparam T  The element type of mirrors and gradients.
template <ElementType T, Device D>
class model_optimizer {
 public:
  using view_type = tensor_view<T, D>;
  /// Trained values travel in this type: it holds all values of the masters.
  using master_type = accumulation_t<T>;

  model_optimizer() = default;
  model_optimizer(model_optimizer const&) = delete;
  model_optimizer& operator=(model_optimizer const&) = delete;
  virtual ~model_optimizer() = default;

  /// Registers a parameter. Multipliers of its learning rate and its weight decay other than 1 make groups in `begin`.
  /// @throws duplicate_key
  virtual void add(std::string const& name, tensor_view<master_type const> const& value,
                   parameter_options const& options) = 0;
  /// All parameters are there.
  virtual void begin() = 0;
  /// The mirror of a parameter on device number n, and its gradient, which executors write. @throws unknown_key, unknown_device
  virtual view_type value(std::string const& name, std::size_t n) = 0;
  virtual view_type grad(std::string const& name, std::size_t n) = 0;
  /// The next step, made at once or in halves, is of the parameters names[i] for which chosen[i] is not 0: the others keep values,
  /// states and step counts. Of all parameters if `chosen` is empty. Of ranks, all make the same choice.
  virtual void choose(std::vector<std::string> const& names, std::vector<char> const& chosen) = 0;
  /// One step over all parameters that require a gradient, or over the chosen ones.
  virtual void update() = 0;
  /// Adds the gradients up over devices and ranks, and leaves the sums in the gradients. @returns false if steps do that themselves
  virtual bool reduce() = 0;
  /// The step after `reduce`.
  virtual void apply() = 0;
  /// Whether steps may begin during the backward pass.
  virtual bool steps_in_parts() const = 0;
  /// The gradients of a parameter are complete on all devices: see parameter_store::ready. From any thread.
  virtual void ready(std::string const& name) = 0;
  /// The backward pass that called `ready` failed: see parameter_store::abandon_step.
  virtual void abandon_step() = 0;
  /// Returns when the step of a parameter, if any is under way, is done. From any thread.
  virtual void wait(std::string const& name) = 0;
  /// All work is done when it returns.
  virtual void wait() = 0;
  /// New values in every place that holds the parameters: of all, or of none if it throws.
  virtual void assign(std::vector<std::string> const& names, std::vector<tensor_view<master_type const>> const& values,
                      rule_states states) = 0;
  /// Copies the trained value, of the store's masters. Waits. @throws unknown_key, shape_mismatch
  virtual void read(std::string const& name, tensor_view<master_type> const& out) = 0;
  /// Gradients are sums over so many samples, of all ranks: the rules of all groups take their mean, if they were told to.
  virtual void set_samples(double samples) = 0;
  /// Of the last step, if the rule has one that no schedule sets.
  virtual std::optional<double> learning_rate() const = 0;
  /// The number of ranks that train together, and this one's; 1 and 0 of a store without ranks.
  virtual int num_workers() const = 0;
  virtual int rank() const = 0;
  /// Calls f on rank 0. All ranks make the call; it returns when f has, or throws on all of them.
  virtual void on_first_rank(std::function<void()> const& f) = 0;
  /// Whether the store applies the rule, or only adds gradients up.
  virtual bool updates_on_store() const = 0;
  /// States and step counts, by parameter names: a file of any number of devices. @throws file_error; invalid_argument if the store
  /// cannot save states
  virtual void save_states(std::filesystem::path const& path) = 0;
  virtual void load_states(std::filesystem::path const& path) = 0;

  /// The next batch needs these rows of a table: its mirrors on all devices get them, and its gradients are zero there.
  /// @returns false if the parameter is no table: all of its rows are in its mirrors
  virtual bool prepare(std::string const& /*name*/, std::vector<std::int64_t> const& /*row_ids*/) { return false; }

  /// Whether some parameters are tables, whose rows move only if `prepare` has named them.
  virtual bool has_tables() const { return false; }

  /// The store, if its type is S; else null.
  template <class S>
  S* store() const {
    return static_cast<S*>(target(&type_tag<S>));
  }

 protected:
  template <class S>
  static inline char type_tag = 0;
  virtual void* target(void const* tag) const = 0;
};

}  // namespace pushpull::train
