/// @file
/// A recurrent network of gated units over characters: parameters in, gradients of the summed loss out, in host memory.
#pragma once

#define EIGEN_DONT_PARALLELIZE  // the devices of the trainer are the threads
// GCC 12 takes the undefined register in its own AVX-512 intrinsics for a mistake of ours (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <Eigen/Core>
#pragma GCC diagnostic pop
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace train_bucketing {

struct gru_shape {
  std::size_t symbols = 0;  ///< different characters
  std::size_t hidden = 0;
};

/// Where the parameters (T const) or their gradients (T) begin; matrices are row-major.
template <class T>
struct gru_pointers {
  T* embedding;  ///< (symbols, 3 hidden): what a character adds to the reset gate, the update gate and the candidate
  T* recurrent_weight;  ///< (3 hidden, hidden)
  T* recurrent_bias;    ///< (hidden), of the candidate; biases of the gates are parts of the embedding
  T* output_weight;     ///< (symbols, hidden)
  T* output_bias;       ///< (symbols)
};

/// A layer of gated recurrent units (Cho et al. 2014, https://arxiv.org/abs/1406.1078; the reset gate after the product, as cuDNN
/// has it), then softmax and cross-entropy at every place of a sequence:
///   r = sigmoid(e_r + U_r h), z = sigmoid(e_z + U_z h), n = tanh(e_n + r (U_n h + b)), h' = (1 - z) n + z h.
/// Symbol 0 is padding: its places have no loss. Holds the activations of one batch, so one object serves one thread.
/// @tparam T  float, or double for checks.
template <class T>
class gru {
 public:
  explicit gru(gru_shape of) : of_{of} {}

  /// Probabilities of the symbol that follows each place, (rows, length, symbols), of rows that begin in state 0.
  void forward(gru_pointers<T const> const& p, std::span<std::uint8_t const> symbols, std::size_t rows,
               T* probability) {
    reserve(rows, rows == 0 ? 0 : symbols.size() / rows);
    for (std::size_t t = 0; t < length_; ++t) step(p, symbols, t);
    if (length_ == 0) return;
    logits_.noalias() =
        states_.bottomRows(index(rows_ * length_)) * map(p.output_weight, of_.symbols, of_.hidden).transpose();
    for (std::size_t b = 0; b < rows_; ++b)
      for (std::size_t t = 0; t < length_; ++t)
        softmax(&logits_(index(t * rows_ + b), 0), p.output_bias, probability + (b * length_ + t) * of_.symbols);
  }

  /// Overwrites `gradients` with those of the sum over rows of the mean over places of -ln p(label), after `forward`, whose arguments
  /// it gets again.
  void backward(gru_pointers<T const> const& p, std::span<std::uint8_t const> symbols,
                std::span<std::uint8_t const> labels, T const* probability, gru_pointers<T> const& gradients) {
    auto const hidden = index(of_.hidden);
    embedding_.setZero(index(of_.symbols), 3 * hidden);
    recurrent_.setZero(3 * hidden, hidden);
    recurrent_bias_.setZero(hidden);
    output_bias_.setZero(index(of_.symbols));
    output_errors(labels, probability);
    output_.noalias() = logits_.transpose() * states_.bottomRows(logits_.rows());
    state_errors_.noalias() = logits_ * map(p.output_weight, of_.symbols, of_.hidden);
    error_.setZero(index(rows_), hidden);  // of the state after place t, from later places
    for (std::size_t t = length_; t-- > 0;) {
      auto& s = steps_[t];
      auto const before = state(t);
      error_ += state_errors_.middleRows(index(t * rows_), index(rows_));
      for (Eigen::Index b = 0; b < error_.rows(); ++b)
        for (Eigen::Index i = 0; i < hidden; ++i) {
          T const r = s.gates(b, i), z = s.gates(b, hidden + i), n = s.gates(b, 2 * hidden + i), d = error_(b, i);
          T const dn = d * (1 - z) * (1 - n * n);
          T const dr = dn * s.product(b, 2 * hidden + i) * r * (1 - r), dz = d * (before(b, i) - n) * z * (1 - z);
          inner_(b, i) = dr;
          inner_(b, hidden + i) = dz;
          inner_(b, 2 * hidden + i) = dn * r;
          candidate_(b, i) = dn;
          error_(b, i) = d * z;
        }
      recurrent_.noalias() += inner_.transpose() * before;
      error_.noalias() += inner_ * map(p.recurrent_weight, 3 * of_.hidden, of_.hidden);
      for (std::size_t b = 0; b < rows_; ++b) {
        auto row = embedding_.row(symbols[b * length_ + t]);
        row.head(2 * hidden) += inner_.row(index(b)).head(2 * hidden);
        row.tail(hidden) += candidate_.row(index(b));
        recurrent_bias_ += inner_.row(index(b)).tail(hidden);
      }
    }
    copy(embedding_, gradients.embedding);
    copy(recurrent_, gradients.recurrent_weight);
    copy(recurrent_bias_, gradients.recurrent_bias);
    copy(output_, gradients.output_weight);
    copy(output_bias_, gradients.output_bias);
  }

 private:
  // Sums and functions run over matrices of our own: Eigen's choice between vector and scalar code depends on where memory begins,
  // and with it the last bits. Products do not.
  using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using row_vector = Eigen::Matrix<T, 1, Eigen::Dynamic>;
  struct place {
    matrix gates;    // (rows, 3 hidden): r, z, n
    matrix product;  // (rows, 3 hidden): U h, with the bias in the candidate's part
  };

  static Eigen::Index index(std::size_t i) { return static_cast<Eigen::Index>(i); }
  static Eigen::Map<matrix const> map(T const* data, std::size_t rows, std::size_t columns) {
    return {data, index(rows), index(columns)};
  }
  template <class M>
  static void copy(M const& from, T* to) {
    std::copy_n(from.data(), from.size(), to);
  }

  void reserve(std::size_t rows, std::size_t length) {
    rows_ = rows;
    length_ = length;
    if (steps_.size() < length) steps_.resize(length);
    auto const r = index(rows), h = index(of_.hidden);
    states_.resize(index(rows * (length + 1)), h);  // before place 0, after place 0, ...
    states_.topRows(r).setZero();
    inner_.resize(r, 3 * h);
    candidate_.resize(r, h);
  }
  auto state(std::size_t t) const { return states_.middleRows(index(t * rows_), index(rows_)); }

  void step(gru_pointers<T const> const& p, std::span<std::uint8_t const> symbols, std::size_t t) {
    auto const hidden = of_.hidden;
    auto& s = steps_[t];
    s.product.noalias() = state(t) * map(p.recurrent_weight, 3 * hidden, hidden).transpose();
    s.gates.resize(index(rows_), index(3 * hidden));
    for (std::size_t b = 0; b < rows_; ++b) {
      T const* const e = p.embedding + symbols[b * length_ + t] * 3 * hidden;
      T* const u = &s.product(index(b), 0);
      T* const g = &s.gates(index(b), 0);
      for (std::size_t i = 0; i < 2 * hidden; ++i) g[i] = e[i] + u[i];
      for (std::size_t i = 0; i < hidden; ++i) u[2 * hidden + i] += p.recurrent_bias[i];
    }
    s.gates.leftCols(index(2 * hidden)) = s.gates.leftCols(index(2 * hidden)).array().logistic();
    for (std::size_t b = 0; b < rows_; ++b) {
      T const* const e = p.embedding + symbols[b * length_ + t] * 3 * hidden;
      for (std::size_t i = 0; i < hidden; ++i)
        s.gates(index(b), index(2 * hidden + i)) =
            e[2 * hidden + i] + s.gates(index(b), index(i)) * s.product(index(b), index(2 * hidden + i));
    }
    s.gates.rightCols(index(hidden)) = s.gates.rightCols(index(hidden)).array().tanh();
    auto const z = s.gates.middleCols(index(hidden), index(hidden)).array();
    auto const n = s.gates.rightCols(index(hidden)).array();
    states_.middleRows(index((t + 1) * rows_), index(rows_)) = ((T{1} - z) * n + z * state(t).array()).matrix();
  }

  void softmax(T const* logits, T const* bias, T* probability) const {
    T largest = logits[0] + bias[0];
    for (std::size_t k = 1; k < of_.symbols; ++k) largest = std::max(largest, logits[k] + bias[k]);
    T sum = 0;
    for (std::size_t k = 0; k < of_.symbols; ++k) sum += probability[k] = std::exp(logits[k] + bias[k] - largest);
    for (std::size_t k = 0; k < of_.symbols; ++k) probability[k] /= sum;
  }

  /// Puts the gradients of the logits in their place, and sums those of the bias.
  void output_errors(std::span<std::uint8_t const> labels, T const* probability) {
    T const scale = 1 / static_cast<T>(length_);
    for (std::size_t b = 0; b < rows_; ++b)
      for (std::size_t t = 0; t < length_; ++t) {
        auto const at = b * length_ + t;
        T* const error = &logits_(index(t * rows_ + b), 0);
        T const counts = labels[at] == 0 ? 0 : scale;
        for (std::size_t k = 0; k < of_.symbols; ++k) error[k] = counts * probability[at * of_.symbols + k];
        error[labels[at]] -= counts;
        for (std::size_t k = 0; k < of_.symbols; ++k) output_bias_(index(k)) += error[k];
      }
  }

  gru_shape of_;
  std::size_t rows_ = 0, length_ = 0;
  std::vector<place> steps_;
  matrix states_, logits_, state_errors_, error_, inner_, candidate_;
  matrix embedding_, recurrent_, output_;
  row_vector recurrent_bias_, output_bias_;
};

}  // namespace train_bucketing
