/// @file
/// The devices of a group and the memory of its replicas.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/copy.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>
#include <pushpull/train/buffer_pool.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/group/parameter_arrays.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace train {

/// Tensors in host memory by name.
template <ElementType T>
using tensor_map = std::map<std::string, tensor<T>, std::less<>>;

}  // namespace train

namespace detail {

/// A list of names as strings.
template <class R>
std::vector<std::string> texts(R&& names) {
  std::vector<std::string> result;
  for (auto&& name : names) result.emplace_back(name);
  return result;
}

/// `"a", "b"`: names for a message, the first few of many.
inline std::string listed(std::vector<std::string> const& names) {
  constexpr std::size_t most = 8;
  std::string text;
  for (std::size_t i = 0; i < names.size() && i < most; ++i) text += (i > 0 ? ", \"" : "\"") + names[i] + "\"";
  return names.size() > most ? text + " and " + std::to_string(names.size() - most) + " more" : text;
}

/// The part of a group that knows names and memory.
template <train::ExecutorFactory F>
class group_memory {
 public:
  using factory_type = F;
  using executor_type = typename F::executor_type;
  using device_type = typename executor_type::device_type;
  using value_type = train::param_element<executor_type>;
  using view_type = tensor_view<value_type, device_type>;

  /// @throws bad_option if there is no device; duplicate_device
  group_memory(F factory, std::vector<device_type> devices)
      : factory_(std::move(factory)),
        devices_(std::move(devices)),
        param_names_(texts(factory_.param_names())),
        aux_names_(texts(factory_.aux_names())) {
    expects<bad_option>(!devices_.empty(), [] { return std::string("executor_group: a device expected"); });
    for (std::size_t k = 0; k < devices_.size(); ++k)
      for (std::size_t j = 0; j < k; ++j)
        expects<duplicate_device>(!(devices_[j] == devices_[k]), [&] {
          return "executor_group: device " + std::string(devices_[k].name()) + " is listed twice";
        });
  }
  group_memory(group_memory const&) = delete;
  group_memory& operator=(group_memory const&) = delete;

  F& factory() { return factory_; }
  F const& factory() const { return factory_; }
  std::vector<device_type> const& devices() const { return devices_; }
  std::vector<std::string> const& param_names() const { return param_names_; }
  std::vector<std::string> const& aux_names() const { return aux_names_; }

  /// Parameter i, its gradient (empty if there is none), and auxiliary state i on device k.
  /// @throws not_bound
  view_type param(std::size_t i, std::size_t k) const { return arrays("param").params.views[param_index_[i]][k]; }
  view_type grad(std::size_t i, std::size_t k) const {
    auto const& views = arrays("grad").grads.views[param_index_[i]];
    return views.empty() ? view_type(nullptr, shape{0}, devices_[k]) : views[k];
  }
  /// Whether parameter i has gradients, of whichever group that shares memory. @throws not_bound
  bool has_gradient(std::size_t i) const { return !arrays("has_gradient").grads.views[param_index_[i]].empty(); }
  view_type aux(std::size_t i, std::size_t k) const { return arrays("aux").aux.views[aux_index_[i]][k]; }

  /// Copies tensors of any element type, by name, to all devices. Parameters without a tensor keep what they hold. Over an
  /// attached store this changes mirrors only: see module::set_params.
  /// @throws not_bound; extra_param, which lists all names that the model does not have, unless `allow_extra`; shape_mismatch
  template <class Params, class Aux>
  void set_params(Params const& params, Aux const& aux, bool allow_extra = false) {
    auto& all = arrays("set_params");
    expect_values("set_params", params, aux, allow_extra);
    write(params, param_names_, param_index_, all.params);
    write(aux, aux_names_, aux_index_, all.aux);
    for (auto const& entry : aux)
      if (auto const i = all.aux.find(entry.first); i < all.written_aux.size()) all.written_aux[i].clear();
  }
  /// The checks of set_params.
  template <class Params, class Aux>
  void expect_values(char const* call, Params const& params, Aux const& aux, bool allow_extra) const {
    auto const& all = arrays(call);
    std::vector<std::string> extra;
    auto const check = [&](auto const& given, auto const& names, auto const& index, auto const& own) {
      for (auto const& entry : given) {  // clang 14 captures no structured bindings
        auto const& name = entry.first;
        auto const& value = entry.second;
        auto const place = std::find(names.begin(), names.end(), name);
        if (place == names.end()) {
          extra.emplace_back(name);
          continue;
        }
        shape const& expected = own.views[index[static_cast<std::size_t>(place - names.begin())]][0].shape();
        expects<shape_mismatch>(view_of(value).shape() == expected, [&] {
          return std::string(call) + ": \"" + std::string(name) + "\" of shape " + to_string(expected) +
                 " expected, got " + to_string(view_of(value).shape());
        });
      }
    };
    check(params, param_names_, param_index_, all.params);
    check(aux, aux_names_, aux_index_, all.aux);
    expects<extra_param>(extra.empty() || allow_extra,
                         [&] { return std::string(call) + ": the model has no parameter " + listed(extra); });
  }

  /// Fills tensors, by name, with the mean over the devices; of auxiliary states over those that had rows in a training pass since
  /// set_params, if any had. The sum is in device order, in float at least. Waits.
  /// @throws not_bound, unknown_key, shape_mismatch
  template <class Params, class Aux>
  void get_params(Params& params, Aux& aux) const {
    auto const& all = arrays("get_params");
    auto const read = [&](auto& out, auto const& names, auto const& index, auto const& views_of, bool identical) {
      for (auto& entry : out) {
        auto const& name = entry.first;
        auto& target = entry.second;
        auto const place = std::find(names.begin(), names.end(), name);
        expects<unknown_key>(place != names.end(),
                             [&] { return "get_params: the model has no parameter \"" + std::string(name) + "\""; });
        std::vector<view_type> const views = views_of(index[static_cast<std::size_t>(place - names.begin())]);
        if (identical || views.size() == 1) {
          copy(views[0], target);
        } else {
          auto const mean = train::mean_over(views);
          copy(tensor_view(mean.data(), views[0].shape()), target);
        }
      }
    };
    read(params, param_names_, param_index_, [&](std::size_t i) { return all.params.views[i]; }, all.identical);
    read(aux, aux_names_, aux_index_, [&](std::size_t i) { return all.current_aux(i); }, false);
  }

  /// Says that executors may have written parameters of their own, so that their devices' mean counts. A step over an attached
  /// store makes them the same again.
  void set_identical(bool identical) { arrays("set_identical").identical = identical; }

  /// The names of all parameters of the groups that share memory, and which of their gradients were computed since the last
  /// `end_step`, in whichever of the groups. @throws not_bound
  std::vector<std::string> const& shared_names() const { return arrays("shared_names").params.names; }
  std::vector<char> const& fresh() const { return arrays("fresh").fresh; }
  /// Whether some of the gradients were computed since then, but not all. @throws not_bound
  bool computed_some() const {
    auto const& all = arrays("computed_some");
    bool some = false, lacks = false;
    for (std::size_t i = 0; i < all.fresh.size(); ++i) {
      some = some || all.fresh[i] != 0;
      lacks = lacks || (all.fresh[i] == 0 && !all.grads.views[i].empty());
    }
    return some && lacks;
  }
  /// A step has used the gradients. @throws not_bound
  void end_step() {
    auto& all = arrays("end_step");
    all.fresh.assign(all.params.names.size(), 0);
  }
  /// The pool of a device.
  train::buffer_pool<device_type>& pool(std::size_t k) { return *(*pools_)[k]; }

 protected:
  using arrays_type = train::parameter_arrays<value_type, device_type>;
  using pools_type = std::vector<std::unique_ptr<train::buffer_pool<device_type>>>;

  ~group_memory() = default;

  arrays_type& arrays(char const* call) const {
    expects<not_bound>(arrays_ != nullptr, [&] { return std::string(call) + ": bind the group first"; });
    return *arrays_;
  }

  F factory_;
  std::vector<device_type> devices_;
  std::vector<std::string> param_names_, aux_names_;
  std::shared_ptr<arrays_type> arrays_;
  std::shared_ptr<pools_type> pools_;
  std::vector<std::size_t> param_index_, aux_index_;  // in the arrays, of the factory's names

 private:
  template <class Values, class Own>
  void write(Values const& given, std::vector<std::string> const& names, std::vector<std::size_t> const& index,
             Own const& own) {
    for (auto const& [name, value] : given) {
      auto const place = std::find(names.begin(), names.end(), name);
      if (place == names.end()) continue;
      for (auto const& view : own.views[index[static_cast<std::size_t>(place - names.begin())]]) copy(value, view);
    }
  }
};

}  // namespace detail
}  // namespace pushpull
