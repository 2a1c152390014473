#include "bilevel/base/internal/npz.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "bilevel/base/internal/bookkeeping.h"

namespace bilevel {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22;
// A zip archive has its sizes in 32 bits, and its number of files in 16.
constexpr size_t kMostBytes = 0xfffffffe, kMostFiles = 0xfffe;
// The first of January 1980, for archives that are equal where their arrays are.
constexpr uint16_t kDate = 0x21;

// Of bytes that follow those of a known sum, 0 at the begin.
uint32_t Crc32(const std::string& bytes, uint32_t before) {
  static const auto table = [] {
    std::array<uint32_t, 256> t{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
      t[i] = c;
    }
    return t;
  }();
  uint32_t crc = ~before;
  for (const char byte : bytes) {
    crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xff] ^ (crc >> 8);
  }
  return ~crc;
}

template <typename T>
void Put(T value, std::string* to) {
  for (size_t i = 0; i < sizeof(T); ++i) to->push_back(static_cast<char>(value >> (8 * i)));
}

template <typename T>
T Get(const std::string& from, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value |= static_cast<T>(static_cast<T>(static_cast<unsigned char>(from[at + i])) << (8 * i));
  }
  return value;
}

std::string NpyHeader(const Memory::Array& array) {
  std::string text = "{'descr': '";
  text += array.kind == 'u' ? "|u1" : array.kind == 'i' ? "<i8" : "<f8";
  text += "', 'fortran_order': True, 'shape': (";
  for (const int64_t extent : array.shape) text += std::to_string(extent) + ",";
  text += "), }";
  // The data begin at a multiple of 64 bytes, after a newline.
  constexpr size_t kBefore = 10;
  text.append(63 - (kBefore + text.size()) % 64, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  Put(static_cast<uint16_t>(text.size()), &header);
  return header + text;
}

// What a file's entry says of it, in the archive and in its directory at the end.
void PutEntry(const std::string& name, uint32_t crc, uint32_t size, std::string* to) {
  Put(uint16_t{20}, to);  // Version 2.0 of the format.
  Put(uint16_t{0}, to);   // No flags.
  Put(uint16_t{0}, to);   // Stored.
  Put(uint16_t{0}, to);   // Midnight.
  Put(kDate, to);
  Put(crc, to);
  Put(size, to);
  Put(size, to);
  Put(static_cast<uint16_t>(name.size()), to);
  Put(uint16_t{0}, to);  // No extra field.
}

bool Fail(const std::string& path, const std::string& what, std::string* error) {
  return Refuse("'" + path + "' " + what, error);
}

bool WriteAll(int file, const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = ::write(file, bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    done += static_cast<size_t>(written);
  }
  return true;
}

// Reads one array from its .npy file; false if it is not as NpyHeader would have written it.
bool ParseNpy(const std::string& bytes, Memory::Array* array) {
  const size_t kind = bytes.find("'descr': '"), shape = bytes.find("'shape': (");
  if (bytes.size() < 64 || kind == std::string::npos || shape == std::string::npos) return false;
  const std::string descr = bytes.substr(kind + 10, 3);
  array->kind = descr == "|u1" ? 'u' : descr == "<i8" ? 'i' : 'f';
  array->shape.clear();
  int64_t size = array->kind == 'u' ? 1 : 8;
  for (size_t at = shape + 10; at < bytes.size() && bytes[at] != ')'; ++at) {
    int64_t extent = 0;
    for (; at < bytes.size() && bytes[at] >= '0' && bytes[at] <= '9'; ++at) {
      extent = 10 * extent + (bytes[at] - '0');
      if (extent > static_cast<int64_t>(kMostBytes)) return false;
    }
    array->shape.push_back(extent);
    if (array->shape.size() > 2) return false;
    size *= extent;  // Two extents below 2^32 and eight bytes: 67 bits, if nobody looks.
    if (size > static_cast<int64_t>(kMostBytes)) return false;
  }
  const std::string header = NpyHeader(*array);
  if (bytes.compare(0, header.size(), header) != 0) return false;
  if (bytes.size() != header.size() + static_cast<size_t>(size)) return false;
  array->bytes = bytes.substr(header.size());
  return true;
}

// Whole, for arrays that fit.
std::string Archive(const Memory::Arrays& arrays) {
  std::string archive, directory;
  for (const auto& [name, array] : arrays) {
    const std::string header = NpyHeader(array), entry = name + ".npy";
    const uint32_t offset = static_cast<uint32_t>(archive.size());
    const uint32_t crc = Crc32(array.bytes, Crc32(header, 0));
    const uint32_t size = static_cast<uint32_t>(header.size() + array.bytes.size());
    Put(kLocal, &archive);
    PutEntry(entry, crc, size, &archive);
    archive += entry;
    archive += header;
    archive += array.bytes;
    Put(kCentral, &directory);
    Put(uint16_t{20}, &directory);
    PutEntry(entry, crc, size, &directory);
    directory.append(10, '\0');  // No comment, first disk, no attributes.
    Put(offset, &directory);
    directory += entry;
  }
  const uint32_t begin = static_cast<uint32_t>(archive.size());
  archive += directory;
  Put(kEnd, &archive);
  Put(uint32_t{0}, &archive);  // One disk.
  Put(static_cast<uint16_t>(arrays.size()), &archive);
  Put(static_cast<uint16_t>(arrays.size()), &archive);
  Put(static_cast<uint32_t>(directory.size()), &archive);
  Put(begin, &archive);
  Put(uint16_t{0}, &archive);
  return archive;
}

bool Fits(const Memory::Arrays& arrays) {
  size_t size = kEndSize;
  for (const auto& [name, array] : arrays) {
    size += array.bytes.size() + kLocalSize + kCentralSize + 2 * (name.size() + 4) + 128;
    if (name.size() > 60000) return false;
  }
  return size <= kMostBytes && arrays.size() <= kMostFiles;
}

// The arrays that the directory at the end lists, if it is one.
bool ParseDirectory(const std::string& bytes, Memory::Arrays* arrays) {
  if (bytes.size() < kEndSize || bytes.size() > kMostBytes) return false;
  const size_t end = bytes.size() - kEndSize;
  const size_t count = Get<uint16_t>(bytes, end + 10);
  size_t at = Get<uint32_t>(bytes, end + 16);
  for (size_t i = 0; i < count; ++i) {
    if (at + kCentralSize > end) return false;
    const size_t size = Get<uint32_t>(bytes, at + 20), length = Get<uint16_t>(bytes, at + 28);
    const size_t offset = Get<uint32_t>(bytes, at + 42) + kLocalSize + length;
    if (at + kCentralSize + length > end || length < 5 || offset + size > end) return false;
    const std::string name = bytes.substr(at + kCentralSize, length - 4);
    if (!ParseNpy(bytes.substr(offset, size), &(*arrays)[name])) return false;
    at += kCentralSize + length;
  }
  return true;
}

}  // namespace

bool WriteNpz(const Memory::Arrays& arrays, const std::string& path, std::string* error) {
  if (!Fits(arrays)) return Fail(path, "would be larger than a zip archive may be", error);
  const std::string archive = Archive(arrays);
  const std::string beside = path + ".part";
  const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return Fail(beside, std::string("cannot be written: ") + strerror(errno), error);
  bool ok = WriteAll(file, archive) && ::fsync(file) == 0;
  int why = errno;
  if (::close(file) != 0 && ok) {
    ok = false;
    why = errno;
  }
  if (ok && std::rename(beside.c_str(), path.c_str()) != 0) {
    ok = false;
    why = errno;
  }
  if (!ok) {
    ::unlink(beside.c_str());
    return Fail(path, std::string("cannot be written: ") + strerror(why), error);
  }
  // The new name is on the disk once its folder is; a folder that cannot be brought there is the
  // system's affair.
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (const int at = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); at >= 0) {
    ::fsync(at);
    ::close(at);
  }
  return true;
}

// Every byte is checked by writing it once more.
bool ParseNpz(const std::string& bytes, Memory::Arrays* arrays, std::string* error) {
  arrays->clear();
  if (ParseDirectory(bytes, arrays) && Archive(*arrays) == bytes) return true;
  return Refuse("is damaged or cut off, or is no checkpoint", error);
}

bool ReadNpz(const std::string& path, Memory::Arrays* arrays, std::string* error) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) return Fail(path, std::string("cannot be read: ") + strerror(errno), error);
  std::string bytes;
  std::vector<char> buffer(1 << 20);
  while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), file)) {
    bytes.append(buffer.data(), got);
  }
  const bool failed = std::ferror(file) != 0;
  std::fclose(file);
  if (failed) return Fail(path, std::string("cannot be read: ") + strerror(errno), error);
  std::string why;
  return ParseNpz(bytes, arrays, &why) || Fail(path, why, error);
}

}  // namespace bilevel
