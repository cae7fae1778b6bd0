// Work that is captured instead of queued, and the graphs that become of it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "engine/queue.h"

namespace fusedrnn::emulator {

struct GraphNode {
  std::function<void()> run;
  std::vector<size_t> before;
};

// What a graph and its executables share. Nodes come after those they wait for.
struct GraphContent {
  std::vector<GraphNode> nodes;
  std::vector<const void*> memory;                             // of its allocation nodes
  std::vector<std::pair<cudaUserObject_t, unsigned>> objects;  // and the references to each
  ~GraphContent();
};

// Calls the object's destructor with the last of its references.
void release(cudaUserObject_t object, unsigned count);

}  // namespace fusedrnn::emulator

struct CUgraph_st {
  std::shared_ptr<fusedrnn::emulator::GraphContent> content;
};

struct CUgraphExec_st {
  std::shared_ptr<fusedrnn::emulator::GraphContent> content;
  fusedrnn::emulator::Work last;  // launches of one executable never overlap
};

struct CUuserObject_st {
  void* data;
  cudaHostFn_t destroy;
  unsigned references;
};

namespace fusedrnn::emulator {

struct Capture {
  uint64_t id = 0;
  std::unique_ptr<CUgraph_st> graph;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  const CUstream_st* origin = nullptr;
  bool invalid = false;
  bool ended = false;
};

void begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode);
std::unique_ptr<CUgraph_st> end_capture(CUstream_st& stream);
void add_node(CUstream_st& stream, std::function<void()> run);
[[noreturn]] void invalidate(Capture& capture, cudaError_t code, const char* what);

// Throws where the call would wait for, or be ordered against, work that is being captured.
void refuse_in_capture(const CUstream_st& stream, const char* call);
void refuse_unsafe_call(const char* call);  // as cudaStreamBeginCapture's modes say
void refuse_any_capture(const char* call);
// The legacy stream waits for all blocking streams, which a capture forbids.
void refuse_implicit_order(const CUstream_st& stream);

cudaStreamCaptureMode exchange_thread_mode(cudaStreamCaptureMode mode);

void launch_graph(CUgraphExec_st& exec, CUstream_st& stream);

}  // namespace fusedrnn::emulator
