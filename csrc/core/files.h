// Files: read whole, and written so that no reader ever sees half of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fusedrnn {

// A regular file, open for reading. Throws FileError, and where something else is at the path what
// it is.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  uint64_t size() const { return size_; }
  // The next bytes; fewer where the file ends.
  size_t read(void* bytes, size_t count);

 private:
  std::string path_;
  int descriptor_;
  uint64_t size_ = 0;
};

// Either all of it is there afterwards, or what was there before. Throws as FileReader does.
void write_file(const std::string& path, const void* bytes, size_t count);

}  // namespace fusedrnn
