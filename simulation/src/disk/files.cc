// Files in memory that lose their unsynced data: RocksDB's own memory file system under its own
// fault injection, for one database each. The C++ side of files.rs.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "env/composite_env_wrapper.h"
#include "env/mock_env.h"
#include "utilities/fault_injection_fs.h"

using namespace ROCKSDB_NAMESPACE;

// As in RocksDB's C interface (db/c.cc), which does not export it.
struct rocksdb_env_t {
  Env* rep;
  bool is_default;
};

namespace {

const std::string kDirectory = "/db/";
const IOOptions kOptions;
// Maximum size of an unsynced tail; a memtable is far smaller.
constexpr size_t kMostUnsynced = 256 << 20;

// A fixed clock: RocksDB would write the time of day into tables.
class StandingClock : public SystemClockWrapper {
 public:
  StandingClock() : SystemClockWrapper(SystemClock::Default()) {}
  const char* Name() const override { return "StandingClock"; }
  Status GetCurrentTime(int64_t* unix_time) override {
    *unix_time = 1700000000;
    return Status::OK();
  }
};

bool IsLog(const std::string& name) {
  return name.size() > 4 && name.compare(name.size() - 4, 4, ".log") == 0;
}

}  // namespace

struct ropewalk_files {
  std::shared_ptr<SystemClock> clock = std::make_shared<StandingClock>();
  std::shared_ptr<MockFileSystem> synced = std::make_shared<MockFileSystem>(clock);
  std::shared_ptr<FaultInjectionTestFS> all = std::make_shared<FaultInjectionTestFS>(synced);

  ropewalk_files() { all->SetInjectUnsyncedDataLoss(true); }

  // Sorted names, without the lock file, which ends with its process.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    synced->GetChildren(kDirectory, kOptions, &names, nullptr).PermitUncheckedError();
    names.erase(std::remove(names.begin(), names.end(), "LOCK"), names.end());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string Synced(const std::string& name) const {
    std::string data;
    ReadFileToString(synced.get(), kDirectory + name, &data).PermitUncheckedError();
    return data;
  }

  std::string Unsynced(const std::string& name) const {
    std::string path = kDirectory + name;
    uint64_t begin = 0;
    synced->GetFileSize(path, kOptions, &begin, nullptr).PermitUncheckedError();
    std::unique_ptr<char[]> scratch(new char[kMostUnsynced]);
    Slice data;
    int64_t last_sync = -1;
    all->ReadUnsynced(path, begin, kMostUnsynced, &data, scratch.get(), &last_sync);
    return data.ToString();
  }
};

extern "C" {

ropewalk_files* ropewalk_files_new() { return new ropewalk_files; }

void ropewalk_files_free(ropewalk_files* files) { delete files; }

// An environment that keeps its files alive; rocksdb_env_destroy frees it.
rocksdb_env_t* ropewalk_files_env(const ropewalk_files* files) {
  return new rocksdb_env_t{
      new CompositeEnvWrapper(Env::Default(), files->all, files->clock), false};
}

// Bytes of write-ahead logs that are written but not synced.
uint64_t ropewalk_files_unsynced(const ropewalk_files* files) {
  uint64_t bytes = 0;
  for (const auto& name : files->Names()) {
    if (IsLog(name)) bytes += files->Unsynced(name).size();
  }
  return bytes;
}

// Deletes files whose directory entry is not synced, as a power loss does even if their data is synced.
void ropewalk_files_forget_names(ropewalk_files* files) {
  files->all->SetFilesystemActive(true);
  files->all->DeleteFilesCreatedAfterLastDirSync(kOptions, nullptr).PermitUncheckedError();
}

// The files after a power loss, if `kept` unsynced bytes of write-ahead logs had reached the disk. If
// only the process ends, all data is kept.
ropewalk_files* ropewalk_files_image(const ropewalk_files* files, bool power_lost, uint64_t kept) {
  auto* image = new ropewalk_files;
  for (const auto& name : files->Names()) {
    std::string data = files->Synced(name);
    if (!power_lost) {
      data += files->Unsynced(name);
    } else if (IsLog(name)) {
      std::string tail = files->Unsynced(name);
      size_t part = std::min<uint64_t>(tail.size(), kept);
      data.append(tail, 0, part);
      // No data after a hole has reached the disk.
      kept = part < tail.size() ? 0 : kept - part;
    }
    WriteStringToFile(image->synced.get(), data, kDirectory + name, true, kOptions)
        .PermitUncheckedError();
  }
  return image;
}

// 0: no fault, 1: every operation fails with an I/O error, 2: no space is left.
void ropewalk_files_fail(ropewalk_files* files, int fault) {
  files->all->SetFilesystemActive(
      fault == 0, fault == 2 ? IOStatus::NoSpace("No space left on device")
                             : IOStatus::IOError("Input/output error"));
}

// Calls `tell` with each file's name and synced size.
void ropewalk_files_list(const ropewalk_files* files, void* to,
                         void (*tell)(void*, const char*, size_t, uint64_t)) {
  for (const auto& name : files->Names()) {
    uint64_t size = 0;
    files->synced->GetFileSize(kDirectory + name, kOptions, &size, nullptr)
        .PermitUncheckedError();
    tell(to, name.data(), name.size(), size);
  }
}

// Synced size of a file in bytes; -1 if it does not exist.
int64_t ropewalk_files_size(const ropewalk_files* files, const char* name) {
  uint64_t size = 0;
  bool found = files->synced->GetFileSize(kDirectory + name, kOptions, &size, nullptr).ok();
  return found ? static_cast<int64_t>(size) : -1;
}

// Copies up to `size` bytes of a file's synced data to `to`. Returns their number.
size_t ropewalk_files_read(const ropewalk_files* files, const char* name, char* to, size_t size) {
  std::string data = files->Synced(name);
  size = std::min(size, data.size());
  memcpy(to, data.data(), size);
  return size;
}

// Flips the bits of `mask` in one byte of a file's synced data, even while the file is open.
bool ropewalk_files_flip(ropewalk_files* files, const char* name, uint64_t at, uint8_t mask) {
  std::string data = files->Synced(name);
  if (at >= data.size()) return false;
  char byte = static_cast<char>(static_cast<uint8_t>(data[at]) ^ mask);
  std::unique_ptr<FSRandomRWFile> file;
  IOStatus done = files->synced->NewRandomRWFile(kDirectory + name, FileOptions(), &file, nullptr);
  if (done.ok()) done = file->Write(at, Slice(&byte, 1), kOptions, nullptr);
  return done.ok();
}

bool ropewalk_files_truncate(ropewalk_files* files, const char* name, uint64_t size) {
  return files->synced->Truncate(kDirectory + name, size, kOptions, nullptr).ok();
}

}  // extern "C"
