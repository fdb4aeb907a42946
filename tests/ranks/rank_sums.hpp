/// @file
/// A store of one process that adds up micro-batches as ranks do: each its own, and then those of all ranks.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace pushpull::test {

/// Calls of an accumulating store, on one that does not accumulate and takes one sum of each rank.
template <class T, class Store>
class store_of_rank_sums {
 public:
  /// @param micro_batches  Of a step. @param divisor  Of the sum of each micro-batch.
  store_of_rank_sums(Store& store, std::size_t ranks, std::size_t micro_batches, float divisor = 1)
      : store_(&store), ranks_(ranks), micro_batches_(micro_batches), divisor_(divisor) {}

  void init(auto const& keys, auto const& values, key_options options = {}) { store_->init(keys, values, options); }
  auto pull(auto const& keys, auto& outputs) { return store_->pull(keys, outputs); }
  void wait() { store_->wait(); }

  void accumulate(std::string const& key, std::vector<std::vector<T>> const& gradients) { add(key, gradients); }
  void push(std::string const& key, std::vector<std::vector<T>> const& gradients) {
    if (!add(key, gradients)) return;
    auto const of_ranks = brought(key);
    store_->push(key, of_ranks).wait();
  }
  auto pushpull(std::vector<std::string> const& keys, std::vector<std::vector<std::vector<T>>> const& gradients,
                std::vector<std::vector<T>>& outputs) {
    std::vector<std::string> due;
    std::vector<std::vector<std::vector<T>>> of_ranks;
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (add(keys[i], gradients[i])) {
        due.push_back(keys[i]);
        of_ranks.push_back(brought(keys[i]));
      }
    if (!due.empty()) store_->push(due, of_ranks).wait();
    return store_->pull(keys, outputs);
  }

 private:
  struct sums {
    std::size_t micro_batches = 0;
    std::vector<std::vector<float>> of_rank;
  };

  /// Whether the key's next step takes the sums.
  bool add(std::string const& key, std::vector<std::vector<T>> const& gradients) {
    sums& all = sums_[key];
    std::size_t const each = gradients.size() / ranks_;
    std::vector<std::vector<float>> next(ranks_, std::vector<float>(gradients[0].size()));
    for (std::size_t rank = 0; rank < ranks_; ++rank)
      for (std::size_t i = 0; i < next[rank].size(); ++i) {
        float total = convert<float>(gradients[rank * each][i]);
        for (std::size_t k = 1; k < each; ++k) total += convert<float>(gradients[rank * each + k][i]);
        total = total / divisor_;
        next[rank][i] = all.micro_batches == 0 ? total : total + all.of_rank[rank][i];
      }
    all.of_rank = std::move(next);
    return ++all.micro_batches >= micro_batches_;
  }
  /// The sums of the key, which then begins anew.
  std::vector<std::vector<T>> brought(std::string const& key) {
    sums& all = sums_[key];
    all.micro_batches = 0;
    std::vector<std::vector<T>> result;
    for (auto const& sum : all.of_rank) {
      result.emplace_back();
      for (float const x : sum) result.back().push_back(convert<T>(x));
    }
    return result;
  }

  Store* store_;
  std::size_t ranks_, micro_batches_;
  float divisor_;
  std::map<std::string, sums> sums_;
};

}  // namespace pushpull::test
