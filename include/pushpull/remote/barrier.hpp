/// @file
/// The barrier of a job, on its server 0.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <pushpull/config.hpp>
#include <pushpull/remote/answers.hpp>
#include <pushpull/remote/membership.hpp>
#include <pushpull/remote/message.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// Workers that wait for one another. Threads of one worker may wait at once: each of their calls is one barrier. Belongs to the
/// server's thread.
class server_barrier {
 public:
  server_barrier(membership& members, answer_sender& answers) : members_(members), answers_(answers) {}

  /// A request of a living worker, which is answered when all have asked.
  void enter(message_header const& h) {
    if (members_[h.worker].find_done(h.sequence) != nullptr) return answers_.send(h, message_kind::acknowledge);
    auto const is_same = [&](message_header const& other) {
      return other.worker == h.worker && other.incarnation == h.incarnation && other.sequence == h.sequence;
    };
    if (std::none_of(waiting_.begin(), waiting_.end(), is_same)) waiting_.push_back(h);
    answer();
  }
  /// A worker is gone.
  void leave(std::uint32_t worker) {
    std::erase_if(waiting_, [&](message_header const& h) { return h.worker == worker; });
    answer();
  }

 private:
  /// Answers the first request of each worker, while all living workers have one.
  void answer() {
    while (members_.is_complete() && waiting_.size() >= members_.count(worker_state::alive)) {
      std::vector<message_header> first;
      for (message_header const& h : waiting_)
        if (std::none_of(first.begin(), first.end(), [&](message_header const& f) { return f.worker == h.worker; }))
          first.push_back(h);
      if (first.empty() || first.size() < members_.count(worker_state::alive)) return;
      for (message_header const& h : first) {
        std::erase(waiting_, h);
        members_[h.worker].note({h.sequence});
        answers_.send(h, message_kind::acknowledge);
      }
    }
  }

  membership& members_;
  answer_sender& answers_;
  std::vector<message_header> waiting_;
};

}  // namespace pushpull::remote::detail
