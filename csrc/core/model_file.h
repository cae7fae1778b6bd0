// Model files: a network and its frozen weights (docs/model_file.md).
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "core/frozen.h"

namespace fusedrnn::model_file {

// Throws FileError; the network's bytes are written all or not at all.
void save(const fusedrnn_frozen& frozen, const std::string& path);

// Throw where it is no model file: messages begin with the path, or with `name`.
std::unique_ptr<fusedrnn_frozen> load(const std::string& path);
std::unique_ptr<fusedrnn_frozen> read(const char* name, const void* bytes, size_t size);

}  // namespace fusedrnn::model_file
