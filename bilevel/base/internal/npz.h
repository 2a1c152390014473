#ifndef BILEVEL_BASE_INTERNAL_NPZ_H_
#define BILEVEL_BASE_INTERNAL_NPZ_H_

#include <string>

#include "bilevel/base/memory.h"

namespace bilevel {

/// Arrays in the file format of numpy.savez: a zip archive, stored without compression, of one .npy
/// file an array. numpy.load reads it.
///
/// The file is there whole or not at all: it is written beside, brought to the disk, and renamed.
/// False, with a sentence, where that fails or the arrays take 4 GiB or more; what was there before
/// stays.
bool WriteNpz(const Memory::Arrays& arrays, const std::string& path, std::string* error);

/// Reads what WriteNpz wrote. False, with a sentence, at anything else: every byte is checked.
bool ReadNpz(const std::string& path, Memory::Arrays* arrays, std::string* error);
bool ParseNpz(const std::string& bytes, Memory::Arrays* arrays, std::string* error);

}  // namespace bilevel

#endif  // BILEVEL_BASE_INTERNAL_NPZ_H_
