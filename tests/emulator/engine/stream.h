// Streams and events, and how work is ordered by them.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <vector>

#include "engine/capture.h"
#include "engine/queue.h"

struct CUstream_st {
  int device = 0;
  unsigned flags = cudaStreamDefault;
  bool legacy = false;
  bool destroyed = false;
  fusedrnn::emulator::Work last;  // null: nothing was given to it yet
  // While it takes part in a capture: that, and the nodes that its next one follows.
  std::shared_ptr<fusedrnn::emulator::Capture> capture;
  std::vector<size_t> capture_last;
};

struct CUevent_st {
  int device = 0;
  bool timing = true;
  fusedrnn::emulator::Work recorded;  // null: never
  // Where it was last recorded in a capture.
  std::shared_ptr<fusedrnn::emulator::Capture> capture;
  std::vector<size_t> capture_nodes;
};

namespace fusedrnn::emulator {

// The stream behind a handle, which may be one of the default streams'. Throws Fault.
CUstream_st& stream_of(cudaStream_t handle);
CUevent_st& event_of(cudaEvent_t handle);

CUstream_st& new_stream(unsigned flags, bool legacy = false);
CUevent_st& new_event(unsigned flags);
// Their handles are no longer valid; work that was given to the stream still runs.
void destroy(CUstream_st& stream);
void destroy(CUevent_st& event);
// Those that exist, or still have work to do, in the order in which they were made.
const std::vector<CUstream_st*>& live_streams();

// Queues work behind what the stream's order asks for, or adds it to the graph that is captured.
void submit(CUstream_st& stream, std::function<void()> run);
// As submit(), but never captured. `also`: what it waits for beside the stream's order.
Work enqueue(CUstream_st& stream, std::function<void()> run, const std::vector<Work>& also = {});

void record(CUevent_st& event, CUstream_st& stream);
void wait(CUstream_st& stream, const CUevent_st& event);
void synchronize(CUstream_st& stream);
void synchronize_device(int device);

}  // namespace fusedrnn::emulator
