/// @file
/// A device's part of a step: its words, the rows that they need, and word2vec's updates on copies of these rows.
#pragma once

#define EIGEN_DONT_PARALLELIZE  // the devices are the threads
#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <numeric>
#include <pushpull/pushpull.hpp>
#include <random>
#include <span>
#include <vector>

#include "corpus.hpp"
#include "options.hpp"

namespace train_word2vec {

namespace pp = pushpull;

/// Loss and its number of terms.
struct loss_sum {
  double loss = 0;
  std::int64_t terms = 0;
};

/// Random words by their counts to the power of 3/4.
class noise {
 public:
  explicit noise(std::vector<std::int64_t> const& counts) {
    double sum = 0;
    for (auto const count : counts) bounds_.push_back(sum += std::pow(static_cast<double>(count), 0.75));
  }
  template <class Generator>
  std::int32_t operator()(Generator& random) const {
    double const x = static_cast<double>(random() >> 11) * 0x1p-53 * bounds_.back();
    return static_cast<std::int32_t>(std::upper_bound(bounds_.begin(), bounds_.end(), x) - bounds_.begin());
  }

 private:
  std::vector<double> bounds_;
};

/// The logistic function and the loss -ln of it, by table between -6 and 6; beyond, nothing is learned.
class sigmoid_table {
 public:
  static constexpr float limit = 6;
  sigmoid_table() {
    for (std::size_t i = 0; i < size; ++i) {
      double const x = (2 * (static_cast<double>(i) + 0.5) / size - 1) * static_cast<double>(limit);
      sigmoid_[i] = static_cast<float>(1 / (1 + std::exp(-x)));
      loss_[i] = static_cast<float>(std::log1p(std::exp(-x)));
    }
  }
  static std::size_t place(float x) { return static_cast<std::size_t>((x + limit) * (size / (2 * limit))); }
  float sigmoid(std::size_t place) const { return sigmoid_[place]; }
  float loss(std::size_t place) const { return loss_[place]; }
  static std::size_t mirrored(std::size_t place) { return size - 1 - place; }

 private:
  static constexpr std::size_t size = 1024;
  std::array<float, size> sigmoid_, loss_;
};

/// The part of a step that one device computes. `begin` names the rows; when they are in `rows(key)`, `train` replaces them by
/// the gradient: old rows - new rows, which a store with sgd{1} subtracts.
class share {
 public:
  static constexpr std::size_t input = 0, output = 1;  // the two keys

  share(options const& chosen, corpus const& text, noise const& negatives, pp::cpu_device<> const& device)
      : chosen_{chosen}, text_{text}, negatives_{negatives} {
    auto const words = static_cast<std::int64_t>(text.words.size());
    pp::shape const table{words, static_cast<std::int64_t>(chosen.dimension)};
    for (int key = 0; key < 2; ++key) rows_.emplace_back(device, table);
    for (auto& place : places_) place.assign(text.words.size(), -1);
  }

  pp::row_sparse<float>& rows(std::size_t key) { return rows_[key]; }
  std::vector<std::int64_t> const& ids(std::size_t key) const { return ids_[key]; }

  /// Draws the random words of tokens [begin, end), and finds out which rows they need.
  void begin(std::size_t begin, std::size_t end, std::seed_seq& seeds) {
    random_.seed(seeds);
    words_.clear();
    for (auto& ids : ids_) ids.clear();
    std::size_t const margin = 8 * chosen_.window;  // contexts of the first and the last words
    std::size_t const first = begin - std::min(begin, margin), last = std::min(end + margin, text_.tokens.size());
    auto sentence = std::upper_bound(text_.sentence_begins.begin(), text_.sentence_begins.end(), first);
    for (std::size_t i = first; i < last; ++i) {
      if (sentence != text_.sentence_begins.end() && *sentence == i) {
        words_.push_back({sentence_end, false});
        ++sentence;
      }
      auto const word = text_.tokens[i];
      if (!kept(word)) continue;
      words_.push_back({word, i >= begin && i < end});
      need(input, word);
      need(output, word);
    }
    pool_.clear();
    for (std::size_t i = 0; i < chosen_.pool; ++i) need(output, pool_.emplace_back(negatives_(random_)));
  }

  /// @returns the loss of the pairs before their updates
  loss_sum train(float learning_rate, sigmoid_table const& table) {
    for (std::size_t key = 0; key < 2; ++key) {
      auto const& rows = rows_[key];
      for (std::int64_t row = 0; row < rows.rows(); ++row)
        places_[key][static_cast<std::size_t>(rows.row_ids()[row])] = static_cast<std::int32_t>(row);
      trained_[key].assign(rows.values(), rows.values() + rows.rows() * rows.row_length());
    }
    error_.resize(static_cast<Eigen::Index>(chosen_.dimension));
    loss_sum sum;
    for (std::size_t i = 0; i < words_.size(); ++i)
      if (words_[i].center) train_word(i, learning_rate, table, sum);
    for (std::size_t key = 0; key < 2; ++key) {
      auto& rows = rows_[key];
      std::transform(trained_[key].begin(), trained_[key].end(), rows.values(), rows.values(),
                     [](float now, float before) { return before - now; });
      for (std::int64_t row = 0; row < rows.rows(); ++row)
        places_[key][static_cast<std::size_t>(rows.row_ids()[row])] = -1;
    }
    return sum;
  }

 private:
  using vector = Eigen::Array<float, Eigen::Dynamic, 1>;
  static constexpr std::int32_t sentence_end = -1;
  struct kept_word {
    std::int32_t word;
    bool center;
  };

  /// Frequent words are skipped at random, as in word2vec.
  bool kept(std::int32_t word) {
    if (chosen_.sample <= 0) return true;
    double const threshold = chosen_.sample * static_cast<double>(text_.tokens.size());
    double const part = threshold / static_cast<double>(text_.counts[static_cast<std::size_t>(word)]);
    double const probability = std::sqrt(part) + part;
    return probability >= 1 || static_cast<double>(random_() >> 11) * 0x1p-53 < probability;
  }
  void need(std::size_t key, std::int32_t word) {
    auto& place = places_[key][static_cast<std::size_t>(word)];
    if (place == needed) return;
    place = needed;
    ids_[key].push_back(word);
  }
  Eigen::Map<vector> row(std::size_t key, std::int32_t word) {
    auto const place = static_cast<std::size_t>(places_[key][static_cast<std::size_t>(word)]);
    return {trained_[key].data() + place * chosen_.dimension, static_cast<Eigen::Index>(chosen_.dimension)};
  }

  void train_word(std::size_t i, float learning_rate, sigmoid_table const& table, loss_sum& sum) {
    std::size_t const window = 1 + random_() % chosen_.window;
    for (std::size_t j = i; j-- > 0 && i - j <= window && words_[j].word != sentence_end;)
      train_pair(words_[j].word, words_[i].word, learning_rate, table, sum);
    for (std::size_t j = i + 1; j < words_.size() && j - i <= window && words_[j].word != sentence_end; ++j)
      train_pair(words_[j].word, words_[i].word, learning_rate, table, sum);
  }
  void train_pair(std::int32_t context, std::int32_t center, float learning_rate, sigmoid_table const& table,
                  loss_sum& sum) {
    auto in = row(input, context);
    error_.setZero();
    for (std::size_t n = 0; n <= chosen_.negative; ++n) {
      auto const target = n == 0 ? center : pool_[static_cast<std::size_t>(random_() % pool_.size())];
      if (n > 0 && target == center) continue;
      auto out = row(output, target);
      float const product = (in * out).sum();
      ++sum.terms;
      float step;
      if (!(std::abs(product) < sigmoid_table::limit)) {
        bool const right = (product > 0) == (n == 0);
        sum.loss += right ? 0 : static_cast<double>(std::abs(product));
        if (right) continue;
        step = n == 0 ? learning_rate : -learning_rate;
      } else {
        auto const place = sigmoid_table::place(product);
        sum.loss += static_cast<double>(table.loss(n == 0 ? place : sigmoid_table::mirrored(place)));
        step = ((n == 0 ? 1.0F : 0.0F) - table.sigmoid(place)) * learning_rate;
      }
      error_ += step * out;
      out += step * in;
    }
    in += error_;
  }

  static constexpr std::int32_t needed = -2;
  options const& chosen_;
  corpus const& text_;
  noise const& negatives_;
  std::mt19937_64 random_;
  std::vector<kept_word> words_;
  std::vector<std::int32_t> pool_;
  std::vector<std::int64_t> ids_[2];
  std::vector<std::int32_t> places_[2];  // of each word among this step's rows; -1 between steps
  std::vector<pp::row_sparse<float>> rows_;
  std::vector<float> trained_[2];
  vector error_;
};

}  // namespace train_word2vec
