#!/usr/bin/env python3
"""Records what the schedulers of PyTorch, optax and MXNet give, for this library's tests to compare with.

Usage: record_schedules.py LR_SCHEDULER [OUTPUT]

LR_SCHEDULER is mxnet/lr_scheduler.py out of a wheel of MXNet, which needs nothing else of MXNet (see README.md); OUTPUT
is recorded_values.hpp beside this script unless given. Each schedule is asked for the rates of the updates 1 ... 40 in
order: PyTorch's as the optimizer's rate before each scheduler.step(), optax's with a count of t - 1, MXNet's with
num_update = t.
"""

import importlib.util
import sys
import warnings
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import optax
import torch
from torch.optim import lr_scheduler

UPDATES = 40
LINE_WIDTH = 120


def optimizer(rate, momentum=0.0):
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate, momentum=momentum)


def pytorch(make, rate=0.1, key="lr", momentum=0.0):
    o = optimizer(rate, momentum)
    scheduler = make(o)
    values = []
    for _ in range(UPDATES):
        values.append(float(o.param_groups[0][key]))
        o.step()
        scheduler.step()
    return values


def pytorch_plateau(metrics, **arguments):
    o = optimizer(0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(o, **arguments)
    values = []
    for metric in metrics:
        scheduler.step(metric)
        values.append(float(o.param_groups[0]["lr"]))
    return values


def sequential(o):
    parts = [
        lr_scheduler.ConstantLR(o, factor=0.5, total_iters=100),
        lr_scheduler.CosineAnnealingLR(o, T_max=12, eta_min=0.01),
        lr_scheduler.ExponentialLR(o, gamma=0.9),
    ]
    return lr_scheduler.SequentialLR(o, parts, milestones=[5, 17])


def warm_up_cosine(o):
    parts = [
        lr_scheduler.LinearLR(o, start_factor=0.01, end_factor=1.0, total_iters=8),
        lr_scheduler.CosineAnnealingLR(o, T_max=32),
    ]
    return lr_scheduler.SequentialLR(o, parts, milestones=[8])


def metrics():
    """Falls, stays, falls a little, rises: the same formula stands in the test."""
    return [1.0 / (1 + t // 4 * 0.5) if t < 20 else 0.3 + 0.00001 * (t % 3) for t in range(UPDATES)]


def pytorch_schedules():
    s = lr_scheduler
    yield "StepLR", pytorch(lambda o: s.StepLR(o, step_size=7))
    yield "StepLR half", pytorch(lambda o: s.StepLR(o, step_size=1, gamma=0.5))
    yield "MultiStepLR", pytorch(lambda o: s.MultiStepLR(o, milestones=[1, 5, 6, 30]))
    yield "ConstantLR", pytorch(lambda o: s.ConstantLR(o))
    yield "LinearLR", pytorch(lambda o: s.LinearLR(o))
    yield "LinearLR down", pytorch(lambda o: s.LinearLR(o, start_factor=1.0, end_factor=0.1, total_iters=23))
    yield "ExponentialLR", pytorch(lambda o: s.ExponentialLR(o, gamma=0.93))
    yield "PolynomialLR", pytorch(lambda o: s.PolynomialLR(o, total_iters=29))
    yield "PolynomialLR 1.7", pytorch(lambda o: s.PolynomialLR(o, total_iters=40, power=1.7))
    yield "CosineAnnealingLR", pytorch(lambda o: s.CosineAnnealingLR(o, T_max=39, eta_min=0.003))
    yield "CosineAnnealingWarmRestarts", pytorch(lambda o: s.CosineAnnealingWarmRestarts(o, T_0=7))
    yield "CosineAnnealingWarmRestarts 2", pytorch(
        lambda o: s.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.02))
    cyclic = dict(base_lr=0.01, max_lr=0.06, cycle_momentum=False)
    yield "CyclicLR triangular", pytorch(lambda o: s.CyclicLR(o, step_size_up=5, **cyclic))
    yield "CyclicLR triangular2", pytorch(
        lambda o: s.CyclicLR(o, step_size_up=3, step_size_down=6, mode="triangular2", **cyclic))
    yield "CyclicLR exp_range", pytorch(
        lambda o: s.CyclicLR(o, step_size_up=6, step_size_down=2, mode="exp_range", gamma=0.97, **cyclic))
    yield "CyclicLR momentum", pytorch(
        lambda o: s.CyclicLR(o, base_lr=0.01, max_lr=0.06, step_size_up=5), key="momentum", momentum=0.9)
    for name, arguments in (
        ("OneCycleLR", dict()),
        ("OneCycleLR linear", dict(pct_start=0.37, anneal_strategy="linear", div_factor=10.0, final_div_factor=100.0)),
        ("OneCycleLR three phases", dict(pct_start=0.45, three_phase=True)),
    ):
        make = lambda o: s.OneCycleLR(o, max_lr=0.5, total_steps=UPDATES, **arguments)
        yield name, pytorch(make, momentum=0.9)
        yield name + " momentum", pytorch(make, key="momentum", momentum=0.9)
    yield "SequentialLR", pytorch(sequential)
    yield "LinearLR, CosineAnnealingLR", pytorch(warm_up_cosine)
    yield "ReduceLROnPlateau", pytorch_plateau(metrics(), patience=2)
    yield "ReduceLROnPlateau cooldown", pytorch_plateau(metrics(), patience=0, factor=0.5, cooldown=3, min_lr=0.02)
    yield "ReduceLROnPlateau max", pytorch_plateau(
        [-m for m in metrics()], mode="max", patience=1, factor=0.7, threshold=0.01, threshold_mode="abs")


def optax_schedules():
    ask = lambda schedule: [float(schedule(t - 1)) for t in range(1, UPDATES + 1)]
    yield "linear_schedule", ask(optax.linear_schedule(0.01, 0.2, 13))
    yield "polynomial_schedule", ask(optax.polynomial_schedule(0.1, 0.001, 2.5, 31))
    yield "cosine_decay_schedule", ask(optax.cosine_decay_schedule(0.1, 25, alpha=0.1))
    yield "exponential_decay", ask(optax.exponential_decay(0.1, 6, 0.5))
    yield "exponential_decay staircase", ask(optax.exponential_decay(0.1, 6, 0.5, staircase=True))
    yield "warmup_constant_schedule", ask(optax.warmup_constant_schedule(0.02, 0.1, 9))
    yield "warmup_cosine_decay_schedule", ask(optax.warmup_cosine_decay_schedule(0.0, 0.1, 9, 33, 0.01))
    parts = [optax.linear_schedule(0.0, 0.1, 6), optax.constant_schedule(0.1), optax.linear_schedule(0.1, 0.01, 12)]
    yield "join_schedules", ask(optax.join_schedules(parts, [6, 20]))


def mxnet_schedules(path):
    spec = importlib.util.spec_from_file_location("lr_scheduler", path)
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    ask = lambda scheduler: [float(scheduler(t)) for t in range(1, UPDATES + 1)]
    linear = dict(warmup_steps=9, warmup_begin_lr=0.02)
    constant = dict(warmup_steps=9, warmup_begin_lr=0.02, warmup_mode="constant")
    for name, warm_up in (("", {}), (" linear", linear), (" constant", constant)):
        yield "FactorScheduler" + name, ask(m.FactorScheduler(7, 0.6, base_lr=0.1, **warm_up))
        yield "FactorScheduler stop" + name, ask(
            m.FactorScheduler(4, 0.3, stop_factor_lr=0.005, base_lr=0.1, **warm_up))
        yield "MultiFactorScheduler" + name, ask(m.MultiFactorScheduler([5, 12, 13], 0.5, base_lr=0.1, **warm_up))
        yield "PolyScheduler" + name, ask(m.PolyScheduler(33, base_lr=0.1, final_lr=0.004, **warm_up))
        yield "CosineScheduler" + name, ask(m.CosineScheduler(33, base_lr=0.1, final_lr=0.004, **warm_up))


HEADER = """\
/// @file
/// What the schedulers of PyTorch @TORCH@, optax @OPTAX@ (with 64-bit values) and MXNet 1.9.1 give for the updates
/// 1 ... 40, to compare this library's with.
///
/// Written by record_schedules.py, which see for their parameters; do not edit. ReduceLROnPlateau's values are the
/// rates after each of 40 metrics.
#pragma once

#include <array>
#include <string_view>

namespace lr_schedule_reference {

inline constexpr int updates = 40;

/// The rates of one scheduler: values[t - 1] is that of update t.
struct record {
  std::string_view name;
  std::array<double, updates> values;
};

// clang-format off
inline constexpr std::array<record, @COUNT@> records{{
@RECORDS@
}};
// clang-format on

}  // namespace lr_schedule_reference
"""


def text_of(name, values):
    lines = [f'    {{"{name}",', "     {"]
    for n, value in enumerate(values):
        item = repr(value) + ("," if n + 1 < len(values) else "}},")
        if lines[-1] != "     {" and len(lines[-1]) + 1 + len(item) > LINE_WIDTH:
            lines.append("      ")
        lines[-1] += item if lines[-1].endswith("{") or lines[-1].isspace() else " " + item
    return "\n".join(lines)


def main():
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("recorded_values.hpp")
    warnings.simplefilter("ignore")  # PyTorch's about steps behind the end
    records = [text_of(prefix + " " + name, values) for prefix, schedules in (
        ("PyTorch", pytorch_schedules()),
        ("optax", optax_schedules()),
        ("MXNet", mxnet_schedules(sys.argv[1])),
    ) for name, values in schedules]
    text = HEADER
    for mark, value in (("TORCH", torch.__version__.split("+")[0]), ("OPTAX", optax.__version__),
                        ("COUNT", str(len(records))), ("RECORDS", "\n".join(records))):
        text = text.replace(f"@{mark}@", value)
    output.write_text(text)


if __name__ == "__main__":
    main()
