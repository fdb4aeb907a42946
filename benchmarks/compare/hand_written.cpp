// Loops that were written for the purpose: one over all operands, three steps one after the other, and in-place axpy.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "compare/contender.hpp"
#include "compare/flat.hpp"
#include "pass/hand_loops.hpp"
#include "pass/rules.hpp"

namespace pushpull::bench::compare {
namespace {

enum class form { loop, steps, steps_streaming };

/// Tensor by tensor. What `form` names is in pass/hand_loops.hpp.
template <class T, class Rule>
class written_step final : public contender {
 public:
  written_step(task const& t, form how) : how_(how), gradients_(t.gradients), mirrors_(t.mirrors) {
    for (auto const size : t.sizes) tensors_.emplace_back(cpu_device<>(), std::vector{size}, t, by_hand<Rule>::states);
  }

  void step() override {
    auto const rule = at_step(by_hand<Rule>{}, ++t_);
    for (auto& tensor : tensors_) {
      if (how_ == form::loop) {
        fused_loop(rule, tensor.get(), gradients_, mirrors_);
      } else {
        three_steps(rule, tensor.get(), how_ == form::steps_streaming);
      }
    }
  }

  std::vector<float> result(std::size_t j) override { return tensors_[j].result(0); }

 private:
  form how_;
  std::size_t gradients_, mirrors_;
  int t_ = 0;
  std::deque<filled_operands<T>> tensors_;  // they do not move
};

/// In-place axpy that moves as many bytes as the task: a bound on what memory allows, and no step.
class axpy_step final : public contender {
 public:
  explicit axpy_step(task const& t)
      : operands_(cpu_device<>(), detail::padded(static_cast<std::size_t>(t.moved_bytes() / 12)), 1, 0, 0) {}

  void step() override { axpy(operands_.weight, operands_.gradient[0], operands_.size); }
  std::vector<float> result(std::size_t) override { return {}; }
  double bytes() const override { return 12 * static_cast<double>(operands_.size); }

 private:
  operands<float> operands_;
};

/// f(i) for each given row, on all threads.
template <class F>
void for_each_row(std::int64_t rows, F const& f) {
  constexpr std::int64_t grain = 512;
  thrust::for_each_n(thrust::tbb::par, thrust::make_counting_iterator<std::int64_t>(0), (rows + grain - 1) / grain,
                     [&](std::int64_t task) {
                       for (std::int64_t i = task * grain; i < std::min(rows, (task + 1) * grain); ++i) f(i);
                     });
}

/// The rows one after the other as they come. No row stands twice, and nobody checks it.
template <class Rule>
class row_loop final : public contender {
  static constexpr std::size_t states = by_hand<Rule>::states;

 public:
  explicit row_loop(task const& t)
      : task_(t),
        ids_(row_ids(t)),
        values_(static_cast<std::size_t>(t.given_rows * t.row_length)),
        weight_(static_cast<std::size_t>(t.rows * t.row_length)),
        state_(states, std::vector<float>(weight_.size())) {
    fill_weight(weight_.data(), t.rows * t.row_length);
    fill_gradient(values_.data(), 0, t.given_rows * t.row_length);
  }

  void step() override {
    auto const rule = at_step(by_hand<Rule>{}, ++t_);
    std::int64_t const length = task_.row_length;
    for_each_row(task_.given_rows, [&](std::int64_t i) {
      std::int64_t const first = ids_[static_cast<std::size_t>(i)] * length;
      for (std::int64_t j = 0; j < length; j += lanes) {
        std::int64_t const at = first + j;
        vector_register w = load(weight_.data() + at), s[states + 1];
        for (std::size_t k = 0; k < states; ++k) s[k] = load(state_[k].data() + at);
        call(rule, w, load(values_.data() + i * length + j), [&](std::size_t k) -> vector_register& { return s[k]; });
        w.store_unaligned(weight_.data() + at);
        for (std::size_t k = 0; k < states; ++k) s[k].store_unaligned(state_[k].data() + at);
      }
    });
  }

  std::vector<float> result(std::size_t) override { return weight_; }

 private:
  task task_;
  int t_ = 0;
  std::vector<std::int64_t> ids_;
  std::vector<float> values_, weight_;
  std::vector<std::vector<float>> state_;
};

class row_gather final : public contender {
 public:
  explicit row_gather(task const& t)
      : task_(t),
        ids_(row_ids(t)),
        weight_(static_cast<std::size_t>(t.rows * t.row_length)),
        output_(static_cast<std::size_t>(t.given_rows * t.row_length)) {
    fill_weight(weight_.data(), t.rows * t.row_length);
  }

  /// By ascending ids, as a pull gives them.
  void step() override {
    std::vector<std::int64_t> sorted = ids_;
    std::sort(sorted.begin(), sorted.end());
    std::int64_t const length = task_.row_length;
    for_each_row(task_.given_rows, [&](std::int64_t i) {
      std::memcpy(output_.data() + i * length, weight_.data() + sorted[static_cast<std::size_t>(i)] * length,
                  static_cast<std::size_t>(length) * sizeof(float));
    });
  }

  std::vector<float> result(std::size_t) override { return output_; }

 private:
  task task_;
  std::vector<std::int64_t> ids_;
  std::vector<float> weight_, output_;
};

/// 2-bit codes as a plain loop makes them, and one that decodes, adds and updates.
class two_bit_loops final : public contender {
  static constexpr std::int64_t per_word = 16;

 public:
  explicit two_bit_loops(task const& t) : operands_(cpu_device<>(), t.sizes, t, 1) {
    if (t.rule != "momentum" || t.sizes.size() != 1)
      throw unsupported("2-bit codes with " + t.rule + " are not among the cases");
    auto const n = static_cast<std::size_t>(operands_.get().size);
    residual_.assign(t.gradients, std::vector<float>(n));
    codes_.assign(t.gradients, std::vector<std::uint32_t>(n / per_word));
  }

  void step() override {
    auto& o = operands_.get();
    for (std::size_t k = 0; k < codes_.size(); ++k) {
      for_ranges(o.size, [this, k, gradient = o.gradient[k]](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; i += per_word) {
          std::uint32_t word = 0;
          for (std::int64_t j = 0; j < per_word; ++j) {
            float& r = residual_[k][static_cast<std::size_t>(i + j)];
            r += gradient[i + j];
            std::uint32_t const code = r >= threshold ? 3U : (r <= -threshold ? 2U : 0U);
            r -= code == 3 ? threshold : (code == 2 ? -threshold : 0.0F);
            word |= code << (2 * j);
          }
          codes_[k][static_cast<std::size_t>(i / per_word)] = word;
        }
      });
    }
    auto const rule = at_step(by_hand<update::momentum>{}, 1);
    for_ranges(o.size, [this, rule, &o](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        float g = 0;
        for (auto const& codes : codes_) {
          std::uint32_t const code = codes[static_cast<std::size_t>(i / per_word)] >> (2 * (i % per_word)) & 3U;
          g += code == 3 ? threshold : (code == 2 ? -threshold : 0.0F);
        }
        rule(o.weight[i], g, o.state[0][i]);
        for (float* const mirror : o.mirror) mirror[i] = o.weight[i];
      }
    });
  }

  std::vector<float> result(std::size_t j) override { return operands_.result(j); }

 private:
  static constexpr float threshold = 0.5F;

  filled_operands<float> operands_;
  std::vector<std::vector<float>> residual_;
  std::vector<std::vector<std::uint32_t>> codes_;
};

std::unique_ptr<contender> written(task const& t, form how) {
  t.expect_step();
  return with_types(t, [&]<class T, class Rule>(T, Rule const&) -> std::unique_ptr<contender> {
    return std::make_unique<written_step<T, Rule>>(t, how);
  });
}

std::unique_ptr<contender> loop(task const& t, int) {
  if (t.operation == "pull_rows") return std::make_unique<row_gather>(t);
  if (t.operation == "two_bit") return std::make_unique<two_bit_loops>(t);
  if (t.operation != "push_rows") return written(t, form::loop);
  if (t.row_length % lanes != 0) throw unsupported("rows that are no whole vector registers");
  if (t.rule == "sgd") return std::make_unique<row_loop<update::sgd>>(t);
  if (t.rule == "adam") return std::make_unique<row_loop<update::adam>>(t);
  throw unsupported("rows with " + t.rule + " are not among the cases");
}

}  // namespace

std::vector<entry> hand_written_contenders() {
  return {{"loop", loop},
          {"three steps", [](task const& t, int) { return written(t, form::steps); }},
          {"three steps, streaming", [](task const& t, int) { return written(t, form::steps_streaming); }},
          {"axpy", [](task const& t, int) -> std::unique_ptr<contender> {
             t.expect_step();
             return std::make_unique<axpy_step>(t);
           }}};
}

}  // namespace pushpull::bench::compare
