#include "bilevel/mpi/ranks.h"

#include <exception>
#include <limits>
#include <stdexcept>

namespace bilevel {
namespace mpi {
namespace {

// Before the members are made.
bool Initialize(int* argc, char*** argv) {
  MPI_Init(argc, argv);
  return true;
}

}  // namespace

Ranks::Ranks(int* argc, char*** argv) : initializes_(Initialize(argc, argv)) {
  MPI_Comm_dup(MPI_COMM_WORLD, &communicator_);
  MPI_Comm_rank(communicator_, &rank_);
  MPI_Comm_size(communicator_, &size_);
}

Ranks::Ranks(MPI_Comm communicator) : initializes_(false) {
  MPI_Comm_dup(communicator, &communicator_);
  MPI_Comm_rank(communicator_, &rank_);
  MPI_Comm_size(communicator_, &size_);
}

// Where others still wait for this rank, they learn that it leaves.
Ranks::~Ranks() {
  if (!are_apart()) {
    try {
      Gather("where it leaves", 0, "");
    } catch (const std::exception&) {
    }
  }
  MPI_Comm_free(&communicator_);
  if (initializes_) MPI_Finalize();
}

std::vector<std::string> Ranks::Exchange(const std::string& own) {
  const long long size = static_cast<long long>(own.size());
  std::vector<long long> sizes(size_);
  MPI_Allgather(&size, 1, MPI_LONG_LONG, sizes.data(), 1, MPI_LONG_LONG, communicator_);
  std::vector<int> counts(size_), offsets(size_);
  long long total = 0;
  for (int r = 0; r < size_; ++r) {
    offsets[r] = static_cast<int>(total);
    total += sizes[r];
    counts[r] = static_cast<int>(sizes[r]);
    if (total > std::numeric_limits<int>::max()) {
      throw std::runtime_error("ranks hand each other more than 2 GB at once");
    }
  }
  std::string all(total, '\0');
  MPI_Allgatherv(own.data(),
                 counts[rank_],
                 MPI_BYTE,
                 &all[0],
                 counts.data(),
                 offsets.data(),
                 MPI_BYTE,
                 communicator_);
  std::vector<std::string> texts(size_);
  for (int r = 0; r < size_; ++r) texts[r] = all.substr(offsets[r], counts[r]);
  return texts;
}

}  // namespace mpi
}  // namespace bilevel
