/// @file
/// Gradients on their way to a server as codes: a worker encodes each piece, the server decodes it.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/compress/encode.hpp>
#include <pushpull/compress/none.hpp>
#include <pushpull/compress/top_k.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/pass/plan.hpp>
#include <pushpull/reduce/sum.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/store/encoder.hpp>
#include <pushpull/tensor/buffer.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The first bytes of a coded gradient: the number of the compressor among those of `any_compressor`, then its parameter.
inline constexpr std::size_t code_header_bytes = 16;

/// The number that a reader of codes has to know beside that of the elements: a threshold's bits, or a number of values.
template <class C>
std::uint64_t parameter_of(C const& compressor, [[maybe_unused]] std::int64_t size) {
  if constexpr (requires { compressor.threshold; }) {
    return std::bit_cast<std::uint32_t>(compressor.threshold);
  } else if constexpr (std::same_as<C, compress::top_k>) {
    return static_cast<std::uint64_t>(compressor.values(size));
  } else {
    return 0;
  }
}

/// Encodes the gradients of one piece, and keeps the residual of the codes. One push at a time.
class piece_encoder {
 public:
  piece_encoder() = default;
  piece_encoder(piece_encoder const&) = delete;
  piece_encoder& operator=(piece_encoder const&) = delete;
  virtual ~piece_encoder() = default;

  /// The message of a gradient. Its memory belongs to the encoder, until the next call. What a push took from the residual that
  /// no server has acknowledged is put back first.
  virtual std::span<std::byte const> encode(float const* gradient) = 0;

  bool acknowledged = true;  ///< The last message. The link sets it.
};

/// For gradients of `size` elements. @param number  The compressor's among those of any_compressor.
template <class C>
class encoder_of final : public piece_encoder {
  using device = cpu_device<>;
  using encoder = compress::encoder<C, float, device>;

 public:
  encoder_of(C const& compressor, std::size_t number, std::int64_t size)
      : compressor_(compressor),
        size_(size),
        source_(std::type_identity<encoder>{}, device(), compressor, size),
        message_(code_header_bytes + encoder::wire_bytes(compressor, size)) {
    source_.reserve_kept();
    byte_writer out(message_);
    out.put(static_cast<std::uint64_t>(number));
    out.put(parameter_of(compressor, size));
  }

  std::span<std::byte const> encode(float const* gradient) override {
    if (!std::exchange(acknowledged, false)) source_.put_back();
    source_.keep();
    encoder::encode(source_.device, compressor_, gradient, size_, source_.residual.data(), source_.codes.data());
    std::memcpy(message_.data() + code_header_bytes, source_.codes.data(), message_.size() - code_header_bytes);
    return message_;
  }

 private:
  C compressor_;
  std::int64_t size_;
  pushpull::detail::compressed_source<device> source_;
  std::vector<std::byte> message_;
};

/// For pieces of `size` elements. @returns null for compress::none. @throws invalid_argument as the compressor's encoder
inline std::unique_ptr<piece_encoder> make_encoder(compress::any_compressor const& compressor, std::int64_t size) {
  return std::visit(
      [&]<class C>(C const& chosen) -> std::unique_ptr<piece_encoder> {
        if constexpr (std::same_as<C, compress::none>) {
          return nullptr;
        } else {
          return std::make_unique<encoder_of<C>>(chosen, compressor.index(), size);
        }
      },
      compressor);
}

/// Decodes messages of encoders in other processes, which may be anything.
class piece_decoder {
  using device = cpu_device<serial_system>;

 public:
  /// Writes `size` gradients. @throws invalid_argument, before anything is written, unless the message is one of an encoder for
  /// so many
  void decode(std::span<std::byte const> message, std::int64_t size, float* to) {
    expect(message.size() >= code_header_bytes, "a header of the compressor");
    byte_reader in(message);
    auto const number = in.get<std::uint64_t>();
    auto const parameter = in.get<std::uint64_t>();
    expect(number != 0 && number < std::variant_size_v<compress::any_compressor>, "the number of a compressor");
    decode_as<1>(number, parameter, message.subspan(code_header_bytes), size, to);
  }

 private:
  template <std::size_t Number>
  void decode_as(std::uint64_t number, std::uint64_t parameter, std::span<std::byte const> codes, std::int64_t size,
                 float* to) {
    using C = std::variant_alternative_t<Number, compress::any_compressor>;
    if (number == Number) {
      C compressor;
      if constexpr (requires { compressor.threshold; }) {
        compressor.threshold = std::bit_cast<float>(static_cast<std::uint32_t>(parameter));
        compressor.validate();
      } else if constexpr (std::same_as<C, compress::top_k>) {
        expect(parameter <= static_cast<std::uint64_t>(size) && (parameter > 0 || size == 0),
               "at most as many values as elements");
        compressor.count = static_cast<std::int64_t>(parameter);
      }
      return decode_with(compressor, codes, size, to);
    }
    if constexpr (Number + 1 < std::variant_size_v<compress::any_compressor>)
      decode_as<Number + 1>(number, parameter, codes, size, to);
  }

  template <class C>
  void decode_with(C const& compressor, std::span<std::byte const> codes, std::int64_t size, float* to) {
    using encoder = compress::encoder<C, float, device>;
    using encoded = typename C::template encoded_type<float>;
    expect(codes.size() == encoder::wire_bytes(compressor, size), "codes of all elements");
    if (size == 0) return;
    std::size_t const room = codes.size() + 64;  // a register's width behind the last value
    if (codes_.bytes() < room) codes_ = buffer<device>(device(), room);
    std::memcpy(codes_.data(), codes.data(), codes.size());
    auto const source =
        encoder::source(compressor, codes_.data(), size, 0, size, [](void const* at, std::size_t) { return at; });
    expect_valid(source, size, compressor);

    using types = pass::element_types<encoded, float, float, float, float>;
    pass::plan<device, types, 0> plan;
    typename decltype(plan)::run_type run{};
    run.size = size;
    if constexpr (pushpull::detail::Code<encoded>) run.unit = compressor.unit();
    pushpull::detail::source_of<encoded> const sources[] = {source};
    float* const outputs[] = {to};
    plan.add(run, sources, outputs);
    plan.commit(device());
    plan.template launch<pass::forward, reduce::sum, pass::memory::foreign>(device(), nullptr, nullptr);
  }

  /// Numbers that the pass adds, multiplies by, or finds memory with.
  template <class Source, class C>
  static void expect_valid(Source const& source, [[maybe_unused]] std::int64_t size,
                           [[maybe_unused]] C const& compressor) {
    if constexpr (requires { source.flaw; }) {
      expect(std::isnan(*source.flaw) || std::bit_cast<std::uint32_t>(*source.flaw) == 0, "0 or NaN behind the codes");
    } else if constexpr (requires { source.scale; }) {
      expect(std::isnormal(*source.scale) && *source.scale > 0, "a scale above 0");
    } else if constexpr (requires { source.masks; }) {
      std::int64_t values = 0;
      for (std::int64_t b = 0; b < compress::padded(size) / compress::sparse_code::block; ++b) {
        expect(source.offsets[b] == values, "offsets that count the values");
        values += std::popcount(source.masks[b]);
      }
      expect(values <= compressor.values(size), "as many values as elements that have one");
    }
  }
  static void expect(bool condition, char const* expected) {
    pushpull::detail::expects<invalid_argument>(
        condition, [&] { return "push: of a compressed gradient " + std::string(expected) + " expected"; });
  }

  buffer<device> codes_;
};

}  // namespace pushpull::remote::detail
