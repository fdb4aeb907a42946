/// @file
/// The layer above a store: batches, executors, modules. Opt-in: pushpull.hpp does not include it. Needs nlohmann-json, for files.
#pragma once

#include <pushpull/config.hpp>  // first: it refuses what the library cannot be compiled with

#include <pushpull/pushpull.hpp>
#include <pushpull/train/batch.hpp>
#include <pushpull/train/bucketing_module.hpp>
#include <pushpull/train/buffer_pool.hpp>
#include <pushpull/train/callbacks/callback.hpp>
#include <pushpull/train/callbacks/checkpoint_every.hpp>
#include <pushpull/train/callbacks/clock.hpp>
#include <pushpull/train/callbacks/early_stopping.hpp>
#include <pushpull/train/callbacks/history.hpp>
#include <pushpull/train/callbacks/progress_bar.hpp>
#include <pushpull/train/callbacks/speedometer.hpp>
#include <pushpull/train/data/array_source.hpp>
#include <pushpull/train/data/batch_buffer.hpp>
#include <pushpull/train/data/csv.hpp>
#include <pushpull/train/data/data_source.hpp>
#include <pushpull/train/data/prefetcher.hpp>
#include <pushpull/train/data/range_source.hpp>
#include <pushpull/train/data/shuffle.hpp>
#include <pushpull/train/descriptor.hpp>
#include <pushpull/train/executor.hpp>
#include <pushpull/train/executor_factory.hpp>
#include <pushpull/train/executor_group.hpp>
#include <pushpull/train/grad_request.hpp>
#include <pushpull/train/initializers/by_name.hpp>
#include <pushpull/train/initializers/distributions.hpp>
#include <pushpull/train/initializers/initializer.hpp>
#include <pushpull/train/initializers/xavier.hpp>
#include <pushpull/train/metrics/classification.hpp>
#include <pushpull/train/metrics/composite.hpp>
#include <pushpull/train/metrics/metric.hpp>
#include <pushpull/train/metrics/metric_sums.hpp>
#include <pushpull/train/metrics/regression.hpp>
#include <pushpull/train/metrics/sample_metric.hpp>
#include <pushpull/train/module.hpp>
#include <pushpull/train/monitor.hpp>
#include <pushpull/train/name_pattern.hpp>
#include <pushpull/train/optimizer/table_optimizer.hpp>
#include <pushpull/train/slicing.hpp>
