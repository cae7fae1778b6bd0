#include "engine/capture.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/runtime.h"
#include "engine/stream.h"

namespace fusedrnn::emulator {
namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

std::vector<Capture*> captures_under_way() {
  std::vector<Capture*> captures;
  for (const CUstream_st* stream : live_streams()) {
    if (stream->capture != nullptr && stream->capture->origin == stream) {
      captures.push_back(stream->capture.get());
    }
  }
  return captures;
}

// Whether the unsafe calls of this thread must not disturb `capture`.
bool protects(const Capture& capture) {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  const bool own = capture.thread == std::this_thread::get_id();
  switch (capture.mode) {
    case cudaStreamCaptureModeGlobal:
      return own || thread_mode == cudaStreamCaptureModeGlobal;
    case cudaStreamCaptureModeThreadLocal:
      return own;
    case cudaStreamCaptureModeRelaxed:
      return false;
  }
  return false;
}

// Whether every node has been joined into `last`: only those may have no successor.
bool all_joined(const GraphContent& graph, const std::vector<size_t>& last) {
  std::vector<bool> followed(graph.nodes.size());
  for (const GraphNode& node : graph.nodes) {
    for (const size_t before : node.before) followed[before] = true;
  }
  for (const size_t node : last) followed[node] = true;
  return std::find(followed.begin(), followed.end(), false) == followed.end();
}

}  // namespace

GraphContent::~GraphContent() {
  for (const void* address : memory) runtime().memory.release(address);
  for (const auto& [object, count] : objects) release(object, count);
}

void release(cudaUserObject_t object, unsigned count) {
  require(count <= object->references, cudaErrorInvalidValue,
          "more references to a user object released than there are");
  object->references -= count;
  if (object->references != 0) return;
  {
    const NothingOfCuda guard;
    object->destroy(object->data);
  }
  delete object;
}

void invalidate(Capture& capture, cudaError_t code, const char* what) {
  capture.invalid = true;
  throw Fault{code, std::string(what) + ": " + text_of(code)};
}

void refuse_in_capture(const CUstream_st& stream, const char* call) {
  if (stream.capture != nullptr) {
    invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported, call);
  }
  refuse_implicit_order(stream);
}

void refuse_unsafe_call(const char* call) {
  for (Capture* capture : captures_under_way()) {
    if (protects(*capture)) invalidate(*capture, cudaErrorStreamCaptureUnsupported, call);
  }
}

void refuse_any_capture(const char* call) {
  for (Capture* capture : captures_under_way()) {
    invalidate(*capture, cudaErrorStreamCaptureUnsupported, call);
  }
}

void refuse_implicit_order(const CUstream_st& stream) {
  if (!stream.legacy) return;
  for (const CUstream_st* other : live_streams()) {
    if (other->capture != nullptr && (other->flags & cudaStreamNonBlocking) == 0) {
      invalidate(*other->capture, cudaErrorStreamCaptureImplicit, "the legacy stream");
    }
  }
}

cudaStreamCaptureMode exchange_thread_mode(cudaStreamCaptureMode mode) {
  return std::exchange(thread_mode, mode);
}

void begin_capture(CUstream_st& stream, cudaStreamCaptureMode mode) {
  static uint64_t next_id = 1;
  require(!stream.legacy, cudaErrorStreamCaptureUnsupported, "capture of the legacy stream");
  require(stream.capture == nullptr, cudaErrorInvalidValue, "the stream is captured already");
  stream.capture = std::make_shared<Capture>();
  stream.capture->id = next_id++;
  stream.capture->graph = std::make_unique<CUgraph_st>();
  stream.capture->graph->content = std::make_shared<GraphContent>();
  stream.capture->mode = mode;
  stream.capture->thread = std::this_thread::get_id();
  stream.capture->origin = &stream;
  stream.capture_last.clear();
}

std::unique_ptr<CUgraph_st> end_capture(CUstream_st& stream) {
  const std::shared_ptr<Capture> capture = stream.capture;
  require(capture != nullptr, cudaErrorInvalidValue, "the stream is not captured");
  require(capture->origin == &stream, cudaErrorStreamCaptureUnmatched, "");
  require(capture->mode == cudaStreamCaptureModeRelaxed ||
              capture->thread == std::this_thread::get_id(),
          cudaErrorStreamCaptureWrongThread, "");
  const std::vector<size_t> last = stream.capture_last;
  capture->ended = true;
  for (CUstream_st* other : live_streams()) {
    if (other->capture == capture) {
      other->capture = nullptr;
      other->capture_last.clear();
    }
  }
  require(!capture->invalid, cudaErrorStreamCaptureInvalidated, "");
  require(all_joined(*capture->graph->content, last), cudaErrorStreamCaptureUnjoined, "");
  return std::move(capture->graph);
}

void add_node(CUstream_st& stream, std::function<void()> run) {
  Capture& capture = *stream.capture;
  require(!capture.invalid, cudaErrorStreamCaptureInvalidated, "");
  std::vector<GraphNode>& nodes = capture.graph->content->nodes;
  nodes.push_back({std::move(run), stream.capture_last});
  stream.capture_last = {nodes.size() - 1};
}

void launch_graph(CUgraphExec_st& exec, CUstream_st& stream) {
  if (stream.capture != nullptr) {
    invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported, "cudaGraphLaunch");
  }
  Runtime& r = runtime();
  const Work begin = enqueue(stream, {}, {exec.last});
  std::vector<Work> works;
  for (const GraphNode& node : exec.content->nodes) {
    Work work = std::make_shared<Operation>();
    work->run = [content = exec.content, &node] {
      if (node.run) node.run();
    };
    work->before.push_back(begin);
    for (const size_t before : node.before) work->before.push_back(works[before]);
    works.push_back(work);
    r.drive([&] { r.queue.add(work); });
  }
  exec.last = enqueue(stream, {}, works);
}

}  // namespace fusedrnn::emulator
