/// @file
/// A pull: one pass per device that reads stored values once and writes them to all outputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <shared_mutex>
#include <string>
#include <type_traits>

#include <pushpull/config.hpp>
#include <pushpull/element/dtype.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/fused_step.hpp>
#include <pushpull/pass/operands.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/schedule/operation.hpp>
#include <pushpull/store/contents.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/laid_out_call.hpp>
#include <pushpull/store/operations/operation.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// From masters to outputs of element type U. @tparam Types  A kv_store_types.
template <class Types, class U>
using pull_step =
    fused_step<typename Types::device_type, pass::hold, reduce::sum,
               pass::element_types<typename Types::value_type,
                                   std::common_type_t<accumulation_t<U>, accumulation_t<typename Types::master_type>>,
                                   typename Types::master_type, typename Types::master_type, U>,
               pass::memory::foreign>;

/// From mirrors to outputs of element type U.
template <class Types, class U>
using mirror_pull_step =
    fused_step<typename Types::device_type, pass::hold, reduce::sum,
               pass::element_types<typename Types::value_type,
                                   std::common_type_t<accumulation_t<U>, accumulation_t<typename Types::value_type>>,
                                   typename Types::value_type, typename Types::value_type, U>,
               pass::memory::foreign>;

/// A pull into outputs of element type U. In a store of several ranks it reads this rank's mirrors, and takes part in no
/// call to other ranks.
template <class Types, class U>
class pull final : public gathered_operation<typename Types::device_type> {
  using D = typename Types::device_type;
  /// Mirrors are of the store's element type, and may be rounded.
  static constexpr bool shows_as_much = std::is_same_v<U, typename Types::value_type> ||
                                        std::is_same_v<typename Types::master_type, typename Types::value_type>;

 public:
  gathered_call<typename Types::key_view, D, U> gathered;

  explicit pull(store_contents<Types>& contents)
      : gathered_operation<D>(contents.devices()),
        contents_(contents),
        call_(contents.devices().size()),
        step_(contents.devices().size()),
        mirror_step_(contents.devices().size()) {}

  /// @throws also invalid_argument in a store of several ranks, if outputs would show more of the masters than mirrors do
  void find_keys() override {
    {
      std::shared_lock const lock(contents_.mutex.mutex);
      call_.take(contents_.keys, gathered);
    }
    contents_.expect_in_step(gathered.caller());
    expects<invalid_argument>(shows_as_much || !contents_.keys.is_distributed(), [&] {
      return std::string(gathered.caller()) + ": outputs of " + std::string(dtype_traits<U>::name) +
             " show masters, of which each rank holds a part; a store of several ranks pulls " +
             std::string(dtype_traits<typename Types::value_type>::name);
    });
    call_.for_each_key([&](auto& r) { this->reads(r.order); });
  }
  std::int64_t work() const override { return call_.work(); }

  void prepare() override {
    call_.begin(contents_.keys, effect::reads);
    if constexpr (Types::collective)
      if (contents_.keys.is_distributed()) return call_.lay_out_mirrors(contents_.keys, mirror_step_);
    call_.lay_out(contents_.keys, step_, effect::reads);
  }
  progress run() override {
    call_.launch(contents_.keys, effect::reads, [&] {
      if constexpr (Types::collective)
        if (contents_.keys.is_distributed()) return mirror_step_.run(contents_.devices());
      step_.run(contents_.devices());
    });
    return progress::done();
  }

 private:
  store_contents<Types>& contents_;
  laid_out_call<typename Types::table_type, D, typename Types::value_type, U> call_;
  pull_step<Types, U> step_;
  struct no_step {
    explicit no_step(std::size_t) {}
  };
  [[no_unique_address]] std::conditional_t<Types::collective, mirror_pull_step<Types, U>, no_step> mirror_step_;
};

}  // namespace pushpull::detail
