/// @file
/// The parameters of well-known models: how many elements each of their tensors has, in order.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace pushpull::bench {

/// He et al. 2015, 50 layers, 1,000 classes: 161 tensors, 25,557,032 elements.
inline std::vector<std::int64_t> resnet50() {
  std::vector<std::int64_t> sizes;
  auto const convolution = [&](std::int64_t in, std::int64_t out, std::int64_t kernel) {
    sizes.insert(sizes.end(), {out * in * kernel * kernel, out, out});  // weights; scale and shift behind them
  };
  convolution(3, 64, 7);
  std::int64_t in = 64;
  for (auto const& [blocks, planes] : {std::pair{3, 64}, {4, 128}, {6, 256}, {3, 512}})
    for (int block = 0; block < blocks; ++block) {
      convolution(in, planes, 1);
      convolution(planes, planes, 3);
      convolution(planes, 4 * planes, 1);
      if (block == 0) convolution(in, 4 * planes, 1);
      in = 4 * planes;
    }
  sizes.insert(sizes.end(), {1000 * 2048, 1000});
  return sizes;
}

/// Devlin et al. 2018, base, uncased, with its pooler: 199 tensors, 109,482,240 elements.
inline std::vector<std::int64_t> bert_base() {
  std::int64_t const width = 768;
  std::vector<std::int64_t> sizes{30522 * width, 512 * width, 2 * width, width, width};
  for (int layer = 0; layer < 12; ++layer) {
    for (int projection = 0; projection < 4; ++projection) sizes.insert(sizes.end(), {width * width, width});
    sizes.insert(sizes.end(), {width, width, 4 * width * width, 4 * width, 4 * width * width, width, width, width});
  }
  sizes.insert(sizes.end(), {width * width, width});
  return sizes;
}

/// Radford et al. 2019, small, output weights shared with the embedding: 148 tensors, 124,439,808 elements.
inline std::vector<std::int64_t> gpt2() {
  std::int64_t const width = 768;
  std::vector<std::int64_t> sizes{50257 * width, 1024 * width};
  for (int layer = 0; layer < 12; ++layer)
    sizes.insert(sizes.end(), {width, width, 3 * width * width, 3 * width, width * width, width, width, width,
                               4 * width * width, 4 * width, 4 * width * width, width});
  sizes.insert(sizes.end(), {width, width});
  return sizes;
}

}  // namespace pushpull::bench
