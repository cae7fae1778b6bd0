// Model files: a network and its frozen weights (docs/model_file.md).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/frozen.h"

namespace fusedrnn::model_file {

// What a file says beside, to whom it may concern.
struct Notes {
  bool batch_first = false;  // arrays of Python's layer are [B,T,I]
};

// Throws FileError; the network's bytes are written all or not at all.
void save(const fusedrnn_frozen& frozen, const Notes& notes, const std::string& path);

// Throw where it is no model file: messages begin with the path, or with `name`.
std::unique_ptr<fusedrnn_frozen> load(const std::string& path, Notes& notes);
std::unique_ptr<fusedrnn_frozen> read(const char* name, const void* bytes, size_t size,
                                      Notes& notes);

}  // namespace fusedrnn::model_file
