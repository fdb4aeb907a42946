/// @file
/// The optimizers of both generations of MXNet, `compat::mxnet1` and `compat::mxnet2`, and their learning-rate schedulers,
/// `compat::mxnet`.
#pragma once

#include <pushpull/compat/mxnet1.hpp>
#include <pushpull/compat/mxnet2.hpp>
#include <pushpull/compat/mxnet_scheduler.hpp>
