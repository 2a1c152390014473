#include "examples/support/unpack.h"

#include <algorithm>
#include <utility>
#include <vector>

#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_BZIP2
#include <bzlib.h>
#endif
#ifdef HAVE_LIBLZMA
#include <lzma.h>
#endif

namespace examples {
namespace {

enum class Step { kGoOn, kEnd, kDamaged, kTooLarge, kNoMemory };

// The three libraries read and write by a struct with next_in, avail_in, next_out, avail_out.
#ifdef HAVE_ZLIB
struct Gzip {
  using Stream = z_stream;
  static bool Begin(Stream* s) { return inflateInit2(s, 15 + 16) == Z_OK; }  // gzip's header.
  static Step Go(Stream* s) {
    const int code = inflate(s, Z_NO_FLUSH);
    return code == Z_OK ? Step::kGoOn : code == Z_STREAM_END ? Step::kEnd : Step::kDamaged;
  }
  static void End(Stream* s) { inflateEnd(s); }
};
#endif

#ifdef HAVE_BZIP2
struct Bzip2 {
  using Stream = bz_stream;
  static bool Begin(Stream* s) { return BZ2_bzDecompressInit(s, 0, 0) == BZ_OK; }
  static Step Go(Stream* s) {
    const int code = BZ2_bzDecompress(s);
    return code == BZ_OK ? Step::kGoOn : code == BZ_STREAM_END ? Step::kEnd : Step::kDamaged;
  }
  static void End(Stream* s) { BZ2_bzDecompressEnd(s); }
};
#endif

#ifdef HAVE_LIBLZMA
struct Xz {
  using Stream = lzma_stream;
  static constexpr size_t kMostMemory = 256 << 20;  // xz -9 takes 65 MiB.
  static bool Begin(Stream* s) { return lzma_stream_decoder(s, kMostMemory, 0) == LZMA_OK; }
  static Step Go(Stream* s) {
    const lzma_ret code = lzma_code(s, LZMA_RUN);
    return code == LZMA_OK               ? Step::kGoOn
           : code == LZMA_STREAM_END     ? Step::kEnd
           : code == LZMA_MEMLIMIT_ERROR ? Step::kNoMemory
                                         : Step::kDamaged;
  }
  static void End(Stream* s) { lzma_end(s); }
};
#endif

#if defined(HAVE_ZLIB) || defined(HAVE_BZIP2) || defined(HAVE_LIBLZMA)
// Several streams may follow each other, as where files have been joined.
template <typename Format>
Step UnpackAll(const std::string& packed, std::string* bytes) {
  const size_t most = std::min(kMostBytes, std::max(kAlwaysAllowed, kMostRatio * packed.size()));
  std::vector<char> piece(1 << 16);
  typename Format::Stream stream{};
  stream.next_in =
      reinterpret_cast<decltype(stream.next_in)>(const_cast<char*>(packed.data()));  // Only read.
  stream.avail_in = static_cast<decltype(stream.avail_in)>(packed.size());
  Step step = Step::kEnd;
  while (step == Step::kEnd && stream.avail_in > 0) {
    if (!Format::Begin(&stream)) return Step::kNoMemory;
    for (step = Step::kGoOn; step == Step::kGoOn;) {
      stream.next_out = reinterpret_cast<decltype(stream.next_out)>(piece.data());
      stream.avail_out = static_cast<decltype(stream.avail_out)>(piece.size());
      step = Format::Go(&stream);
      bytes->append(piece.data(), piece.size() - stream.avail_out);
      const bool stuck = stream.avail_in == 0 && stream.avail_out > 0;
      if (step == Step::kGoOn && stuck) step = Step::kDamaged;
      if (bytes->size() > most) step = Step::kTooLarge;
    }
    Format::End(&stream);
    while (stream.avail_in > 0 && *stream.next_in == 0) ++stream.next_in, --stream.avail_in;
  }
  return step;
}
#endif

}  // namespace

bool Unpack(std::string* bytes, std::string* why) {
  using Unpacker = Step (*)(const std::string&, std::string*);
  Unpacker gzip = nullptr, bzip2 = nullptr, xz = nullptr;
#ifdef HAVE_ZLIB
  gzip = UnpackAll<Gzip>;
#endif
#ifdef HAVE_BZIP2
  bzip2 = UnpackAll<Bzip2>;
#endif
#ifdef HAVE_LIBLZMA
  xz = UnpackAll<Xz>;
#endif
  const struct {
    std::string name, first_bytes, package;
    Unpacker unpack;
  } formats[] = {{"gzip", "\x1f\x8b", "zlib1g-dev", gzip},
                 {"bzip2", "BZh", "libbz2-dev", bzip2},
                 {"xz",
                  "\xfd"
                  "7zXZ",
                  "liblzma-dev",
                  xz}};
  for (const auto& format : formats) {
    if (bytes->compare(0, format.first_bytes.size(), format.first_bytes) != 0) continue;
    if (!format.unpack) {
      *why = "is packed by " + format.name + ", and this was built without its library (Debian's " +
             format.package + ")";
      return false;
    }
    std::string unpacked;
    const Step step = format.unpack(*bytes, &unpacked);
    if (step == Step::kEnd) {
      *bytes = std::move(unpacked);
      return true;
    }
    if (step == Step::kDamaged) {
      *why = "is packed by " + format.name + ", but is damaged or ends early";
    } else if (step == Step::kNoMemory) {
      *why = "takes too much memory to unpack";
    } else {
      *why = "unpacks to more than any text would, " + std::to_string(unpacked.size() >> 20) +
             " MiB and more from " + std::to_string(bytes->size()) + " bytes";
    }
    return false;
  }
  return true;
}

}  // namespace examples
