/// @file
/// Finds and reads the dataset that the options name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "dataset.hpp"
#include "digits.hpp"
#include "idx.hpp"
#include "input_error.hpp"
#include "options.hpp"

namespace train_classifier {

namespace detail {

/// @throws input_error that tells where to get `file` if `folder` does not have it.
inline std::filesystem::path existing(std::filesystem::path const& folder, std::string const& file,
                                      std::string const& remedy) {
  std::error_code ignored;  // a folder that cannot be searched has nothing for us
  auto path = folder / file;
  if (!std::filesystem::is_regular_file(path, ignored)) throw input_error{path.string() + " is missing: " + remedy};
  return path;
}

/// The examples' data lie beside the sources, which __FILE__ names.
inline std::filesystem::path default_digits_folder() {
  return std::filesystem::path{__FILE__}.parent_path().parent_path() / "data";
}

inline training_and_test load_digits(std::optional<std::filesystem::path> const& data_dir) {
  auto const folder = data_dir.value_or(default_digits_folder());
  auto const remedy =
      "--data-dir has to name the folder of digits.csv.gz (pushpull's examples/data, Debian package python3-sklearn)";
  return split_digits(read_digits(existing(folder, "digits.csv.gz", remedy)));
}

inline training_and_test load_fashion_mnist(std::optional<std::filesystem::path> const& data_dir) {
  auto const folder = data_dir.value_or("/usr/share/datasets/fashion-mnist");
  auto const file = [&](char const* name) {
    return existing(folder, name,
                    "install the Debian package dataset-fashion-mnist or name its folder with --data-dir");
  };
  // All four are looked for before the first is read, so that a missing one is known at once.
  auto const training_images = file("train-images-idx3-ubyte.gz"), training_labels = file("train-labels-idx1-ubyte.gz");
  auto const test_images = file("t10k-images-idx3-ubyte.gz"), test_labels = file("t10k-labels-idx1-ubyte.gz");
  return {read_idx(training_images, training_labels), read_idx(test_images, test_labels)};
}

}  // namespace detail

/// The centred images of the chosen dataset.
/// @throws input_error if a file is missing or damaged.
inline training_and_test load(options const& chosen) {
  auto data = chosen.dataset == dataset_name::digits ? detail::load_digits(chosen.data_dir)
                                                     : detail::load_fashion_mnist(chosen.data_dir);
  center(data);
  return data;
}

}  // namespace train_classifier
