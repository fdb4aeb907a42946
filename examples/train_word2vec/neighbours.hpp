/// @file
/// Words whose vectors have a similar direction.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "corpus.hpp"
#include "options.hpp"

namespace train_word2vec {

/// A table of word vectors, of length 1 each.
class directions {
 public:
  directions(std::vector<float> vectors, std::size_t dimension) : vectors_{std::move(vectors)}, dimension_{dimension} {
    for (std::size_t word = 0; word < words(); ++word) {
      auto* const row = vectors_.data() + word * dimension_;
      float const length = std::sqrt(std::inner_product(row, row + dimension_, row, 0.0F));
      for (std::size_t k = 0; k < dimension_; ++k) row[k] /= std::max(length, 1e-30F);
    }
  }
  std::size_t words() const { return vectors_.size() / dimension_; }
  float cosine(std::size_t a, std::size_t b) const {
    auto const* const row = vectors_.data() + a * dimension_;
    return std::inner_product(row, row + dimension_, vectors_.data() + b * dimension_, 0.0F);
  }
  /// The `count` words with the largest cosines, without the word itself.
  std::vector<std::size_t> nearest(std::size_t word, std::size_t count) const {
    std::vector<std::size_t> others(words());
    std::iota(others.begin(), others.end(), std::size_t{0});
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(word));
    count = std::min(count, others.size());
    std::partial_sort(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(count), others.end(),
                      [&](std::size_t a, std::size_t b) { return cosine(word, a) > cosine(word, b); });
    others.resize(count);
    return others;
  }

 private:
  std::vector<float> vectors_;
  std::size_t dimension_;
};

/// A line per word: "king: david 0.71, ...".
inline void print_neighbours(options const& chosen, corpus const& text, std::vector<float> const& vectors) {
  directions const table{vectors, chosen.dimension};
  for (auto const& word : chosen.words) {
    auto const number = text.find(word);
    std::cout << word << ':';
    if (number < 0) std::cout << " not in the text often enough";
    auto separator = " ";
    for (auto const other :
         number < 0 ? std::vector<std::size_t>{} : table.nearest(static_cast<std::size_t>(number), chosen.neighbours)) {
      std::cout << separator << text.words[other] << ' ' << std::fixed << std::setprecision(2)
                << table.cosine(static_cast<std::size_t>(number), other);
      separator = ", ";
    }
    std::cout << '\n';
  }
  std::cout << std::flush;
}

/// word2vec's text format: a line "words dimension", then a word and its vector per line.
inline void save_vectors(std::filesystem::path const& path, corpus const& text, std::vector<float> const& vectors,
                         std::size_t dimension) {
  std::ofstream file{path};
  file << text.words.size() << ' ' << dimension << '\n' << std::setprecision(9);
  for (std::size_t word = 0; word < text.words.size(); ++word) {
    file << text.words[word];
    for (std::size_t k = 0; k < dimension; ++k) file << ' ' << vectors[word * dimension + k];
    file << '\n';
  }
  file.close();
  if (!file) throw std::runtime_error{path.string() + " could not be written completely"};
}

}  // namespace train_word2vec
