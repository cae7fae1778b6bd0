#include "core/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "core/error.h"

namespace fusedrnn {
namespace {

// What `status` says is no regular file.
[[noreturn]] void throw_wrong_kind(const std::string& path, mode_t mode, const char* wanted) {
  const char* const kind = S_ISDIR(mode)                    ? "a folder"
                           : S_ISFIFO(mode)                 ? "a FIFO"
                           : S_ISSOCK(mode)                 ? "a socket"
                           : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                           : S_ISLNK(mode)                  ? "a symbolic link to nothing"
                                                            : "something else";
  refuse_value(path.c_str(), wanted, kind);
}

// The file that a path leads to, which may not be there yet.
std::string target_of(const std::string& path, struct stat& found, bool& exists) {
  exists = stat(path.c_str(), &found) == 0;
  if (exists) {
    if (!S_ISREG(found.st_mode)) throw_wrong_kind(path, found.st_mode, "a file or nothing");
    const std::unique_ptr<char, void (*)(void*)> real(realpath(path.c_str(), nullptr), std::free);
    if (real == nullptr) throw FileError(path, errno);
    return real.get();
  }
  const int code = errno;
  if (code == ENOENT && lstat(path.c_str(), &found) == 0) {
    throw_wrong_kind(path, found.st_mode, "a file or nothing");
  }
  if (code != ENOENT) throw FileError(path, code);
  return path;
}

// A new file of a name of its own beside `target`.
int create_beside(const std::string& target, std::string& name) {
  const std::string folder = target.substr(0, target.rfind('/') + 1);
  for (unsigned i = 0;; ++i) {
    name = folder + ".fusedrnn-" + std::to_string(getpid()) + "-" + std::to_string(i);
    const int descriptor = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0 || errno != EEXIST) return descriptor;
  }
}

void write_all(int descriptor, const std::string& path, const char* bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = write(descriptor, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw FileError(path, errno);
    bytes += written;
    count -= static_cast<size_t>(written);
  }
}

}  // namespace

FileReader::FileReader(const std::string& path)
    // A FIFO is not waited for.
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (descriptor_ < 0) throw FileError(path, errno);
  struct stat found{};
  const int code = fstat(descriptor_, &found) == 0 ? 0 : errno;
  if (code == 0 && S_ISREG(found.st_mode)) {
    size_ = static_cast<uint64_t>(found.st_size);
    return;
  }
  close(descriptor_);
  if (code != 0) throw FileError(path, code);
  throw_wrong_kind(path, found.st_mode, "a file");
}

FileReader::~FileReader() { close(descriptor_); }

size_t FileReader::read(void* bytes, size_t count) {
  size_t done = 0;
  while (done < count) {
    const ssize_t got = ::read(descriptor_, static_cast<char*>(bytes) + done, count - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw FileError(path_, errno);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void write_file(const std::string& path, const void* bytes, size_t count) {
  struct stat found{};
  bool exists = false;
  const std::string target = target_of(path, found, exists);
  // A file is replaced, and never written; but one that is protected is not to be replaced.
  if (exists && access(target.c_str(), W_OK) != 0) throw FileError(path, errno);
  std::string name;
  const int descriptor = create_beside(target, name);
  if (descriptor < 0) throw FileError(path, errno);
  bool is_open = true;
  try {
    write_all(descriptor, path, static_cast<const char*>(bytes), count);
    if (exists && fchmod(descriptor, found.st_mode & 07777) != 0) throw FileError(path, errno);
    if (fsync(descriptor) != 0) throw FileError(path, errno);
    is_open = false;
    if (close(descriptor) != 0) throw FileError(path, errno);
    if (rename(name.c_str(), target.c_str()) != 0) throw FileError(path, errno);
  } catch (...) {
    if (is_open) close(descriptor);
    unlink(name.c_str());
    throw;
  }
}

}  // namespace fusedrnn
