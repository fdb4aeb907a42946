/// @file
/// The passes of all rules beside Adam, over floats in arenas: ptx_test.cpp reads what the compiler says of them.
#include <pushpull/pushpull.cuh>

namespace {

namespace update = pushpull::update;

template <class Rule>
using pass_of = pushpull::pass::body<Rule, pushpull::reduce::sum,
                                     pushpull::pass::element_types<float, float, float, float, float>,
                                     pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;

template <class Rule>
void launch(pass_of<Rule> const& pass) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads>>>(pass, std::int64_t{1});
}

template <class... Rules>
void launch_all(pass_of<Rules> const&... passes) {
  (launch<Rules>(passes), ...);
}

using mxnet_rmsprop = decltype(pushpull::compat::mxnet1::rmsprop_centered());
using mxnet_adamw = decltype(pushpull::compat::mxnet2::adamw());
// A schedule with a table, and two scheduled hyperparameters: none of it is left in the pass.
using scheduled_adamw = decltype(update::adamw{} | update::learning_rate(pushpull::lr_schedule::multi_step_decay{}) |
                                 update::hyperparameter<&update::adamw::weight_decay>(pushpull::lr_schedule::cosine{}));

}  // namespace

// The pointer keeps the launches.
auto const launches = &launch_all<
    update::sgd, update::momentum, update::nesterov, update::adamw, update::signsgd, update::signum, update::lion,
    update::adagrad, update::rmsprop, update::centered_rmsprop, update::adadelta, update::amsgrad, update::adamax,
    update::nadam, update::radam, update::adabelief, update::yogi, update::dcasgd, update::ftrl, update::ftml, update::test,
    update::sgld, mxnet_rmsprop, mxnet_adamw, scheduled_adamw>;
void const* pushpull_test_launches = reinterpret_cast<void const*>(launches);
