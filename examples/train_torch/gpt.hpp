/// @file
/// A small transformer that predicts the next character of a text.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <text/read_text.hpp>
#include <vector>

#include "network.hpp"

namespace train_torch {

/// Attention to earlier characters, then two dense layers, each added to its input.
struct transformer_block : torch::nn::Module {
  static constexpr std::int64_t heads = 4;

  explicit transformer_block(std::int64_t width)
      : norm1(register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})))),
        norm2(register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})))),
        qkv(register_module("qkv", torch::nn::Linear(width, 3 * width))),
        out(register_module("out", torch::nn::Linear(width, width))),
        up(register_module("up", torch::nn::Linear(width, 4 * width))),
        down(register_module("down", torch::nn::Linear(4 * width, width))) {}

  /// @param x  Of shape (rows, characters, width).
  torch::Tensor forward(torch::Tensor const& x, torch::Tensor const& later) {
    auto const rows = x.size(0), length = x.size(1), size = x.size(2) / heads;
    auto const parts = qkv(norm1(x)).view({rows, length, 3, heads, size}).permute({2, 0, 3, 1, 4});
    auto const scores = torch::matmul(parts[0], parts[1].transpose(-2, -1)) / std::sqrt(static_cast<double>(size));
    auto const weights = scores.masked_fill(later, -std::numeric_limits<double>::infinity()).softmax(-1);
    auto const y = x + out(torch::matmul(weights, parts[2]).transpose(1, 2).reshape(x.sizes()));
    return y + down(torch::gelu(up(norm2(y))));
  }

  torch::nn::LayerNorm norm1, norm2;
  torch::nn::Linear qkv, out, up, down;
};

/// Scores by the embedding of the characters, whose weights the first and the last layer share.
struct gpt : network {
  gpt(std::int64_t characters, options const& chosen)
      : token(register_module("token", torch::nn::Embedding(characters, chosen.hidden))),
        place(register_module("place", torch::nn::Embedding(chosen.context, chosen.hidden))),
        norm(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({chosen.hidden})))),
        later(torch::ones({chosen.context, chosen.context}, torch::kBool).triu(1)) {
    torch::NoGradGuard const silent;
    for (auto* embedding : {&token, &place}) (*embedding)->weight.normal_(0, 0.02);
    for (std::int64_t n = 0; n < chosen.layers; ++n)
      blocks.push_back(
          register_module("block" + std::to_string(n), std::make_shared<transformer_block>(chosen.hidden)));
  }

  torch::Tensor forward(torch::Tensor inputs) override {
    auto x = token(inputs) + place->weight;
    for (auto const& block : blocks) x = block->forward(x, later);
    return torch::matmul(norm(x), token->weight.t()).flatten(0, 1);
  }

  torch::nn::Embedding token, place;
  torch::nn::LayerNorm norm;
  torch::Tensor later;
  std::vector<std::shared_ptr<transformer_block>> blocks;
};

/// Windows of the text, whose labels are the next characters: the last tenth is the test, of 256 windows at most. @throws input_error
inline task learn_text(options const& chosen) {
  std::string text;
  try {
    text = example_text::read_text(chosen.text);
  } catch (example_text::input_error const& error) {
    throw input_error{error.what()};
  }
  std::array<std::int64_t, 256> ids{};
  for (char const c : text) ids[static_cast<unsigned char>(c)] = 1;
  std::int64_t characters = 0;
  for (auto& id : ids)
    if (id != 0) id = characters++;
  auto const windows = text.empty() ? 0 : static_cast<std::int64_t>(text.size() - 1) / chosen.context;
  if (windows < 20) throw input_error{"--text: at least 20 windows of --context characters expected"};
  auto all = torch::empty({windows * chosen.context + 1}, torch::kLong);
  std::transform(text.begin(), text.begin() + all.numel(), all.data_ptr<std::int64_t>(),
                 [&](char c) { return ids[static_cast<unsigned char>(c)]; });
  auto const inputs = all.slice(0, 0, -1).view({windows, -1}), labels = all.slice(0, 1).view({windows, -1});
  auto const cut = windows - windows / 10, end = std::min(windows, cut + 256);
  return {{inputs.slice(0, 0, cut), labels.slice(0, 0, cut)},
          {inputs.slice(0, cut, end), labels.slice(0, cut, end)},
          [characters, chosen] { return std::make_shared<gpt>(characters, chosen); }};
}

}  // namespace train_torch
