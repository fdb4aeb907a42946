#!/usr/bin/env python3
"""Records what PyTorch's optimizers make of ten known gradients, for this library's tests to compare with.

Usage: record_pytorch.py [OUTPUT]    (OUTPUT: pytorch_values.hpp beside this script unless given)

No random generator takes part. Every input comes from one formula, which pytorch_inputs.hpp repeats in C++:

    formula(i, s) = ((i * 2654435761 + s * 3266489917 + 12345) mod 2^32) / 2^32 * 2 - 1

in double precision, then rounded to float32, whatever type the optimizer runs in. Element i of the weights starts at
formula(i, 0). Its gradient in step k, with k = 1 ... 10, is formula(i, k), and an eighth of that where k is a multiple
of 3, so that a clipped gradient is not clipped in every step. The first parameter has the elements i = 0 ... 6. Where
there is a second parameter, it has the elements i = 7 ... 11.
"""

import sys
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

STEPS = 10
RECORDED_STEPS = (1, 10)
LONGEST = 7
MOST_STATES = 2
LINE_WIDTH = 120


def formula(i, s):
    x = (i * 2654435761 + s * 3266489917 + 12345) % 2**32
    return torch.tensor(x / 2**32 * 2 - 1, dtype=torch.float64).to(torch.float32).item()


def gradient(i, k):
    return formula(i, k) * (0.125 if k % 3 == 0 else 1.0)


def no_clipping(parameters):
    pass


def clip_norm(parameters):
    clip_grad_norm_(parameters, max_norm=0.5, foreach=False)


def clip_value(parameters):
    clip_grad_value_(parameters, clip_value=0.3, foreach=False)


# Each trajectory: its name, the optimizer and its arguments, the sizes of the parameters, what is done to the gradients
# before each step, how that is written, and the optimizer's state in the order it is recorded in.
ONE = (7,)
TWO = (7, 5)
ADAM_STATE = ("exp_avg", "exp_avg_sq")
TRAJECTORIES = (
    ("sgd", torch.optim.SGD, dict(lr=0.1), ONE, no_clipping, "", ()),
    ("sgd_momentum", torch.optim.SGD, dict(lr=0.1, momentum=0.9), ONE, no_clipping, "", ("momentum_buffer",)),
    ("sgd_nesterov", torch.optim.SGD, dict(lr=0.1, momentum=0.9, dampening=0, nesterov=True), ONE, no_clipping, "",
     ("momentum_buffer",)),
    ("sgd_momentum_weight_decay", torch.optim.SGD, dict(lr=0.1, momentum=0.9, weight_decay=0.01), ONE, no_clipping, "",
     ("momentum_buffer",)),
    ("adam", torch.optim.Adam, dict(lr=1e-2), ONE, no_clipping, "", ADAM_STATE),
    ("adam_weight_decay", torch.optim.Adam, dict(lr=1e-2, weight_decay=0.01), ONE, no_clipping, "", ADAM_STATE),
    ("adamw", torch.optim.AdamW, dict(lr=1e-2, weight_decay=0.1), ONE, no_clipping, "", ADAM_STATE),
    ("adam_clip_norm", torch.optim.Adam, dict(lr=1e-2), TWO, clip_norm, "clip_grad_norm_(max_norm=0.5), ", ADAM_STATE),
    ("adam_clip_value", torch.optim.Adam, dict(lr=1e-2), ONE, clip_value, "clip_grad_value_(clip_value=0.3), ",
     ADAM_STATE),
)


def run(trajectory, dtype):
    """Yields (parameter, step, offset, weight, states) for each parameter after each recorded step."""
    _, optimizer_class, arguments, sizes, clip, _, state_names = trajectory
    offsets = [sum(sizes[:p]) for p in range(len(sizes))]
    parameters = [
        torch.nn.Parameter(torch.tensor([formula(offset + j, 0) for j in range(size)], dtype=dtype))
        for offset, size in zip(offsets, sizes)
    ]
    optimizer = optimizer_class(parameters, foreach=False, **arguments)
    for step in range(1, STEPS + 1):
        for parameter, offset in zip(parameters, offsets):
            values = [gradient(offset + j, step) for j in range(parameter.numel())]
            parameter.grad = torch.tensor(values, dtype=dtype)
        clip(parameters)
        optimizer.step()
        if step in RECORDED_STEPS:
            for p, parameter in enumerate(parameters):
                state = {name: value for name, value in optimizer.state[parameter].items() if value is not None}
                assert set(state) - {"step"} == set(state_names), (trajectory[0], sorted(state))
                assert float(state.get("step", step)) == step
                states = [(name, state[name].tolist()) for name in state_names]
                yield p, step, offsets[p], parameter.detach().tolist(), states


def literal(value, dtype):
    digits, suffix = (17, "") if dtype == torch.float64 else (9, "f")
    text = f"{value:.{digits}g}"
    return text + ("" if any(c in text for c in ".e") else ".0") + suffix


def braced(opening, values, dtype, closing):
    """The values between an opening and a closing, broken into lines that are indented to the opening's end."""
    lines, line = [], opening
    for n, value in enumerate(values):
        text = literal(value, dtype) + (", " if n + 1 < len(values) else "")
        if len(line) + len(text.rstrip()) + len(closing) > LINE_WIDTH:
            lines.append(line.rstrip())
            line = " " * len(opening)
        line += text
    return lines + [line + closing]


def records(dtype):
    lines, count = [], 0
    for trajectory in TRAJECTORIES:
        name, optimizer_class, arguments, _, _, clipping, _ = trajectory
        call = ", ".join(f"{key}={value}" for key, value in arguments.items())
        lines.append(f"    // {clipping}{optimizer_class.__name__}({call})")
        for parameter, step, offset, weight, states in run(trajectory, dtype):
            count += 1
            assert len(weight) <= LONGEST and len(states) <= MOST_STATES
            lines.append(f'    {{"{name}", {parameter}, {step}, {offset}, {len(weight)}, {len(states)},')
            lines += braced("     {", weight, dtype, "},")
            if not states:
                lines.append("     {}},")
            for n, (state_name, values) in enumerate(states):
                opening = ("     {{" if n == 0 else "       ") + f'{{"{state_name}", {{'
                lines += braced(opening, values, dtype, "}}," if n + 1 < len(states) else "}}}}},")
    return lines, count


HEADER = """\
/// @file
/// What PyTorch's optimizers make of ten known gradients, to compare this library's rules with.
///
/// Written by record_pytorch.py, which see; do not edit. Recorded with PyTorch @VERSION@ from CPU tensors of float64
/// and of float32, one parameter at a time (foreach=False), after steps 1 and 10. What an optimizer's comment does not
/// name is PyTorch's default: for Adam and AdamW, betas=(0.9, 0.999) and eps=1e-8. weight_decay is coupled (added to
/// the gradient) in SGD and Adam, decoupled in AdamW. clip_grad_norm_ takes the norm over both parameters and scales by
/// min(1, max_norm / (norm + 1e-6)).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "update/reference/pytorch_inputs.hpp"

namespace pytorch_reference {

@CHECKS@

inline constexpr std::size_t longest = @LONGEST@;
inline constexpr std::size_t most_states = @MOST_STATES@;

/// One tensor of an optimizer's state, under PyTorch's name for it.
template <class T>
struct named_state {
  std::string_view name;
  std::array<T, longest> values;
};

/// One parameter of one trajectory after one step. Its element j is element offset + j of the formulas above. Of weight
/// and of each state the first `size` values count, and of states the first `state_count`.
template <class T>
struct record {
  std::string_view trajectory;
  int parameter;
  int step;
  std::uint32_t offset;
  std::size_t size;
  std::size_t state_count;
  std::array<T, longest> weight;
  std::array<named_state<T>, most_states> states;
};

// clang-format off
@ARRAYS@
// clang-format on

/// The records of an optimizer that ran in T, which is double or float.
template <class T>
constexpr auto const& records() {
  static_assert(std::is_same_v<T, double> || std::is_same_v<T, float>);
  if constexpr (std::is_same_v<T, double>) {
    return float64_records;
  } else {
    return float32_records;
  }
}

}  // namespace pytorch_reference
"""


def array(name, element, dtype):
    lines, count = records(dtype)
    opening = f"inline constexpr std::array<record<{element}>, {count}> {name}{{{{"
    return "\n".join([opening, *lines, "}};"])


def checks():
    examples = [("initial_weight", (0,), formula(0, 0)), ("initial_weight", (11,), formula(11, 0))]
    examples += [("gradient", (i, k), gradient(i, k)) for i, k in ((0, 1), (6, 9), (11, 10))]
    return "\n".join(
        f"static_assert({name}({', '.join(map(str, at))}) == {literal(value, torch.float32)});"
        for name, at, value in examples
    )


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("pytorch_values.hpp")
    torch.set_num_threads(1)
    text = HEADER
    for mark, value in (
        ("VERSION", torch.__version__.split("+")[0]),
        ("CHECKS", checks()),
        ("LONGEST", str(LONGEST)),
        ("MOST_STATES", str(MOST_STATES)),
        ("ARRAYS", "\n\n".join((array("float64_records", "double", torch.float64),
                                array("float32_records", "float", torch.float32)))),
    ):
        text = text.replace(f"@{mark}@", value)
    output.write_text(text)


if __name__ == "__main__":
    main()
