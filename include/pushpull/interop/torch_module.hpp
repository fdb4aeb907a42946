/// @file
/// The parameters of LibTorch modules, one replica per device, in a parameter_store.
/// Opt-in: needs LibTorch 1.13 or newer (pushpull::torch; Debian: libtorch-dev). See docs/interop.md.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <torch/nn/module.h>
#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/interop/torch.hpp>
#include <pushpull/store/parameter_options.hpp>
#include <pushpull/store/parameter_store.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::interop {

/// Named parameters of a LibTorch model, as torch::nn::Module::named_parameters() returns them.
using torch_parameters = torch::OrderedDict<std::string, torch::Tensor>;

/// Replicas of a LibTorch model that train through a parameter_store. Their weights are the store's mirrors, which a step writes;
/// their gradients stay where autograd leaves them. What has several names, such as tied weights, is one parameter, of the first.
/// Buffers, such as running statistics, stay each replica's own.
///
///     auto model = register_module(parameters, replicas);
///     for each replica n: loss_of(replicas[n], batch[n]).backward();
///     model.step();
///     model.zero_grad();
///
/// @tparam P  A parameter_store, borrowed: it must outlive this object.
/// The destructor gives the replicas memory of their own, with the trained values. Move-only; one thread at a time.
template <class P>
class torch_model {
 public:
  using value_type = typename P::value_type;
  using device_type = typename P::device_type;

  /// Registers the parameters of one replica per device of the store, in the order of its devices. All replicas then have the
  /// values of the first. A parameter that requires no gradient is added as such, and steps leave it as it is.
  /// @throws invalid_argument if there are more or fewer replicas than devices, their names or ties differ, or they share a tensor;
  ///         shape_mismatch if their shapes differ; duplicate_key; as torch_view for each parameter. Then nothing has changed.
  torch_model(P& parameters, std::vector<torch_parameters> const& replicas) : parameters_(&parameters) {
    pushpull::detail::expects<invalid_argument>(replicas.size() == parameters.devices().size(), [&] {
      return "register_module: a replica for each of the store's " + std::to_string(parameters.devices().size()) +
             " devices expected, got " + std::to_string(replicas.size());
    });
    collect(replicas);
    expect_new_names();
    for (std::size_t i = 0; i < names_.size(); ++i) {
      at::Tensor const& first = tensors_[0][i];
      parameters.add(names_[i], as_const(i, 0), {.requires_grad = first.requires_grad(), .keeps_gradient = false});
    }
    parameters.materialize();
    at::NoGradGuard const silent;
    std::vector<std::vector<at::Tensor>> mirrors(tensors_.size());
    for (std::size_t n = 0; n < tensors_.size(); ++n) {
      auto& weights = weights_.emplace_back();
      for (auto const& name : names_) {
        mirrors[n].push_back(to_torch(parameters.value(name, n)));
        weights.push_back(mirrors[n].back().data_ptr());
      }
    }
    for (std::size_t n = 0; n < tensors_.size(); ++n)
      for (std::size_t i = 0; i < names_.size(); ++i) tensors_[n][i].set_data(mirrors[n][i]);
  }

  torch_model(torch_model&& other) noexcept
      : parameters_(other.parameters_),
        names_(std::move(other.names_)),
        tensors_(std::move(other.tensors_)),
        weights_(std::move(other.weights_)) {
    other.tensors_.clear();
  }
  torch_model& operator=(torch_model&&) = delete;
  ~torch_model() {
    try {
      release();
    } catch (...) {  // no memory: the tensors that have none of their own stay in the store's
    }
  }

  /// The names of the parameters, in the order of the first replica.
  std::vector<std::string> const& names() const { return names_; }
  /// The parameter's tensor on device number n. @throws std::out_of_range
  at::Tensor const& tensor(std::size_t i, std::size_t n) const { return tensors_.at(n).at(i); }

  /// One step: reduces the gradients of all replicas where they are, updates, and writes the weights of all replicas. Parameters
  /// without a gradient on any replica are left out, as by torch::optim. If some replicas have one, those of the others are set
  /// to zeros. Over ranks every rank must have gradients of the same parameters: it sets those that it lacks to zeros first.
  /// Graphs that were recorded before refuse a backward pass afterwards, as after a step of torch::optim.
  /// @throws as torch_view, for gradients; invalid_argument if the memory of a weight was replaced, by to() or set_data()
  void step() {
    stepped_.clear();
    step_names_.clear();
    gradients_.clear();
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (parameters_->requires_grad(names_[i]) && has_gradient(i)) take(i);
    parameters_->update(step_names_, gradients_);
    for (auto const& replica : tensors_)
      for (std::size_t const i : stepped_) replica[i].unsafeGetTensorImpl()->bump_version();
  }

  /// Forgets the gradients: the next backward pass leaves new ones instead of adding to these.
  void zero_grad() {
    for (auto& replica : tensors_)
      for (at::Tensor& tensor : replica) tensor.mutable_grad().reset();
  }

  /// Gives the replicas memory of their own, with the present values. Afterwards `step` changes nothing.
  void release() {
    at::NoGradGuard const silent;
    for (auto& replica : tensors_)
      for (at::Tensor& tensor : replica) tensor.set_data(tensor.detach().clone());
    tensors_.clear();
    names_.clear();
  }

 private:
  using gradient_view = tensor_view<value_type const, device_type>;

  std::string name_of(std::size_t i, std::size_t n) const {
    return "parameter \"" + names_[i] + "\" of replica " + std::to_string(n);
  }
  gradient_view as_const(std::size_t i, std::size_t n) const {
    auto const name = [&] { return "register_module: " + name_of(i, n); };
    return detail::view_of_torch<value_type const>(name, tensors_[n][i], parameters_->devices()[n]);
  }

  /// Sets names_ and tensors_, without repetitions, and checks every tensor.
  void collect(std::vector<torch_parameters> const& replicas) {
    using pushpull::detail::expects;
    struct first_name {
      std::size_t replica, number;
    };
    std::unordered_map<c10::TensorImpl const*, first_name> known;  // tensors of all replicas
    auto const listed = replicas[0].keys();                        // tied ones included
    std::vector<std::size_t> tied_to;                              // in replica 0, of each name the first of its tensor
    for (std::size_t n = 0; n < replicas.size(); ++n) {
      expects<invalid_argument>(replicas[n].keys() == listed, [&] {
        return "register_module: the parameters of replica " + std::to_string(n) +
               " do not have the names of those of replica 0: replicas of one model expected";
      });
      auto& tensors = tensors_.emplace_back();
      for (std::size_t j = 0; j < listed.size(); ++j) {
        auto const& tensor = replicas[n][j].value();
        first_name const first = known.try_emplace(tensor.unsafeGetTensorImpl(), first_name{n, j}).first->second;
        bool const fresh = first.replica == n && first.number == j;
        if (n == 0) tied_to.push_back(first.number);
        expects<invalid_argument>(first.replica == n && first.number == tied_to[j], [&] {
          return "register_module: parameter \"" + listed[j] + "\" of replica " + std::to_string(n) +
                 (fresh ? " is not tied, that of replica 0 is" : " is a tensor of another name or replica") +
                 ": replicas with tensors of their own, tied alike, expected";
        });
        if (!fresh) continue;
        if (n == 0) names_.push_back(listed[j]);
        tensors.push_back(tensor);
      }
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        auto const shape = as_const(i, n).shape();
        expects<shape_mismatch>(shape == as_const(i, 0).shape(), [&] {
          return "register_module: " + name_of(i, n) + ": shape " + to_string(as_const(i, 0).shape()) +
                 " of replica 0 expected, got " + to_string(shape);
        });
      }
    }
  }
  /// @throws duplicate_key before the first is added
  void expect_new_names() const {
    for (std::string const& name : names_) {
      bool taken = std::ranges::any_of(*parameters_, [&](auto const& info) { return info.name == name; });
      if constexpr (requires { parameters_->store().contains(name); })
        taken = taken || parameters_->store().contains(name);
      pushpull::detail::expects<duplicate_key>(
          !taken, [&] { return "register_module: the store has a parameter \"" + name + "\" already"; });
    }
  }

  bool has_gradient(std::size_t i) const {
    return std::ranges::any_of(tensors_, [i](auto const& replica) { return replica[i].grad().defined(); });
  }
  void take(std::size_t i) {
    auto& views = gradients_.emplace_back();
    for (std::size_t n = 0; n < tensors_.size(); ++n) {
      at::Tensor& weight = tensors_[n][i];
      pushpull::detail::expects<invalid_argument>(weight.data_ptr() == weights_[n][i], [&] {
        return "step: " + name_of(i, n) +
               ": its memory has been replaced, by to(), load() or set_data(): call these before register_module, "
               "and parameter_store::set_value to write weights";
      });
      at::Tensor& gradient = weight.mutable_grad();
      if (!gradient.defined()) gradient = torch::zeros_like(weight, torch::TensorOptions().requires_grad(false));
      views.push_back(detail::view_of_torch<value_type const>([&] { return "step: gradient of " + name_of(i, n); },
                                                              gradient, parameters_->devices()[n]));
    }
    stepped_.push_back(i);
    step_names_.push_back(names_[i]);
  }

  P* parameters_;
  std::vector<std::string> names_;
  std::vector<std::vector<at::Tensor>> tensors_;  // of each replica
  std::vector<std::vector<void*>> weights_;       // their memory
  std::vector<std::size_t> stepped_;              // by the present step
  std::vector<std::string> step_names_;
  std::vector<std::vector<gradient_view>> gradients_;
};

/// Registers the parameters of replicas of a LibTorch model in a parameter_store: see torch_model.
/// @param replicas  A range of std::shared_ptr of a module, or of module holders, one per device of the store.
template <class S, std::ranges::input_range Replicas>
  requires requires(std::ranges::range_reference_t<Replicas> replica) {
    { replica->named_parameters() } -> std::convertible_to<torch_parameters>;
  }
torch_model<parameter_store<S>> register_module(parameter_store<S>& parameters, Replicas&& replicas) {
  std::vector<torch_parameters> named;
  for (auto&& replica : replicas) named.push_back(replica->named_parameters());
  return {parameters, named};
}
/// Same as of modules, but of lists of named parameters, one per device of the store.
template <class S>
torch_model<parameter_store<S>> register_parameters(parameter_store<S>& parameters,
                                                    std::vector<torch_parameters> const& replicas) {
  return {parameters, replicas};
}

}  // namespace pushpull::interop
