// The runtime's calls about streams and events.
#include "engine/capture.h"
#include "engine/runtime.h"
#include "engine/stream.h"

using namespace fusedrnn::emulator;  // NOLINT: this file defines functions outside of it

namespace {

// A query lets one piece of work run, so that code that polls comes to an end.
void query(Runtime& r, const Work& work) {
  if (work == nullptr || work->done) return;
  r.drive([&] { r.queue.run_one(); });
  if (!work->done) throw Fault{cudaErrorNotReady, ""};
}

}  // namespace

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call([&](Runtime& r) {
    require(current_device() < r.devices, cudaErrorInvalidDevice, "");
    *stream = &new_stream(flags);
  });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call([&](Runtime&) {
    CUstream_st& own = stream_of(stream);
    require(&own == stream, cudaErrorInvalidResourceHandle, "a default stream is not destroyed");
    refuse_in_capture(own, "cudaStreamDestroy");
    destroy(own);
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call([&](Runtime&) {
    CUstream_st& own = stream_of(stream);
    refuse_in_capture(own, "cudaStreamSynchronize");
    synchronize(own);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return call([&](Runtime& r) {
    CUstream_st& own = stream_of(stream);
    refuse_in_capture(own, "cudaStreamQuery");
    query(r, own.last);
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call([&](Runtime&) { wait(stream_of(stream), event_of(event)); });
}

cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return call([&](Runtime&) { *device = stream_of(stream).device; });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return call([&](Runtime&) { *flags = stream_of(stream).flags; });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return call([&](Runtime&) {
    submit(stream_of(stream), [=] {
      const NothingOfCuda guard;
      function(data);
    });
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&](Runtime&) { *event = &new_event(flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call([&](Runtime&) { destroy(event_of(event)); });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&](Runtime&) { record(event_of(event), stream_of(stream)); });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return call([&](Runtime& r) {
    const CUevent_st& own = event_of(event);
    if (own.capture != nullptr && !own.capture->ended) {
      invalidate(*own.capture, cudaErrorCapturedEvent, "cudaEventQuery");
    }
    query(r, own.recorded);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&](Runtime& r) {
    const CUevent_st& own = event_of(event);
    if (own.capture != nullptr && !own.capture->ended) {
      invalidate(*own.capture, cudaErrorCapturedEvent, "cudaEventSynchronize");
    }
    r.drive([&] { r.queue.run_until(own.recorded); });
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call([&](Runtime&) {
    for (const cudaEvent_t event : {start, end}) {
      const CUevent_st& own = event_of(event);
      require(own.timing && own.recorded != nullptr, cudaErrorInvalidResourceHandle,
              "an event without timing, or never recorded");
      require(own.recorded->done, cudaErrorNotReady, "");
    }
    *milliseconds = 0.001f;  // the emulator's work takes no time that means anything
  });
}
