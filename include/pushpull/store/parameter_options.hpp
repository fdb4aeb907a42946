/// @file
/// The options of parameters, and iteration over the parameters of a store.
#pragma once

#include <compare>
#include <cstddef>
#include <iterator>
#include <string_view>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>

namespace pushpull::inline PUSHPULL_ABI {

/// The access of a backward pass to the gradient of a parameter.
enum class grad_request {
  none,   ///< Nothing: the parameter has no gradient, and no step updates it.
  write,  ///< It overwrites the gradient.
  add     ///< It adds to the gradient, until a step has used the sum.
};

/// The options of registering a parameter.
struct parameter_options {
  bool requires_grad = true;                   ///< False: mirrors, but no gradient and no update (running statistics).
  grad_request request = grad_request::write;  ///< Of a parameter that requires a gradient; none: it does not.
  double learning_rate_multiplier = 1;         ///< See add_multiplier_groups.
  double weight_decay_multiplier = 1;          ///< Same, of the weight decay.
  bool keeps_gradient = true;                  ///< False: no memory for gradients; update(name, gradients) brings them.
};

/// A registered parameter: an element of a parameter_store, which is a range of them in the order of `add`.
struct parameter_info {
  std::string_view name;  ///< Valid as long as the parameter_store.
  pushpull::shape shape;
  std::string_view dtype;     ///< Of mirrors and gradients: "float32".
  parameter_options options;  ///< As they are now: a frozen parameter requires no gradient, its request is none.
  std::size_t group = 0;      ///< Its parameter group in the store; 0 before its mirrors are made.
};

namespace detail {

/// Walks over the elements container[0], container[1], ..., which are made when they are read.
template <class Container>
class index_iterator {
 public:
  using value_type = decltype(std::declval<Container const&>()[std::size_t{}]);
  using difference_type = std::ptrdiff_t;
  using iterator_concept = std::random_access_iterator_tag;
  using iterator_category = std::input_iterator_tag;  // there is no element to refer to

  index_iterator() = default;
  index_iterator(Container const& container, std::size_t index)
      : container_(&container), index_(static_cast<std::ptrdiff_t>(index)) {}

  value_type operator*() const { return (*container_)[static_cast<std::size_t>(index_)]; }
  value_type operator[](difference_type n) const { return *(*this + n); }
  index_iterator& operator++() { return *this += 1; }
  index_iterator& operator--() { return *this += -1; }
  index_iterator operator++(int) {
    auto const before = *this;
    ++*this;
    return before;
  }
  index_iterator operator--(int) {
    auto const before = *this;
    --*this;
    return before;
  }
  index_iterator& operator+=(difference_type n) {
    index_ += n;
    return *this;
  }
  index_iterator& operator-=(difference_type n) { return *this += -n; }
  friend index_iterator operator+(index_iterator it, difference_type n) { return it += n; }
  friend index_iterator operator+(difference_type n, index_iterator it) { return it += n; }
  friend index_iterator operator-(index_iterator it, difference_type n) { return it -= n; }
  friend difference_type operator-(index_iterator const& a, index_iterator const& b) { return a.index_ - b.index_; }
  friend bool operator==(index_iterator const& a, index_iterator const& b) { return a.index_ == b.index_; }
  friend auto operator<=>(index_iterator const& a, index_iterator const& b) { return a.index_ <=> b.index_; }

 private:
  Container const* container_ = nullptr;
  std::ptrdiff_t index_ = 0;
};

}  // namespace detail
}  // namespace pushpull
