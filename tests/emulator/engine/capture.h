// Work that is captured instead of queued, and the graphs that become of it.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <thread>
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
  std::vector<const void*> memory;  // of its allocation nodes
  ~GraphContent();
};

struct Capture {
  std::shared_ptr<GraphContent> graph = std::make_shared<GraphContent>();
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  const CUstream_st* origin = nullptr;
  bool invalid = false;
  bool ended = false;
};

void begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode);
std::shared_ptr<GraphContent> end_capture(CUstream_st& stream);
void add_node(CUstream_st& stream, std::function<void()> run);
[[noreturn]] void invalidate(Capture& capture, cudaError_t code, const char* what);

// Throws where the call would wait for, or be ordered against, work that is being captured.
void refuse_in_capture(const CUstream_st& stream, const char* call);
void refuse_unsafe_call(const char* call);  // as cudaStreamBeginCapture's modes say
void refuse_any_capture(const char* call);
// The legacy stream waits for all blocking streams, which a capture forbids.
void refuse_implicit_order(const CUstream_st& stream);

cudaStreamCaptureMode exchange_thread_mode(cudaStreamCaptureMode mode);

}  // namespace fusedrnn::emulator

struct CUgraph_st {
  std::shared_ptr<fusedrnn::emulator::GraphContent> content;
};

struct CUgraphExec_st {
  std::shared_ptr<fusedrnn::emulator::GraphContent> content;
  fusedrnn::emulator::Work last;  // launches of one executable never overlap
};

namespace fusedrnn::emulator {

void launch_graph(CUgraphExec_st& exec, CUstream_st& stream);

}  // namespace fusedrnn::emulator
