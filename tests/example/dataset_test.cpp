/// @file
/// The example's readers: what they make of whole files, and what they say of damaged ones.
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <string>

#include <train_classifier/digits.hpp>
#include <train_classifier/gzip.hpp>
#include <train_classifier/idx.hpp>
#include <train_classifier/load.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace {

using namespace train_classifier;
using pushpull::test::read_file;
using pushpull::test::temporary_folder;
using pushpull::test::write_file;

std::filesystem::path write_gzip(std::filesystem::path const& path, std::string const& content) {
  gzFile const file = gzopen(path.c_str(), "wb");
  gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
  gzclose(file);
  return path;
}

/// The message of the input_error that `read` throws; it has to be one line that names `file`.
template <class Read>
std::string complaint(std::filesystem::path const& file, Read read) {
  try {
    read();
  } catch (input_error const& error) {
    std::string const message = error.what();
    CHECK(message.find(file.string()) == 0);
    CHECK(message.find('\n') == std::string::npos);
    return message.substr(std::min(message.size(), file.string().size()));
  }
  return "";
}

std::string digit_line(std::string const& first_pixel = "0", std::string const& label = "9") {
  std::string line = first_pixel;
  for (int pixel = 1; pixel < 64; ++pixel) line += "," + std::to_string(pixel % 17);
  return line + "," + label + "\n";
}

std::string big_endian(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xFFU);
  return text;
}

std::string idx_images(std::uint32_t count, std::uint32_t rows = 28, std::uint32_t columns = 28) {
  return big_endian(0x803) + big_endian(count) + big_endian(rows) + big_endian(columns) +
         std::string(std::size_t{count} * rows * columns, '\xFF');
}
std::string idx_labels(std::string const& labels) {
  return big_endian(0x801) + big_endian(static_cast<std::uint32_t>(labels.size())) + labels;
}

}  // namespace

TEST_CASE("the digits that come with the examples are whole", "[example][dataset]") {
  auto const digits = read_digits(detail::default_digits_folder() / "digits.csv.gz");
  CHECK(digits.size() == 1797);
  CHECK(digits.images.size() == 1797 * 64);
  CHECK(*std::min_element(digits.images.begin(), digits.images.end()) == 0);
  CHECK(*std::max_element(digits.images.begin(), digits.images.end()) == 1);
  CHECK(std::count(digits.labels.begin(), digits.labels.end(), 3) == 183);

  auto split = split_digits(digits);
  CHECK(split.training.size() == 1437);
  CHECK(split.test.size() == 360);
  auto const label_sum = [](dataset const& part) { return std::accumulate(part.labels.begin(), part.labels.end(), 0); };
  CHECK(label_sum(split.training) + label_sum(split.test) == label_sum(digits));

  center(split);
  for (std::size_t pixel = 0; pixel < 64; ++pixel) {
    double sum = 0;
    for (std::size_t row = 0; row < 1437; ++row) sum += static_cast<double>(split.training.images[row * 64 + pixel]);
    REQUIRE(sum == Approx(0).margin(1e-3));
  }
}

TEST_CASE("a gzip file has to be one whole gzip stream", "[example][dataset]") {
  temporary_folder const folder;
  auto const file = folder.file("file.gz");
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += std::to_string(i * 7919 % 10'007);
  auto const whole = read_file(write_gzip(file, text));
  auto const read = [&] { return read_gzip(file); };
  auto const content = read();
  CHECK(std::string(content.begin(), content.end()) == text);

  for (std::size_t const size :
       {std::size_t{0}, std::size_t{1}, std::size_t{9}, whole.size() / 2, whole.size() - 8, whole.size() - 1}) {
    write_file(file, whole.substr(0, size));
    CHECK(complaint(file, read).find("truncated") != std::string::npos);
  }
  auto damaged = whole;
  damaged[whole.size() - 6] ^= 1;  // within the checksum
  write_file(file, damaged);
  CHECK(complaint(file, read).find("incorrect data check") != std::string::npos);
  write_file(file, whole + "x");
  CHECK(complaint(file, read) == " has 1 stray bytes after its compressed data");
  write_file(file, text);
  CHECK(complaint(file, read).find("not a valid gzip file") != std::string::npos);
  write_file(file, whole);
  CHECK(complaint(file, [&] { read_gzip(file, text.size() - 1); }).find("holds more than") != std::string::npos);
  CHECK(read_gzip(file, text.size()).size() == text.size());
  CHECK(complaint(folder.file("none"), [&] { read_gzip(folder.file("none")); }) == " cannot be read");
  CHECK(complaint(folder.file(""), [&] { read_gzip(folder.file("")); }) == " cannot be read");
}

TEST_CASE("digits are lines of 64 pixels from 0 to 16 and a label from 0 to 9", "[example][dataset]") {
  temporary_folder const folder;
  auto const file = folder.file("digits.csv.gz");
  auto const said_of = [&](std::string const& lines) {
    write_gzip(file, lines);
    return complaint(file, [&] { read_digits(file, 2); });
  };
  CHECK(said_of(digit_line() + digit_line("16", "0")) == "");
  auto unended = digit_line() + digit_line();
  unended.pop_back();
  CHECK(said_of(unended) == "");

  CHECK(said_of("") == " has 0 lines, expected 2");
  CHECK(said_of(digit_line()) == " has 1 lines, expected 2");
  CHECK(said_of(digit_line() + digit_line() + digit_line()) == " has 3 lines, expected 2");
  CHECK(said_of(digit_line() + "\n") == ": line 2 does not have 65 fields");
  CHECK(said_of(digit_line() + "1,2,3\n") == ": line 2 does not have 65 fields");
  CHECK(said_of("0," + digit_line()) == ": line 1 does not have 65 fields");
  for (std::string const pixel : {"17", "-1", "1.5", " 1", "", "x", "99999999999999999999"})
    CHECK(said_of(digit_line(pixel)) == ": line 1, field 1 is not an integer from 0 to 16");
  for (std::string const label : {"10", "-1", "", "1\r", "1 "})
    CHECK(said_of(digit_line() + digit_line("0", label)) == ": line 2, field 65 is not an integer from 0 to 9");
}

TEST_CASE("IDX files have to be what their headers say", "[example][dataset]") {
  temporary_folder const folder;
  auto const images = folder.file("images.gz"), labels = folder.file("labels.gz");
  auto const read = [&] { return read_idx(images, labels); };
  auto const said_of_images = [&](std::string const& content) {
    write_gzip(images, content);
    return complaint(images, read);
  };
  auto const said_of_labels = [&](std::string const& content) {
    write_gzip(labels, content);
    return complaint(labels, read);
  };
  std::string const three_labels("\0\x09\x05", 3);
  write_gzip(images, idx_images(3));
  write_gzip(labels, idx_labels(three_labels));
  auto const whole = read();
  CHECK(whole.size() == 3);
  CHECK(whole.features == 784);
  CHECK(whole.images == std::vector<float>(3 * 784, 1.0F));
  CHECK(whole.labels == std::vector<std::uint8_t>{0, 9, 5});

  CHECK(said_of_images("") == " is truncated: it ends within its IDX header");
  CHECK(said_of_images(idx_images(3).substr(0, 15)) == " is truncated: it ends within its IDX header");
  CHECK(said_of_images(idx_labels(three_labels) + std::string(9, '\0')) ==
        " is not an IDX file of bytes in 3 dimensions");
  CHECK(said_of_images(std::string(16, 'x')) == " is not an IDX file of bytes in 3 dimensions");
  CHECK(said_of_images(idx_images(0)) == " is empty: its header announces 0 items");
  CHECK(said_of_images(idx_images(3, 27)) == " has images of 27x28 pixels, expected 28x28");
  CHECK(said_of_images(idx_images(3, 28, 29)) == " has images of 28x29 pixels, expected 28x28");
  CHECK(said_of_images(idx_images(3) + "x") == " has stray data: 2353 bytes follow its header, which announces 2352");
  auto truncated = idx_images(3);
  truncated.pop_back();
  CHECK(said_of_images(truncated) == " is truncated: 2351 bytes follow its header, which announces 2352");
  auto many = idx_images(1);
  many.replace(4, 4, "\xFF\xFF\xFF\xFF");  // nothing may be allocated for what a header claims
  CHECK(said_of_images(many).find(" is truncated: 784 bytes follow") == 0);

  write_gzip(images, idx_images(3));
  CHECK(said_of_labels(idx_labels("\x01\x02")) == " has 2 labels for 3 images");
  CHECK(said_of_labels(idx_labels("\x01\x02\x0A")) == ": label 3 is 10, expected 0 to 9");
  CHECK(said_of_labels(idx_labels(three_labels).substr(0, 10)).find(" is truncated") == 0);
  CHECK(said_of_labels(idx_images(3)) == " is not an IDX file of bytes in 1 dimensions");
}

TEST_CASE("a missing dataset is named with the package that has it", "[example][dataset]") {
  temporary_folder const folder;
  options chosen;
  chosen.data_dir = folder.file("");
  CHECK(complaint(folder.file("digits.csv.gz"), [&] { load(chosen); }).find("python3-sklearn") != std::string::npos);
  chosen.dataset = dataset_name::fashion_mnist;
  CHECK(complaint(folder.file("train-images-idx3-ubyte.gz"), [&] { load(chosen); }).find("dataset-fashion-mnist") !=
        std::string::npos);
}
