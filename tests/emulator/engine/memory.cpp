#include "engine/memory.h"

#include <cstdlib>
#include <cstring>

#include "engine/block.h"
#include "engine/fault.h"

namespace fusedrnn::emulator {
namespace {

constexpr size_t kAlignment = 256;  // as the CUDA runtime has it
constexpr size_t kGuard = 256;      // on either side
constexpr size_t kTotal = size_t{8} << 30;

size_t rounded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

bool poisoned(const unsigned char* p, size_t bytes) {
  return bytes == 0 || (p[0] == kPoison && std::memcmp(p, p + 1, bytes - 1) == 0);
}

std::string described(size_t bytes) {
  return "an allocation of " + std::to_string(bytes) + " bytes";
}

}  // namespace

void poison(void* address, size_t bytes) { std::memset(address, kPoison, bytes); }

Allocation& Memory::allocate(size_t bytes, int device) {
  if (fail_after_ == 0 || bytes > kTotal - live_bytes_) throw Fault{cudaErrorMemoryAllocation, ""};
  if (fail_after_ > 0) --fail_after_;
  unsigned char* const data = take(bytes);
  poison(data - kGuard, rounded(bytes) + 2 * kGuard);
  live_bytes_ += bytes;
  Allocation& allocation = live_[reinterpret_cast<uintptr_t>(data)];
  allocation.data = data;
  allocation.bytes = bytes;
  allocation.device = device;
  return allocation;
}

unsigned char* Memory::take(size_t bytes) {
  std::set<unsigned char*>& unused = unused_[rounded(bytes)];
  if (!unused.empty()) return unused.extract(unused.begin()).value();
  void* const block = std::aligned_alloc(kAlignment, rounded(bytes) + 2 * kGuard);
  if (block == nullptr) throw Fault{cudaErrorMemoryAllocation, ""};
  return static_cast<unsigned char*>(block) + kGuard;
}

Allocation& Memory::at(const void* address) {
  const auto found = live_.find(reinterpret_cast<uintptr_t>(address));
  if (found == live_.end()) {
    throw Fault{cudaErrorInvalidValue, "release of an address that is not allocated"};
  }
  if (found->second.state == Allocation::State::ending) {
    throw Fault{cudaErrorInvalidValue, "a second release of " + described(found->second.bytes)};
  }
  return found->second;
}

Allocation* Memory::holding(const void* address) {
  const auto key = reinterpret_cast<uintptr_t>(address);
  auto next = live_.upper_bound(key);
  if (next == live_.begin()) return nullptr;
  Allocation& allocation = std::prev(next)->second;
  return key < std::prev(next)->first + std::max<size_t>(allocation.bytes, 1) ? &allocation
                                                                              : nullptr;
}

void Memory::release(const void* address) {
  const auto found = live_.find(reinterpret_cast<uintptr_t>(address));
  if (found == live_.end() || --found->second.holders > 0) return;
  const Released released{found->second.data, found->second.bytes};
  live_bytes_ -= released.bytes;
  live_.erase(found);
  poison(released.data, released.bytes);
  quarantine_.push_back(released);
  quarantined_bytes_ += rounded(released.bytes);
  set_quarantine(quarantine_limit_);
}

void Memory::set_quarantine(size_t bytes) {
  quarantine_limit_ = bytes;
  while (quarantined_bytes_ > quarantine_limit_) {
    const Released oldest = quarantine_.front();
    quarantine_.pop_front();
    quarantined_bytes_ -= rounded(oldest.bytes);
    leave_quarantine(oldest);
  }
}

void Memory::leave_quarantine(const Released& released) {
  unused_[rounded(released.bytes)].insert(released.data);
  if (!poisoned(released.data - kGuard, rounded(released.bytes) + 2 * kGuard)) {
    throw Fault{cudaErrorIllegalAddress, "written after its release: " + described(released.bytes)};
  }
}

void Memory::check_guards() const {
  for (const auto& [address, allocation] : live_) {
    if (!poisoned(allocation.data - kGuard, kGuard)) {
      throw Fault{cudaErrorIllegalAddress,
                  "written before the start of " + described(allocation.bytes)};
    }
    const size_t behind = rounded(allocation.bytes) - allocation.bytes + kGuard;
    if (!poisoned(allocation.data + allocation.bytes, behind)) {
      throw Fault{cudaErrorIllegalAddress,
                  "written behind the end of " + described(allocation.bytes)};
    }
  }
}

void Memory::check_released() const {
  for (const Released& released : quarantine_) {
    if (!poisoned(released.data - kGuard, rounded(released.bytes) + 2 * kGuard)) {
      throw Fault{cudaErrorIllegalAddress,
                  "written after its release: " + described(released.bytes)};
    }
  }
}

void Memory::repair() {
  for (const auto& [address, allocation] : live_) {
    poison(allocation.data - kGuard, kGuard);
    poison(allocation.data + allocation.bytes,
           rounded(allocation.bytes) - allocation.bytes + kGuard);
  }
  for (const Released& released : quarantine_) {
    poison(released.data - kGuard, rounded(released.bytes) + 2 * kGuard);
  }
}

void Memory::check_range(const void* address, size_t bytes, const char* what) {
  const Allocation* const allocation = holding(address);
  if (allocation == nullptr) {
    for (const Released& released : quarantine_) {
      if (address >= released.data && address < released.data + released.bytes) {
        throw Fault{cudaErrorIllegalAddress, std::string(what) + ": memory that has been released"};
      }
    }
    return;
  }
  const auto first =
      static_cast<size_t>(static_cast<const unsigned char*>(address) - allocation->data);
  if (bytes > allocation->bytes - first) {
    throw Fault{cudaErrorInvalidValue, std::string(what) + ": " + std::to_string(bytes) +
                                           " bytes at " + std::to_string(first) + " of " +
                                           described(allocation->bytes)};
  }
}

size_t Memory::total_bytes() const { return kTotal; }

void Memory::abandon_ending() {
  std::vector<const void*> ending;
  for (const auto& [address, allocation] : live_) {
    if (allocation.state == Allocation::State::ending) ending.push_back(allocation.data);
  }
  for (const void* address : ending) release(address);
}

}  // namespace fusedrnn::emulator
