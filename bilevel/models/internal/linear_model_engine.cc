#include "bilevel/models/internal/linear_model_engine.h"

#include <type_traits>
#include <utility>
#include <variant>

#include "bilevel/models/internal/feature_storage.h"

namespace bilevel {

std::unique_ptr<LinearModel::Engine> LinearModel::Engine::Make(Description description,
                                                               const Features& features,
                                                               int num_threads) {
  return std::visit(
      [&](const auto& matrix) {
        using Given = std::decay_t<decltype(matrix)>;
        using T = typename Given::Scalar;
        if constexpr (std::is_same_v<Given, internal::DenseFeatures<T>>) {
          return internal::MakeDenseEngine<T>(std::move(description), features, num_threads);
        } else {
          return internal::MakeSparseEngine<T>(std::move(description), features, num_threads);
        }
      },
      features.storage().matrix);
}

}  // namespace bilevel
