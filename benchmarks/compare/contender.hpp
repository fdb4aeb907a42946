/// @file
/// What contenders are asked to do, the numbers that they start from, and what the driver expects of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <pushpull/pushpull.hpp>

namespace pushpull::bench::compare {

/// The contender has no means of doing what it was asked for.
struct unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One case: `gradients` sources are summed, the rule is applied to the weights, `mirrors` further arrays receive them.
struct task {
  std::string operation = "step";  ///< step, two_bit (a step from compressed gradients), push_rows, pull_rows
  std::string rule = "sgd";        ///< With the library's default hyperparameters.
  std::string element = "float";   ///< Of gradients and mirrors; weights and states are float.
  std::size_t gradients = 1, mirrors = 0;
  std::vector<std::int64_t> sizes;                        ///< Elements of each tensor.
  std::vector<std::int64_t> columns;                      ///< Of each tensor, if they are matrices.
  std::int64_t rows = 0, row_length = 0, given_rows = 0;  ///< Of the table, of a row, of a push or pull of rows.

  /// The least that a step moves: see compare.py.
  std::int64_t moved_bytes() const;

  void expect_step() const;   ///< @throws unsupported if the operation is another
  void expect_float() const;  ///< @throws unsupported if gradients have another type
};

/// Words of the form name=value. @throws std::invalid_argument
task parse_task(std::string const& line);

/// Inputs repeat after this many elements: cheap to make, the same in every language, and exact in bfloat16.
inline constexpr std::int64_t period = std::int64_t{1} << 16;
std::array<float, period> const& input_table();

inline float weight_at(std::int64_t i) { return 1 + input_table()[static_cast<std::size_t>((i + 12289) % period)]; }
inline float gradient_at(std::size_t source, std::int64_t i) {
  return input_table()[static_cast<std::size_t>((i + 4099 * static_cast<std::int64_t>(source)) % period)];
}
/// The rows of a push or pull: different ones, in no order.
std::vector<std::int64_t> row_ids(task const& t);

/// The elements of one tensor.
template <class T>
void fill_gradient(T* to, std::size_t source, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = convert<T>(gradient_at(source, i));
}
inline void fill_weight(float* to, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = weight_at(i);
}

/// Whoever does the task.
class contender {
 public:
  virtual ~contender() = default;
  /// One step; on CPUs finished when it returns.
  virtual void step() = 0;
  /// Returns when all steps are finished.
  virtual void finish() {}
  /// The last mirror of a tensor, or the weights if there is none. Empty: the contender computes something else.
  virtual std::vector<float> result(std::size_t tensor) = 0;
  /// What a step moves if that is not what the task has to; 0: it is.
  virtual double bytes() const { return 0; }
};

struct entry {
  std::string name;
  std::function<std::unique_ptr<contender>(task const&, int threads)> make;  ///< @throws unsupported
};

/// Who takes part in this program.
std::vector<entry> contenders();

/// f(rule) for the rule that a task names. @throws unsupported
template <class F>
std::unique_ptr<contender> with_rule(task const& t, F const& f) {
  if (t.rule == "sgd") return f(update::sgd{});
  if (t.rule == "momentum") return f(update::momentum{});
  if (t.rule == "adam") return f(update::adam{});
  if (t.rule == "adamw") return f(update::adamw{});
  throw unsupported("no rule " + t.rule);
}

/// As above; with gradients of 16 bits only what the cases ask for is compiled.
template <class F>
std::unique_ptr<contender> with_types(task const& t, F const& f) {
  if (t.element == "float") return with_rule(t, [&](auto rule) { return f(float{}, rule); });
  if (t.element == "bfloat16" && t.rule == "adamw") return f(bfloat16{}, update::adamw{});
  throw unsupported(t.rule + " of " + t.element + " is not among the cases");
}

std::vector<entry> our_contenders();
std::vector<entry> hand_written_contenders();
std::vector<entry> thrust_contenders();
std::vector<entry> eigen_contenders();

}  // namespace pushpull::bench::compare
