#include "on_cuda.hpp"

#include "input_error.hpp"

namespace train_classifier {

void run_on_cuda(options const&) { throw input_error{"--device: cuda needs a build of pushpull with CUDA"}; }

}  // namespace train_classifier
