/// @file
/// Named parameters in the order of their registration.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/error.hpp>
#include <pushpull/store/keys.hpp>
#include <pushpull/store/parameter_options.hpp>

namespace pushpull::inline PUSHPULL_ABI {

namespace detail {

/// @tparam Parameter  Has a name.
template <class Parameter>
class parameter_list {
 public:
  std::size_t size() const { return parameters_.size(); }
  std::unique_ptr<Parameter> const& operator[](std::size_t i) const { return parameters_[i]; }
  auto begin() const { return parameters_.begin(); }
  auto end() const { return parameters_.end(); }

  /// @throws duplicate_key
  void expect_new(std::string_view name) const {
    expects<duplicate_key>(index_.find(name) == index_.end(),
                           [&] { return "parameter_store: parameter \"" + std::string(name) + "\" was added before"; });
  }
  /// @throws unknown_key
  Parameter& find(std::string_view name) const {
    auto const found = index_.find(name);
    expects<unknown_key>(found != index_.end(),
                         [&] { return "parameter_store: parameter \"" + std::string(name) + "\" was never added"; });
    return *parameters_[found->second];
  }

  /// Nothing is added if this throws. @throws std::bad_alloc
  void add(std::unique_ptr<Parameter> p) {
    parameters_.push_back(std::move(p));
    try {
      index_.emplace(parameters_.back()->name, parameters_.size() - 1);
    } catch (...) {
      parameters_.pop_back();
      throw;
    }
  }
  void erase(std::size_t i) {
    index_.erase(parameters_[i]->name);
    parameters_.erase(parameters_.begin() + static_cast<std::ptrdiff_t>(i));
    for (std::size_t later = i; later < parameters_.size(); ++later) index_[parameters_[later]->name] = later;
  }

 private:
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::unordered_map<std::string, std::size_t, key_hash<std::string>, std::equal_to<>> index_;
};

}  // namespace detail
}  // namespace pushpull
