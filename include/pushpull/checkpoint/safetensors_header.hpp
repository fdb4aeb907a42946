/// @file
/// The header of a safetensors file: JSON with the place of each tensor. Needs nlohmann-json.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <pushpull/checkpoint/safetensors_entry.hpp>
#include <pushpull/config.hpp>
#include <pushpull/element/shape.hpp>
#include <pushpull/error.hpp>

namespace pushpull::inline PUSHPULL_ABI::checkpoint::detail {

/// A tensor and where its bytes lie, from the end of the header on. Its `bytes` are not set.
struct located_entry {
  entry tensor;
  std::uint64_t begin = 0, end = 0;
};

struct header {
  metadata_map metadata;
  std::vector<located_entry> tensors;
  std::uint64_t bytes = 0;  ///< Before the data.
};

/// Takes the events of nlohmann's parser. Each place allows a few kinds of values and refuses the others as they come,
/// so nothing that a hostile header nests or repeats is ever built in memory.
class header_parser {
 public:
  using json = nlohmann::json;

  explicit header_parser(std::string const& path) : path_(path) {}
  header result() && { return std::move(header_); }

  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a boolean"); }
  bool number_integer(json::number_integer_t) { return unexpected("a negative number"); }
  bool number_float(json::number_float_t, json::string_t const& text) {
    return unexpected("the number " + in_quotes(text));
  }
  bool binary(json::binary_t&) { return unexpected("binary data"); }

  bool number_unsigned(json::number_unsigned_t number) {
    if (place_ == place::shape) {
      expects(extents_.size() < shape::max_rank, [] { return "at most 8 extents expected, got more"; });
      expects(number <= std::uint64_t{std::numeric_limits<std::int64_t>::max()},
              [&] { return "an extent below 2^63 expected, got " + std::to_string(number); });
      extents_.push_back(static_cast<std::int64_t>(number));
    } else if (place_ == place::offsets) {
      expects(offset_count_ < offsets_.size(), [] { return "two data_offsets expected, got more"; });
      offsets_[offset_count_++] = number;
    } else {
      unexpected("the number " + std::to_string(number));
    }
    return true;
  }

  bool string(json::string_t& text) {
    if (place_ == place::metadata)
      header_.metadata.find(field_)->second = std::move(text);
    else if (place_ == place::tensor && field_ == "dtype")
      dtype_ = std::move(text);
    else
      unexpected("the text " + in_quotes(text));
    return true;
  }

  bool key(json::string_t& text) {
    if (place_ == place::top) {
      name_ = std::move(text);
      return true;
    }
    field_ = std::move(text);
    if (place_ == place::metadata) {
      expects(header_.metadata.try_emplace(field_).second,
              [&] { return in_quotes(field_) + " expected once, got twice"; });
      return true;
    }
    auto const known = std::find(fields.begin(), fields.end(), field_);
    expects(known != fields.end(), [&] { return "dtype, shape and data_offsets expected, got " + in_quotes(field_); });
    bool& seen = seen_[static_cast<std::size_t>(known - fields.begin())];
    expects(!seen, [&] { return field_ + " expected once, got twice"; });
    return seen = true;
  }

  bool start_object(std::size_t) {
    if (place_ == place::outside) {
      place_ = place::top;
    } else if (place_ == place::top && name_ == metadata_name) {
      expects(!std::exchange(seen_metadata_, true), [] { return "one such object expected, got two"; });
      place_ = place::metadata;
    } else if (place_ == place::top) {
      place_ = place::tensor;
      seen_ = {};
      extents_.clear();
      offset_count_ = 0;
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool end_object() {
    if (place_ == place::tensor) add_tensor();
    place_ = place_ == place::top ? place::outside : place::top;
    return true;
  }

  bool start_array(std::size_t) {
    if (place_ == place::tensor && field_ == "shape")
      place_ = place::shape;
    else if (place_ == place::tensor && field_ == "data_offsets")
      place_ = place::offsets;
    else
      unexpected("an array");
    return true;
  }

  bool end_array() {
    place_ = place::tensor;
    return true;
  }

  bool parse_error(std::size_t, std::string const&, json::exception const& error) {
    std::string_view const text = error.what();
    throw file_error(path_ + ": a header of JSON expected: " + std::string(text.substr(0, text.find("; last read"))));
  }

 private:
  enum class place { outside, top, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> fields{"dtype", "shape", "data_offsets"};

  std::string where() const {
    return path_ + ": " + (name_ == metadata_name ? "" : "tensor ") + in_quotes(name_) + ": ";
  }

  template <class Message>
  void expects(bool condition, Message const& message) const {
    pushpull::detail::expects<file_error>(condition, [&] { return where() + message(); });
  }

  /// Refuses a value of the wrong kind. Returns only because the parser wants a bool.
  bool unexpected(std::string const& what) const {
    constexpr std::string_view expected[] = {"an object", "an object",         "text",
                                             "",          "unsigned integers", "unsigned integers"};
    std::string_view wanted = expected[static_cast<std::size_t>(place_)];
    std::string in;
    if (place_ == place::tensor) wanted = field_ == "dtype" ? "text" : "an array";
    if (place_ != place::outside && place_ != place::top) in = in_quotes(field_) + ": ";
    throw file_error(where() + in + std::string(wanted) + " expected, got " + what);
  }

  void add_tensor() {
    expects(seen_ == std::array{true, true, true}, [] { return "dtype, shape and data_offsets expected, got less"; });
    expects(offset_count_ == 2, [&] { return "two data_offsets expected, got " + std::to_string(offset_count_); });
    auto const [begin, end] = offsets_;
    expects(begin <= end, [&, begin = begin, end = end] {
      return "data that begins before its end expected, got [" + std::to_string(begin) + ", " + std::to_string(end) +
             "]";
    });
    located_entry located{{std::move(name_), std::move(dtype_), {}, {}}, begin, end};
    name_ = located.tensor.name;  // for messages
    try {
      located.tensor.shape = shape(std::span<std::int64_t const>(extents_));
    } catch (invalid_argument const& error) {  // too many elements
      throw file_error(where() + error.what());
    }
    std::uint64_t const bytes =
        bytes_of<file_error>(located.tensor.dtype, located.tensor.shape, [this] { return where(); });
    expects(bytes == end - begin, [&, begin = begin, end = end] {
      return std::to_string(bytes) + " bytes expected for " + to_string(located.tensor.shape) + " elements of " +
             located.tensor.dtype + ", got " + std::to_string(end - begin);
    });
    header_.tensors.push_back(std::move(located));
  }

  std::string const& path_;
  header header_;
  place place_ = place::outside;
  std::string name_, field_, dtype_;
  std::vector<std::int64_t> extents_;
  std::array<std::uint64_t, 2> offsets_{};
  std::size_t offset_count_ = 0;
  std::array<bool, 3> seen_{};
  bool seen_metadata_ = false;
};

/// Every byte behind the header belongs to one tensor: holes would hide other content, overlaps make a small file fill
/// a large memory.
inline void check_layout(std::vector<located_entry> const& tensors, std::uint64_t data_bytes, std::string const& path) {
  using pushpull::detail::expects;
  std::vector<located_entry const*> order;
  for (auto const& located : tensors) order.push_back(&located);
  std::sort(order.begin(), order.end(),
            [](auto const* a, auto const* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  std::uint64_t end = 0;
  for (auto const* located : order) {
    expects<file_error>(located->begin == end, [&] {
      return path + ": tensor " + in_quotes(located->tensor.name) + ": data from byte " + std::to_string(end) +
             " expected, where the tensor before it ends, got " + std::to_string(located->begin);
    });
    end = located->end;
  }
  expects<file_error>(end == data_bytes, [&] {
    return path + ": " + std::to_string(end) + " bytes of data expected, got " + std::to_string(data_bytes);
  });
}

/// Reads the header `text` of a file with `data_bytes` bytes behind it. The tensors are sorted by name.
/// @throws file_error
inline header parse_header(std::string_view text, std::uint64_t data_bytes, std::string const& path) {
  using pushpull::detail::expects;
  // The parser skips a byte order mark, takes a NUL for the end and allows any white space there; the format does not.
  expects<file_error>(text.starts_with('{') && text.find('\0') == text.npos, [&] {
    return path + ": a header of JSON expected, which begins with '{', got " + in_quotes(text.substr(0, 16));
  });
  std::size_t const last = text.find_last_not_of(' ');
  expects<file_error>(text[last] == '}', [&] {
    return path + ": '}' and spaces expected at the end of the header, got byte " +
           std::to_string(static_cast<unsigned char>(text[last]));
  });
  header_parser parser(path);
  nlohmann::json::sax_parse(text.begin(), text.end(), &parser);  // every refusal is thrown
  header result = std::move(parser).result();

  auto const by_name = [](located_entry const& a, located_entry const& b) { return a.tensor.name < b.tensor.name; };
  std::sort(result.tensors.begin(), result.tensors.end(), by_name);
  auto const twice = std::adjacent_find(result.tensors.begin(), result.tensors.end(),
                                        [](auto const& a, auto const& b) { return a.tensor.name == b.tensor.name; });
  expects<file_error>(twice == result.tensors.end(), [&] {
    return path + ": different names expected, got two tensors " + in_quotes(twice->tensor.name);
  });
  check_layout(result.tensors, data_bytes, path);
  return result;
}

}  // namespace pushpull::checkpoint::detail
