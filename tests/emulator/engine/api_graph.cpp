// The runtime's calls about captures and graphs.
#include "engine/capture.h"
#include "engine/runtime.h"
#include "engine/stream.h"

using namespace fusedrnn::emulator;  // NOLINT: this file defines functions outside of it

namespace {

constexpr const char* kNoNodes = "the emulator counts nodes, and names none";

cudaStreamCaptureStatus status_of(const CUstream_st& stream) {
  if (stream.capture != nullptr) {
    return stream.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
  }
  if (!stream.legacy) return cudaStreamCaptureStatusNone;
  for (const CUstream_st* other : live_streams()) {
    require(other->capture == nullptr || (other->flags & cudaStreamNonBlocking) != 0,
            cudaErrorStreamCaptureImplicit, "");
  }
  return cudaStreamCaptureStatusNone;
}

}  // namespace

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&](Runtime&) { begin_capture(stream_of(stream), mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&](Runtime&) {
    *graph = nullptr;
    *graph = end_capture(stream_of(stream)).release();
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call([&](Runtime&) { *status = status_of(stream_of(stream)); });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  return call([&](Runtime&) {
    require(dependencies == nullptr && edges == nullptr && count == nullptr, cudaErrorNotSupported,
            kNoNodes);
    const CUstream_st& own = stream_of(stream);
    *status = status_of(own);
    if (*status != cudaStreamCaptureStatusActive) return;
    if (id != nullptr) *id = own.capture->id;
    if (graph != nullptr) *graph = own.capture->graph.get();
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return call([&](Runtime&) { *mode = exchange_thread_mode(*mode); });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return call([&](Runtime&) {
    require(graph != nullptr, cudaErrorInvalidValue, "no graph");
    *exec = new CUgraphExec_st{graph->content, nullptr};
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return call([&](Runtime&) {
    require(exec != nullptr, cudaErrorInvalidValue, "no executable graph");
    enqueue(stream_of(stream), {});
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call([&](Runtime&) {
    require(exec != nullptr, cudaErrorInvalidValue, "no executable graph");
    launch_graph(*exec, stream_of(stream));
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return call([&](Runtime&) {
    require(exec != nullptr, cudaErrorInvalidValue, "no executable graph");
    delete exec;
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return call([&](Runtime&) {
    require(graph != nullptr, cudaErrorInvalidValue, "no graph");
    delete graph;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call([&](Runtime&) {
    require(graph != nullptr, cudaErrorInvalidValue, "no graph");
    require(nodes == nullptr, cudaErrorNotSupported, kNoNodes);
    *count = graph->content->nodes.size();
  });
}

cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* data, cudaHostFn_t destroy,
                                 unsigned references, unsigned flags) {
  return call([&](Runtime&) {
    require(flags == cudaUserObjectNoDestructorSync && references > 0 && destroy != nullptr,
            cudaErrorInvalidValue, "a user object without its flag, references or destructor");
    *object = new CUuserObject_st{data, destroy, references};
  });
}

cudaError_t cudaUserObjectRetain(cudaUserObject_t object, unsigned count) {
  return call([&](Runtime&) { object->references += count; });
}

cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned count) {
  return call([&](Runtime&) { release(object, count); });
}

cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object, unsigned count,
                                      unsigned flags) {
  return call([&](Runtime&) {
    require(graph != nullptr && object != nullptr && count > 0, cudaErrorInvalidValue,
            "no graph, no user object, or no reference");
    if ((flags & cudaGraphUserObjectMove) == 0) object->references += count;
    graph->content->objects.emplace_back(object, count);
  });
}
