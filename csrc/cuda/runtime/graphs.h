// Long sequences of launches, kept as executable graphs: a call that comes again with the same
// shapes and addresses is one launch. Allocators that cache make such calls the rule in training
// loops.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

namespace fusedrnn::cuda {

// All that a sequence of launches depends on, as bytes.
class GraphKey {
 public:
  template <class T>
  void add(const T& value) {
    static_assert(std::has_unique_object_representations_v<T>, "no padding");
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

class GraphCache {
 public:
  using Work = std::function<void(cudaStream_t)>;

  // `capture_stream`: a stream that nothing else uses.
  explicit GraphCache(cudaStream_t capture_stream) : capture_stream_(capture_stream) {}

  // Puts `work`, of about `launches` launches, on the stream. At the first sight of a key it runs
  // as it is; at the second it is captured; from then on replayed.
  void run(const GraphKey& key, int64_t launches, cudaStream_t stream, const Work& work);

 private:
  struct Entry {
    std::string key;
    int64_t launches;
    cudaGraphExec_t graph = nullptr;  // null: seen once, or not to be captured
    bool refused = false;             // by the runtime
  };
  using Entries = std::list<Entry>;  // the latest first

  bool replay(const GraphKey& key, int64_t launches, cudaStream_t stream, const Work& work);
  Entry* find(const std::string& key);
  void remember(const std::string& key, int64_t launches);
  void forget_oldest();
  cudaGraphExec_t capture(const Work& work);

  const cudaStream_t capture_stream_;
  std::mutex mutex_;
  Entries entries_;
  int64_t launches_ = 0;  // of all entries
  std::unordered_map<std::string_view, Entries::iterator> by_key_;
};

}  // namespace fusedrnn::cuda
