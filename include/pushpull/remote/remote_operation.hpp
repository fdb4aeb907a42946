/// @file
/// The operations of a remote_store: what they send, and where the answers go.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <pushpull/compress/by_name.hpp>
#include <pushpull/concepts/device.hpp>
#include <pushpull/config.hpp>
#include <pushpull/device/cpu_device.hpp>
#include <pushpull/error.hpp>
#include <pushpull/remote/compression.hpp>
#include <pushpull/remote/link.hpp>
#include <pushpull/remote/message.hpp>
#include <pushpull/remote/piece_flags.hpp>
#include <pushpull/remote/remote_keys.hpp>
#include <pushpull/remote/request.hpp>
#include <pushpull/schedule/awaited.hpp>
#include <pushpull/store/gather.hpp>
#include <pushpull/store/kv_store.hpp>
#include <pushpull/store/operations/gathered_call.hpp>
#include <pushpull/store/operations/operation.hpp>
#include <pushpull/tensor/copy_bytes.hpp>
#include <pushpull/tensor/tensor.hpp>
#include <pushpull/tensor/tensor_view.hpp>

namespace pushpull::inline PUSHPULL_ABI::remote::detail {

/// The parts that operations share: the keys, the link, and the store that sums the sources of one worker.
template <class T, Device D>
struct remote_parts {
  using sum_store = kv_store<T, D, integer_keys, synchronous>;

  remote_parts(std::vector<D> const& device_list, std::vector<std::string> const& addresses,
               worker_options const& options)
      : devices(device_list), sums(device_list), servers(addresses, options) {}

  std::vector<D> devices;
  compress::any_compressor compressor = {};
  std::atomic<bool> chose_rule = false;  ///< This worker gave the servers one.
  std::uint64_t compression = 0;         ///< How many compressors there were before it.
  remote_keys keys;
  sum_store sums;
  link servers;
};

/// A push, a pull, or both, of the keys of a call.
template <class T, Device D>
class remote_operation final : public pushpull::detail::gathered_operation<D> {
 public:
  explicit remote_operation(remote_parts<T, D>& parts)
      : pushpull::detail::gathered_operation<D>(parts.devices), parts_(parts) {
    group_.is_operation = true;
  }

  pushpull::detail::gathered_call<any_key_view, D, T> gathered;
  /// What a request about a piece does, where there are sources; `pull` where there are none.
  message_kind kind = message_kind::push;
  std::uint8_t flags = 0;

  void find_keys() override {
    entries_.clear();
    auto source = gathered.sources().begin();
    auto output = gathered.outputs().begin();
    for (auto const& given : gathered.keys()) {
      remote_key& key = parts_.keys.find(gathered.caller(), given.key);
      auto const listed = std::find_if(entries_.begin(), entries_.end(), [&](entry const& e) { return e.key == &key; });
      entry& e = listed != entries_.end() ? *listed : entries_.emplace_back(entry{&key, {}, {}});
      for (std::size_t i = 0; i < given.sources; ++i, ++source) {
        pushpull::detail::expect_shape(gathered.caller(), given.key, key.shape, source->shape);
        e.sources.push_back(source->memory);
      }
      for (std::size_t i = 0; i < given.outputs; ++i, ++output) {
        pushpull::detail::expect_shape(gathered.caller(), given.key, key.shape, output->shape);
        e.outputs.push_back(output->memory);
      }
      pushpull::detail::expects<invalid_argument>(!gathered.has_sources() || given.sources > 0, [&] {
        return std::string(gathered.caller()) + ": " + pushpull::detail::key_text(given.key) + " came with no gradient";
      });
    }
    for (entry const& e : entries_) {
      if (gathered.has_sources()) {
        this->writes(e.key->order);
      } else {
        this->reads(e.key->order);
      }
    }
  }
  std::int64_t work() const override { return 0; }
  char const* name() const override { return gathered.caller(); }
  void list_keys(profile::detail::key_list& list) const override {
    for (entry const& e : entries_) list.add(any_key_view(e.key->key));
  }

  /// First sends all requests; runs again when all are answered.
  pushpull::detail::progress run() override {
    if (std::exchange(is_sent_, !is_sent_)) {
      finish();
      return pushpull::detail::progress::done();
    }
    try {
      fill_requests();
    } catch (...) {
      is_sent_ = false;
      throw;
    }
    group_.begin();
    parts_.servers.submit(group_);
    return pushpull::detail::progress::waiting_for(group_.event);
  }

 protected:
  void forget() noexcept override {
    is_sent_ = false;
    pushpull::detail::gathered_operation<D>::forget();
  }

 private:
  template <class U>
  using operand = pushpull::detail::operand<U, D>;
  struct entry {
    remote_key* key;
    std::vector<operand<T const>> sources;
    std::vector<operand<T>> outputs;
    T const* gradient = nullptr;  // in host memory
    T* value = nullptr;
  };

  void fill_requests() {
    group_.requests.clear();
    std::size_t used = 0;
    for (entry& e : entries_) {
      if (gathered.has_sources()) e.gradient = gradient_of(e, used);
      if (!e.outputs.empty()) e.value = in_host_memory(e.outputs.front()) ? e.outputs.front().data : staging(used, e);
      message_kind const what = !gathered.has_sources() ? message_kind::pull
                                : e.outputs.empty()     ? kind
                                                        : message_kind::pushpull;
      if (what == message_kind::pull && e.outputs.empty()) continue;
      for (std::size_t i = 0; i < e.key->pieces.size(); ++i) {
        key_piece const& piece = e.key->pieces[i];
        auto const size = static_cast<std::size_t>(piece.size());
        request r = e.key->about(what, i, element_code<T>);
        r.header.flags = flags;
        if (gathered.has_sources()) r.payload = std::as_bytes(std::span(e.gradient + piece.begin, size));
        if constexpr (std::same_as<T, float>)
          if (what != message_kind::pull && parts_.compressor.index() != 0) {
            piece_encoder& encoder = encoder_of_piece(*e.key, i);
            r.payload = encoder.encode(e.gradient + piece.begin);
            r.acknowledged = &encoder.acknowledged;
            r.header.flags |= coded_gradient;
          }
        if (!e.outputs.empty()) r.values = std::as_writable_bytes(std::span(e.value + piece.begin, size));
        group_.requests.push_back(r);
      }
    }
  }
  piece_encoder& encoder_of_piece(remote_key& key, std::size_t i) const {
    if (key.compression != parts_.compression) key.encoders.clear();
    key.compression = parts_.compression;
    while (key.encoders.size() < key.pieces.size())
      key.encoders.push_back(make_encoder(parts_.compressor, key.pieces[key.encoders.size()].size()));
    return *key.encoders[i];
  }
  /// The sum of the sources, in host memory: of one source there, the source.
  T const* gradient_of(entry const& e, std::size_t& used) {
    if (e.sources.size() == 1 && in_host_memory(e.sources.front())) return e.sources.front().data;
    T* const sum = staging(used, e);
    tensor_view<T> const output(sum, e.key->shape);
    if (!parts_.sums.contains(e.key->number)) {
      std::fill_n(sum, e.key->shape.size(), T());
      parts_.sums.init(e.key->number, tensor_view<T const>(output));
    }
    std::vector<tensor_view<T const, D>> views;
    std::vector<tensor_view<T const>> host_views;
    for (auto const& source : e.sources) {
      if constexpr (HostDevice<D>) {
        views.emplace_back(source.data, e.key->shape, source.device ? *source.device : parts_.devices.front());
      } else if (source.device) {
        views.emplace_back(source.data, e.key->shape, *source.device);
      } else {
        host_views.emplace_back(source.data, e.key->shape);
      }
    }
    pushpull::detail::expects<invalid_argument>(views.empty() || host_views.empty(), [&] {
      return std::string(gathered.caller()) + ": " + pushpull::detail::key_text(e.key->key) +
             ": gradients in memory of the host, or of devices, expected; both came";
    });
    if (host_views.empty()) {
      parts_.sums.pushpull(e.key->number, views, output);
    } else {
      parts_.sums.pushpull(e.key->number, host_views, output);
    }
    return sum;
  }
  void finish() {
    for (entry const& e : entries_)
      for (operand<T> const& output : e.outputs) {
        if (output.data == e.value) continue;
        std::size_t const bytes = e.key->shape.size() * sizeof(T);
        D const& device = output.device ? *output.device : parts_.devices.front();
        if (in_host_memory(output)) {
          if (bytes != 0) std::memcpy(output.data, e.value, bytes);
        } else {
          pushpull::detail::copy_bytes(device, output.data, cpu_device<>(), e.value, bytes);
        }
      }
  }
  template <class Operand>
  static bool in_host_memory(Operand const& x) {
    return HostDevice<D> || !x.device;
  }
  /// Memory for one value of the key, kept from call to call.
  T* staging(std::size_t& used, entry const& e) {
    if (staged_.size() <= used) staged_.emplace_back();
    std::vector<T>& memory = staged_[used++];
    if (memory.size() < e.key->shape.size()) memory.resize(e.key->shape.size());
    return memory.data();
  }

  remote_parts<T, D>& parts_;
  std::vector<entry> entries_;
  std::vector<std::vector<T>> staged_;
  request_group group_;
  bool is_sent_ = false;
};

}  // namespace pushpull::remote::detail
