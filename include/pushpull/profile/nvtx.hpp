/// @file
/// Ranges for NVIDIA's profilers, Nsight Systems and Nsight Compute: a function for `tracing`. Opt-in; nothing is to be linked.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include <pushpull/config.hpp>
#include <pushpull/profile/tracing.hpp>

/// 1 if ranges are passed on to NVTX, by default where its headers are found. With 0 nvtx_ranges does nothing.
#if !defined(PUSHPULL_NVTX)
#if __has_include(<nvtx3/nvToolsExt.h>)
#define PUSHPULL_NVTX 1
#else
#define PUSHPULL_NVTX 0
#endif
#endif

#if PUSHPULL_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace pushpull::inline PUSHPULL_ABI::profile {

#if PUSHPULL_NVTX

/// Makes each activity a range of the domain "pushpull": "push fc1.weight, fc1.bias", "pass 4096 B". Its payload is the number
/// of bytes. Costs little while no profiler is attached, but for the texts.
class nvtx_ranges {
 public:
  nvtx_ranges() : domain_(nvtxDomainCreateA("pushpull")) {}
  nvtx_ranges(nvtx_ranges&& other) noexcept : domain_(std::exchange(other.domain_, nullptr)) {}
  nvtx_ranges& operator=(nvtx_ranges&&) = delete;
  ~nvtx_ranges() {
    if (domain_ != nullptr) nvtxDomainDestroy(domain_);
  }

  /// Begins or ends a range. For `tracing`.
  void operator()(event const& e) const {
    if (e.what == activity::message) return;  // NVTX's ids would have to be kept until the messages end
    if (e.phase == phase::end) {
      nvtxDomainRangePop(domain_);
      return;
    }
    std::string text(e.name);
    if (!e.keys.empty()) text.append(" ").append(e.keys);
    if (e.what != activity::operation) text.append(" ").append(std::to_string(e.bytes)).append(" B");
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = text.c_str();
    attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    attributes.payload.llValue = e.bytes;
    nvtxDomainRangePushEx(domain_, &attributes);
  }

 private:
  nvtxDomainHandle_t domain_;
};

#else

/// Stands in where NVTX's headers are missing or PUSHPULL_NVTX is 0.
struct nvtx_ranges {
  void operator()(event const&) const {}
};

#endif

}  // namespace pushpull::profile
