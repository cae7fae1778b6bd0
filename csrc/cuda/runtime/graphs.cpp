#include "cuda/runtime/graphs.h"

#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "cuda/device/check.h"

namespace fusedrnn::cuda {
namespace {

// Of a device. A launch of a graph takes about a kilobyte.
constexpr size_t kMostEntries = 64;
constexpr int64_t kMostLaunches = 100000;
constexpr int64_t kFewestLaunches = 12;  // that are worth a graph

bool enabled() {
  static const bool value = [] {
    const char* text = std::getenv("FUSEDRNN_CUDA_GRAPHS");
    return text == nullptr || std::strcmp(text, "0") != 0;
  }();
  return value;
}

}  // namespace

void GraphCache::run(const GraphKey& key, int64_t launches, cudaStream_t stream, const Work& work) {
  const bool worth = launches >= kFewestLaunches && launches <= kMostLaunches;
  if (!worth || !enabled() || !replay(key, launches, stream, work)) work(stream);
}

// False where the work is still to be done. The lock is held while a graph is launched, so that
// nobody removes it; other threads wait for a capture, which puts nothing on the device.
bool GraphCache::replay(const GraphKey& key, int64_t launches, cudaStream_t stream,
                        const Work& work) {
  const std::lock_guard lock(mutex_);
  Entry* const entry = find(key.bytes());
  if (entry == nullptr) {
    remember(key.bytes(), launches);
    return false;
  }
  if (entry->refused) return false;
  if (entry->graph == nullptr) {
    entry->graph = capture(work);
    entry->refused = entry->graph == nullptr;
    if (entry->refused) return false;
  }
  check(cudaGraphLaunch(entry->graph, stream), "cudaGraphLaunch");
  return true;
}

GraphCache::Entry* GraphCache::find(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return &entries_.front();
}

void GraphCache::remember(const std::string& key, int64_t launches) {
  while (entries_.size() == kMostEntries || launches_ + launches > kMostLaunches) forget_oldest();
  entries_.push_front({key, launches});
  by_key_.emplace(entries_.front().key, entries_.begin());
  launches_ += launches;
}

void GraphCache::forget_oldest() {
  Entry& oldest = entries_.back();
  by_key_.erase(oldest.key);
  launches_ -= oldest.launches;
  // A graph that still runs is destroyed when it has ended.
  if (oldest.graph != nullptr) cudaGraphExecDestroy(oldest.graph);
  entries_.pop_back();
}

// Null where the runtime refuses: the work then runs as it is, and tells what is wrong.
cudaGraphExec_t GraphCache::capture(const Work& work) {
  if (cudaStreamBeginCapture(capture_stream_, cudaStreamCaptureModeRelaxed) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  bool complete = true;
  try {
    work(capture_stream_);
  } catch (const std::exception&) {
    complete = false;
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  complete = cudaStreamEndCapture(capture_stream_, &graph) == cudaSuccess && complete;
  if (complete && cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) executable = nullptr;
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
  return executable;
}

}  // namespace fusedrnn::cuda
