/// @file
/// The sources of a call as a Compressor encodes them, and their residuals.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <pushpull/compress/encode.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/registers/code.hpp>
#include <pushpull/store/encoder.hpp>
#include <pushpull/store/operands.hpp>
#include <pushpull/store/staging.hpp>

namespace pushpull::inline PUSHPULL_ABI::detail {

/// Codes of a call's sources, by their numbers in the call. A key keeps a residual per source.
/// @tparam G  Element type of the sources. @tparam C  The Compressor.
template <class Record, Device D, class G, class C>
class encoded_sources {
  using encoder = compress::encoder<C, G, D>;
  using encoded = typename C::template encoded_type<G>;

 public:
  explicit encoded_sources(C const& compressor) : compressor_(compressor) {}

  /// Steps may be skipped: residuals will then be what they were before their first micro-batch.
  /// @param of_each  Every source is that of a step.
  void remember_residuals(bool always, bool of_each) {
    remembers_ = always;
    of_each_ = of_each;
  }

  /// Forgets the last call. @param keeps  Residuals are kept as they are until the push has not failed.
  void begin(std::size_t sources, bool keeps) {
    keeps_ = keeps;
    kept_ = 0;
    codes_.clear();
    codes_.resize(sources);
    encodings_.clear();
  }
  /// Takes memory for source k of the call, which is number `number` of the key.
  /// @param device  Encodes it. @param staged  Memory of the device.
  void add(Record& key, std::size_t number, std::size_t k, operand<G const, D> const& source, D const& device,
           staging<D>& staged) {
    if (number == key.with_rare().compressed.size()) {
      key.rare->compressed.emplace_back(std::type_identity<encoder>{}, device, compressor_, key.size());
    } else {
      key.rare->compressed[number].move_to(device);
    }
    auto& residual = key.rare->compressed[number];
    if (keeps_) residual.reserve_kept();
    if (remembers_) residual.reserve_before();
    codes_[k] = {static_cast<char const*>(residual.codes.data()), device, 0};
    encodings_.push_back({&key, number, source.data, nullptr});
    if (!reaches(device, source))
      encodings_.back().staged = staged.take(device, static_cast<std::size_t>(key.size()) * sizeof(G));
  }

  /// Source k of the call is another rank's, of which codes come.
  void add_received(Record const& key, std::size_t k, D const& device, staging<D>& received) {
    void* const memory = received.take(device, encoder::code_bytes(device, compressor_, key.size()));
    codes_[k] = {static_cast<char const*>(memory), device, 0};
  }

  /// Turns all sources into codes. Allocates nothing: what encoding takes from a residual must reach the pass.
  void encode() {
    for (auto const& [key, number, data, staged] : encodings_) {
      auto const& source = key->rare->compressed[number];
      if (remembers_ && (of_each_ || !key->accumulated())) source.remember();
      if (keeps_) {
        source.keep();
        ++kept_;
      }
      G const* gradient = data;
      if (staged != nullptr) {
        std::size_t const size = static_cast<std::size_t>(key->size()) * sizeof(G);
        profile::detail::copy_span const traced(source.device.id(), size);
        source.device.copy(staged, gradient, size);
        gradient = static_cast<G const*>(staged);
      }
      constexpr auto bytes =
          static_cast<std::int64_t>(sizeof(G) + 2 * sizeof(float));  // the residual is read and written
      profile::detail::pass_span const traced("encode", source.device.id(),
                                              key->size() * bytes + encoded_bytes<encoded>(key->size()));
      encoder::encode(source.device, compressor_, gradient, key->size(), source.residual.data(), source.codes.data());
    }
  }
  /// Residuals become what they were before the present push, if they were kept.
  void put_residuals_back() {
    for (std::size_t i = 0; i < kept_; ++i) encodings_[i].key->rare->compressed[encodings_[i].number].put_back();
    kept_ = 0;
  }
  /// If the devices skip the step that was run, residuals of the key become what they were before its first micro-batch.
  /// The host does not wait to know.
  template <class Step>
  static void return_residuals(Record const& key, std::size_t sources, std::vector<D> const& devices,
                               Step const& step) {
    for (std::size_t k = 0; k < sources; ++k) {
      auto const& source = key.rare->compressed[k];
      std::size_t n = 0;
      for (std::size_t m = devices.size(); m-- > 0;)
        if (devices[m] == source.device) n = m;
      source.return_if(step.skipped(n), devices[n]);
    }
  }

  /// Where the codes of each source are.
  std::vector<operand<char const, D>> const& codes() const { return codes_; }
  /// What a pass reads for `size` elements of source k, from number `first` on. @param at_owner  See compress::encoder.
  template <class F>
  source_of<encoded> source(std::size_t k, std::int64_t elements, std::int64_t first, std::int64_t size,
                            F const& at_owner) const {
    return encoder::source(compressor_, codes_[k].data, elements, first, size, at_owner);
  }
  template <class Run>
  void describe(Run& run) const {
    if constexpr (Code<encoded>) run.unit = compressor_.unit();
  }

 private:
  struct encoding {
    Record* key;
    std::size_t number;
    G const* data;
    void* staged;
  };

  C compressor_;
  std::vector<operand<char const, D>> codes_;
  std::vector<encoding> encodings_;
  bool keeps_ = false;
  bool remembers_ = false;
  bool of_each_ = false;
  std::size_t kept_ = 0;  // encodings whose residuals were kept, and may have changed
};

}  // namespace pushpull::detail
