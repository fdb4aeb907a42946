/// @file
/// The passes in arenas whose PTX and resource usage ptx_test.cpp reads: Adam in three sets of element types, with gradients
/// or states that the pass decodes, and rounded; all other rules over floats and over bfloat16 with a float master.
#include <pushpull/pushpull.cuh>

namespace {

namespace codec = pushpull::codec;
namespace compress = pushpull::compress;
namespace update = pushpull::update;

template <class Rule, class G>
using pass_of =
    pushpull::pass::body<Rule, pushpull::reduce::sum, pushpull::pass::element_types<G, float, float, float, G>,
                         pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;
template <class Encoded>
using decoding_pass = pushpull::pass::body<update::adam, pushpull::reduce::sum,
                                           pushpull::pass::element_types<Encoded, float, float, float, float>,
                                           pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;
using scaled_pass = decoding_pass<compress::scaled_code<pushpull::float8_e4m3>>;
using sparse_pass = decoding_pass<compress::sparse_code>;
using eighths = pushpull::detail::coded_states<256, codec::linear, codec::unsigned_float8>;
using coded_pass = pushpull::pass::body<update::adam, pushpull::reduce::sum,
                                        pushpull::pass::element_types<float, float, float, eighths, float>,
                                        pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;
// Rounded stochastically, and with the sum of earlier micro-batches.
using rounding_pass =
    pushpull::pass::body<update::adam, pushpull::reduce::sum,
                         pushpull::pass::element_types<pushpull::bfloat16, float, pushpull::bfloat16,
                                                       pushpull::bfloat16, pushpull::bfloat16, true, true>,
                         pushpull::pass::cuda_execution, pushpull::pass::memory::arenas>;

template <class Pass>
void launch(Pass const& pass) {
  pushpull::detail::index_kernel<<<1, pushpull::detail::index_threads>>>(pass, std::int64_t{1});
}

template <class... Rules>
void launch_all(pass_of<Rules, float> const&... floats, pass_of<Rules, pushpull::bfloat16> const&... narrow) {
  (launch(floats), ...);
  (launch(narrow), ...);
}

using mxnet_rmsprop = decltype(pushpull::compat::mxnet1::rmsprop_centered());
using mxnet_adamw = decltype(pushpull::compat::mxnet2::adamw());
// A schedule with a table, and two scheduled hyperparameters: none of it is left in the pass.
using scheduled_adamw = decltype(update::adamw{} | update::learning_rate(pushpull::lr_schedule::multi_step_decay{}) |
                                 update::hyperparameter<&update::adamw::weight_decay>(pushpull::lr_schedule::cosine{}));
using scaled_and_clipped = decltype(update::dynamic_loss_scale{} | update::clip_global_norm(1) | update::adamw{});
// Wrappers with states of their own, around each other and inside a pipe.
using averaged =
    decltype(update::clip_global_norm(1) | update::trace(0.9, true) | update::adam{} | update::lookahead(5) |
             update::ema(0.999) | update::learning_rate(pushpull::lr_schedule::cosine{}));
using averaged_late = decltype(update::schedule_free_sgd{} | update::swa(100, 10));
using cautious_adam = decltype(update::adam{} | update::cautious());
using noisy_sgd = decltype(update::add_noise(0.1) | update::sgd{});
using mxnet_lars = decltype(pushpull::compat::mxnet1::lars());
using mxnet_adagrad = decltype(pushpull::compat::mxnet1::adagrad());
using clipped_lamb = decltype(update::clip_norm(1) | update::lamb{});

}  // namespace

// The pointer keeps the launches.
auto const launches =
    &launch_all<update::sgd, update::momentum, update::nesterov, update::adamw, update::signsgd, update::signum,
                update::lion, update::adagrad, update::rmsprop, update::centered_rmsprop, update::adadelta,
                update::amsgrad, update::adamax, update::nadam, update::radam, update::adabelief, update::yogi,
                update::dcasgd, update::ftrl, update::ftml, update::test, update::sgld, mxnet_rmsprop, mxnet_adamw,
                scheduled_adamw, update::lars, update::lans, scaled_and_clipped, clipped_lamb, averaged, noisy_sgd,
                mxnet_lars, mxnet_adagrad, update::ademamix, update::adopt, update::adan, update::mars, update::prodigy,
                update::dadapt_adam, update::sophia_g, cautious_adam, update::schedule_free_adamw, averaged_late>;
template <class... Passes>
void launch_each(Passes const&... passes) {
  (launch(passes), ...);
}
auto const adam =
    &launch_each<pass_of<update::adam, float>, pass_of<update::adam, pushpull::bfloat16>,
                 pass_of<update::adam, pushpull::float8_e5m2>, scaled_pass, sparse_pass, coded_pass, rounding_pass>;
void const* pushpull_test_launches[] = {reinterpret_cast<void const*>(launches), reinterpret_cast<void const*>(adam)};
