#include "engine/stream.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "engine/runtime.h"

namespace fusedrnn::emulator {
namespace {

struct Handles {
  std::unordered_map<const void*, std::unique_ptr<CUstream_st>> streams;
  std::unordered_map<const void*, std::unique_ptr<CUevent_st>> events;
  std::vector<CUstream_st*> in_order;  // streams that may still have work; first made, first here
  // Those that have been destroyed are kept, and their handles never given out again, so that a
  // stale one is found.
  std::vector<std::unique_ptr<CUstream_st>> ended_streams;
  std::vector<std::unique_ptr<CUevent_st>> ended_events;
  std::map<int, CUstream_st*> legacy;  // by device
};

Handles& handles() {
  static auto* const all = new Handles;  // outlives every static object that uses a stream
  return *all;
}

CUstream_st& legacy_stream(int device) {
  CUstream_st*& stream = handles().legacy[device];
  if (stream == nullptr) stream = &new_stream(cudaStreamDefault, true);
  return *stream;
}

CUstream_st& stream_of_thread(int device) {
  thread_local std::map<int, CUstream_st*> streams;
  CUstream_st*& stream = streams[device];
  if (stream == nullptr) stream = &new_stream(cudaStreamDefault);
  return *stream;
}

bool blocking(const CUstream_st& stream) {
  return !stream.legacy && (stream.flags & cudaStreamNonBlocking) == 0;
}

// The legacy stream waits for every blocking stream of its device, and they for it.
std::vector<Work> implied_order(const CUstream_st& stream) {
  std::vector<Work> before;
  if (stream.legacy) {
    for (const CUstream_st* other : live_streams()) {
      if (blocking(*other) && other->device == stream.device) before.push_back(other->last);
    }
  } else if (blocking(stream)) {
    before.push_back(legacy_stream(stream.device).last);
  }
  before.push_back(stream.last);
  return before;
}

void unite(std::vector<size_t>& nodes, const std::vector<size_t>& more) {
  for (const size_t node : more) {
    if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) nodes.push_back(node);
  }
}

}  // namespace

CUstream_st& new_stream(unsigned flags, bool legacy) {
  auto stream = std::make_unique<CUstream_st>();
  stream->device = current_device();
  stream->flags = flags;
  stream->legacy = legacy;
  CUstream_st& own = *stream;
  handles().in_order.push_back(&own);
  handles().streams.emplace(&own, std::move(stream));
  return own;
}

void destroy(CUstream_st& stream) {
  const auto found = handles().streams.find(&stream);
  handles().ended_streams.push_back(std::move(found->second));
  handles().streams.erase(found);
  stream.destroyed = true;
}

CUevent_st& new_event(unsigned flags) {
  auto event = std::make_unique<CUevent_st>();
  event->device = current_device();
  event->timing = (flags & cudaEventDisableTiming) == 0;
  CUevent_st& own = *event;
  handles().events.emplace(&own, std::move(event));
  return own;
}

void destroy(CUevent_st& event) {
  const auto found = handles().events.find(&event);
  event.capture = nullptr;
  event.capture_nodes.clear();
  event.recorded = nullptr;
  handles().ended_events.push_back(std::move(found->second));
  handles().events.erase(found);
}

const std::vector<CUstream_st*>& live_streams() {
  std::vector<CUstream_st*>& streams = handles().in_order;
  std::erase_if(streams, [](const CUstream_st* stream) {
    return stream->destroyed && (stream->last == nullptr || stream->last->done);
  });
  return streams;
}

CUstream_st& stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_stream(current_device());
  if (handle == cudaStreamPerThread) return stream_of_thread(current_device());
  const auto found = handles().streams.find(handle);
  if (found != handles().streams.end()) return *found->second;
  throw Fault{cudaErrorInvalidResourceHandle, "a stream that does not exist"};
}

CUevent_st& event_of(cudaEvent_t handle) {
  const auto found = handles().events.find(handle);
  if (found != handles().events.end()) return *found->second;
  throw Fault{cudaErrorInvalidResourceHandle, "an event that does not exist"};
}

void submit(CUstream_st& stream, std::function<void()> run) {
  if (stream.capture != nullptr) {
    add_node(stream, std::move(run));
  } else {
    enqueue(stream, std::move(run));
  }
}

Work enqueue(CUstream_st& stream, std::function<void()> run, const std::vector<Work>& also) {
  refuse_implicit_order(stream);
  Work work = std::make_shared<Operation>();
  work->run = std::move(run);
  std::vector<Work> before = implied_order(stream);
  before.insert(before.end(), also.begin(), also.end());
  for (Work& other : before) {
    if (other != nullptr && !other->done) work->before.push_back(std::move(other));
  }
  stream.last = work;
  Runtime& r = runtime();
  r.drive([&] { r.queue.add(work); });
  return work;
}

void record(CUevent_st& event, CUstream_st& stream) {
  require(event.device == stream.device, cudaErrorInvalidResourceHandle,
          "an event and a stream of different devices");
  if (stream.capture != nullptr) {
    event.capture = stream.capture;
    event.capture_nodes = stream.capture_last;
    return;
  }
  event.capture = nullptr;
  event.recorded = enqueue(stream, {});
}

void wait(CUstream_st& stream, const CUevent_st& event) {
  const bool captured = event.capture != nullptr && !event.capture->ended;
  if (stream.capture != nullptr) {
    if (stream.capture->invalid) throw Fault{cudaErrorStreamCaptureInvalidated, ""};
    if (!captured) {
      invalidate(*stream.capture, cudaErrorStreamCaptureIsolation, "cudaStreamWaitEvent");
    }
    if (event.capture != stream.capture) {
      invalidate(*stream.capture, cudaErrorStreamCaptureMerge, "cudaStreamWaitEvent");
    }
    unite(stream.capture_last, event.capture_nodes);
    return;
  }
  if (captured) {
    if (stream.legacy) {
      invalidate(*event.capture, cudaErrorStreamCaptureImplicit, "cudaStreamWaitEvent");
    }
    stream.capture = event.capture;
    stream.capture_last = event.capture_nodes;
    return;
  }
  if (event.recorded != nullptr) enqueue(stream, {}, {event.recorded});
}

void synchronize(CUstream_st& stream) {
  Runtime& r = runtime();
  r.drive([&] {
    for (const Work& work : implied_order(stream)) r.queue.run_until(work);
    r.memory.check_released();
  });
}

void synchronize_device(int device) {
  Runtime& r = runtime();
  r.drive([&] {
    const std::vector<CUstream_st*> streams = live_streams();
    for (const CUstream_st* stream : streams) {
      if (stream->device == device) r.queue.run_until(stream->last);
    }
    r.memory.check_guards();
    r.memory.check_released();
  });
}

}  // namespace fusedrnn::emulator
