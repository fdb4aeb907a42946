/// @file
/// An operation whose requests were filled in the call that made it.
#pragma once

#include <utility>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/profile/tracing.hpp>
#include <pushpull/remote/link.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/remote/row_requests.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/schedule/operation_pool.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Sends its requests, and is done when all are answered.
class prepared_operation final : public pushpull::detail::pooled_operation {
 public:
  explicit prepared_operation(link& servers) : servers_(servers) { group.is_operation = true; }

  request_group group;
  row_requests rows;
  char const* caller = nullptr;         ///< The store's call.
  std::vector<remote_key const*> keys;  ///< That it is about.

  char const* name() const override { return caller; }
  void list_keys(profile::detail::key_list& list) const override {
    for (remote_key const* const key : keys) list.add(any_key_view(key->key));
  }

  pushpull::detail::progress run() override {
    if (std::exchange(is_sent_, true)) return pushpull::detail::progress::done();
    group.begin();
    servers_.submit(group);
    return pushpull::detail::progress::waiting_for(group.event);
  }

 private:
  link& servers_;
  bool is_sent_ = false;
};

}  // namespace pushpull::remote::detail
