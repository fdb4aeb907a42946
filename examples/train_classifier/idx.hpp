/// @file
/// Reader of images and labels in the IDX format of MNIST and Fashion-MNIST, compressed with gzip.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "dataset.hpp"
#include "gzip.hpp"
#include "input_error.hpp"

namespace train_classifier {

namespace detail {

inline constexpr std::size_t idx_side = 28;  // pixels; the only size these datasets come in

/// An IDX file: 00 00, element type 08 (bytes), rank, one big-endian 32-bit extent per dimension, then the elements.
class idx_file {
 public:
  idx_file(std::filesystem::path const& path, std::uint8_t rank) : name_{path.string()}, content_{read_gzip(path)} {
    if (content_.size() < header_size(rank)) throw input_error{name_ + " is truncated: it ends within its IDX header"};
    if (word(0) != 0x0800U + rank)
      throw input_error{name_ + " is not an IDX file of bytes in " + std::to_string(rank) + " dimensions"};
    elements_ = content_.begin() + static_cast<std::ptrdiff_t>(header_size(rank));
    if (extent(0) == 0) throw input_error{name_ + " is empty: its header announces 0 items"};
  }

  std::size_t extent(std::size_t dimension) const { return word(1 + dimension); }
  bytes::const_iterator begin() const { return elements_; }
  bytes::const_iterator end() const { return content_.end(); }
  std::string const& name() const { return name_; }

  /// @throws input_error unless exactly extent(0) items of `item_size` bytes follow the header.
  void expect_items_of(std::size_t item_size) const {
    auto const announced = extent(0) * item_size;
    auto const present = static_cast<std::size_t>(end() - begin());
    if (present != announced)
      throw input_error{name_ + (present < announced ? " is truncated: " : " has stray data: ") +
                        std::to_string(present) + " bytes follow its header, which announces " +
                        std::to_string(announced)};
  }

 private:
  static constexpr std::size_t header_size(std::size_t rank) { return 4 * (1 + rank); }

  std::uint32_t word(std::size_t index) const {
    std::uint32_t value = 0;
    for (std::size_t i = 4 * index; i < 4 * (index + 1); ++i) value = value << 8 | content_[i];
    return value;
  }

  std::string name_;
  bytes content_;
  bytes::const_iterator elements_;
};

}  // namespace detail

/// The images of `images_path` with the labels of `labels_path`.
/// @throws input_error if either file cannot be read, is damaged, or does not fit the other.
inline dataset read_idx(std::filesystem::path const& images_path, std::filesystem::path const& labels_path) {
  detail::idx_file const images{images_path, 3};
  if (images.extent(1) != detail::idx_side || images.extent(2) != detail::idx_side)
    throw input_error{images.name() + " has images of " + std::to_string(images.extent(1)) + "x" +
                      std::to_string(images.extent(2)) + " pixels, expected 28x28"};
  images.expect_items_of(detail::idx_side * detail::idx_side);

  detail::idx_file const labels{labels_path, 1};
  labels.expect_items_of(1);
  if (labels.extent(0) != images.extent(0))
    throw input_error{labels.name() + " has " + std::to_string(labels.extent(0)) + " labels for " +
                      std::to_string(images.extent(0)) + " images"};
  auto const wrong = std::find_if(labels.begin(), labels.end(), [](std::uint8_t label) { return label >= classes; });
  if (wrong != labels.end())
    throw input_error{labels.name() + ": label " + std::to_string(wrong - labels.begin() + 1) + " is " +
                      std::to_string(*wrong) + ", expected 0 to 9"};

  dataset result;
  result.features = detail::idx_side * detail::idx_side;
  result.images.resize(static_cast<std::size_t>(images.end() - images.begin()));
  std::transform(images.begin(), images.end(), result.images.begin(),
                 [](std::uint8_t pixel) { return static_cast<float>(pixel) / 255; });
  result.labels.assign(labels.begin(), labels.end());
  return result;
}

}  // namespace train_classifier
