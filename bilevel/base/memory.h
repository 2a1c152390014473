#ifndef BILEVEL_BASE_MEMORY_H_
#define BILEVEL_BASE_MEMORY_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "Eigen/Core"

namespace bilevel {

/// What a computation must find again to go on with the same bits: what checkpoints are made of.
/// Whoever has such variables names each once, in one function for both directions:
///
///     bool Remember(Memory* memory) override {
///       memory->Keep("radius", &radius_);
///       memory->Keep("momentum", &momentum_);
///       return true;
///     }
///
/// Keep copies the variable where the memory is being filled, and sets it where it is being
/// recalled. A name that is missing there, or whose array does not fit, leaves the variable alone
/// and is told by error().
class Memory {
 public:
  /// As NumPy has it: 'f' are doubles, 'i' 64-bit integers, 'u' bytes; column by column.
  struct Array {
    char kind = 'f';
    std::vector<int64_t> shape;
    std::string bytes;
  };
  using Arrays = std::map<std::string, Array>;

  /// To be filled.
  Memory() = default;
  /// To be recalled.
  explicit Memory(Arrays arrays) : recalls_(true), arrays_(std::move(arrays)) {}

  bool recalls() const { return recalls_; }
  const Arrays& arrays() const { return arrays_; }
  Arrays TakeArrays() { return std::move(arrays_); }
  /// Sentence on the first variable that could not be set; empty if all were.
  const std::string& error() const { return error_; }

  /// Names begin with the group's while it lives.
  class Group {
   public:
    Group(Memory* memory, const std::string& name)
        : memory_(memory), length_(memory->prefix_.size()) {
      memory->prefix_ += name + "/";
    }
    ~Group() { memory_->prefix_.resize(length_); }
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

   private:
    Memory* memory_;
    size_t length_;
  };

  /// Numbers, bools and enumerations.
  template <typename T>
  std::enable_if_t<std::is_arithmetic<T>::value || std::is_enum<T>::value> Keep(
      const std::string& name, T* value) {
    using Stored = std::conditional_t<std::is_floating_point<T>::value, double, int64_t>;
    Stored stored = static_cast<Stored>(*value);
    if (Exchange(name, KindOf<Stored>(), {}, &stored)) *value = static_cast<T>(stored);
  }
  template <typename T, size_t N>
  void Keep(const std::string& name, std::array<T, N>* values) {
    std::vector<T> all(values->begin(), values->end());
    Keep(name, &all);
    if (!recalls_) return;
    if (all.size() != N) return Misfit(name);
    std::copy(all.begin(), all.end(), values->begin());
  }
  template <typename T>
  std::enable_if_t<std::is_arithmetic<T>::value> Keep(const std::string& name,
                                                      std::vector<T>* values) {
    using Stored = std::conditional_t<std::is_floating_point<T>::value, double, int64_t>;
    std::vector<Stored> stored(values->begin(), values->end());
    if (recalls_) {
      const std::vector<int64_t>* shape = ShapeOf(name, KindOf<Stored>(), 1);
      if (!shape) return;
      stored.resize((*shape)[0]);
    }
    if (Exchange(name, KindOf<Stored>(), {static_cast<int64_t>(stored.size())}, stored.data())) {
      values->assign(stored.begin(), stored.end());
    }
  }
  /// Vectors and matrices of doubles, of any size.
  template <typename Derived>
  void Keep(const std::string& name, Eigen::PlainObjectBase<Derived>* values) {
    static_assert(std::is_same<typename Derived::Scalar, double>::value &&
                      (Derived::IsVectorAtCompileTime || !Derived::IsRowMajor),
                  "a matrix that is kept has its columns one after the other");
    constexpr size_t kDimensions = Derived::IsVectorAtCompileTime ? 1 : 2;
    if (recalls_) {
      const std::vector<int64_t>* shape = ShapeOf(name, 'f', kDimensions);
      if (!shape) return;
      if constexpr (kDimensions == 1) {
        values->derived().resize((*shape)[0]);
      } else {
        values->derived().resize((*shape)[0], (*shape)[1]);
      }
    }
    std::vector<int64_t> shape{values->size()};
    if (kDimensions == 2) shape = {values->rows(), values->cols()};
    Exchange(name, 'f', shape, values->data());
  }
  void Keep(const std::string& name, std::string* text);
  void Keep(const std::string& name, std::vector<std::string>* texts);
  void Keep(const std::string& name, std::map<std::string, Eigen::VectorXd>* vectors);
  /// So many numbers in memory that has its size already.
  void KeepRange(const std::string& name, double* values, int64_t size) {
    Exchange(name, 'f', {size}, values);
  }

 private:
  template <typename Stored>
  static constexpr char KindOf() {
    return std::is_same<Stored, double>::value ? 'f' : 'i';
  }
  // Where the array is of that kind and has so many dimensions; nullptr otherwise.
  const std::vector<int64_t>* ShapeOf(const std::string& name, char kind, size_t num_dimensions);
  // False: nothing was set.
  bool Exchange(const std::string& name, char kind, std::vector<int64_t> shape, void* values);
  void Fail(const std::string& what) {
    if (error_.empty()) error_ = what;
  }
  void Misfit(const std::string& name);

  bool recalls_ = false;
  Arrays arrays_;
  std::string prefix_, error_;
};

}  // namespace bilevel

#endif  // BILEVEL_BASE_MEMORY_H_
