/// @file
/// Some parameters of a parameter_store, whose steps are made apart from those of the others.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/config.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Parameters and the plan of their step, which is laid out again only if other ones of them take part in steps. Belongs to the
/// caller of parameter_store::make_part, which outlives it.
/// @tparam Parts  As for step_buckets. @tparam Parameter  Of a parameter_list.
template <class Parts, class Parameter>
class parameter_part {
 public:
  explicit parameter_part(std::vector<Parameter*> members) : members_(std::move(members)) {}

  /// Number of parameters.
  std::size_t size() const { return members_.size(); }
  std::vector<Parameter*> const& members() const { return members_; }

  /// Makes one step of all members that take part in steps.
  void update(Parts& parts) {
    bool same = part_.has_value();
    for (std::size_t i = 0; same && i < members_.size(); ++i) same = planned_[i] == members_[i]->planned;
    if (!same) plan(parts);
    if (part_) parts.update(*part_);
  }

 private:
  void plan(Parts& parts) {
    std::vector<std::string> names;
    std::vector<bool> planned;
    for (Parameter const* const p : members_) {
      planned.push_back(p->planned);
      if (p->planned) names.push_back(p->name);
    }
    part_.reset();
    if (!names.empty()) part_.emplace(parts.make_part(names));
    planned_ = std::move(planned);
  }

  std::vector<Parameter*> members_;
  std::vector<bool> planned_;  // which of them the plan updates
  std::optional<typename Parts::part_type> part_;
};

}  // namespace pushpull::detail
