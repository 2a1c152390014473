#ifndef BILEVEL_ANALYSIS_INTERNAL_SENSITIVITY_IMPLEMENTATION_H_
#define BILEVEL_ANALYSIS_INTERNAL_SENSITIVITY_IMPLEMENTATION_H_

// What the files of Sensitivity share.

#include <algorithm>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "bilevel/analysis/sensitivity.h"
#include "bilevel/internal/prepared_problem.h"
#include "bilevel/learnable/losses.h"
#include "bilevel/lower_level/internal/inverse_hessian.h"
#include "bilevel/lower_level/newton_lower_solver.h"
#include "bilevel/program/program.h"

namespace bilevel {

struct Sensitivity::Implementation {
  Options options;
  struct Scale {
    std::vector<ceres::ResidualBlockId> residual_blocks;
    double* log_sigma;
  };
  std::vector<Scale> scales;
  std::vector<std::unique_ptr<ceres::LossFunction>> losses;
  std::unique_ptr<PreparedProblem> prepared;
  Program* program = nullptr;           // The prepared problem's, as the next.
  NewtonLowerSolver* solver = nullptr;  // Has calls that not every lower solver has.
  Point x, y;
  std::vector<char> computed;  // By block of x.
  bool ready = false;
  mutable std::string message;

  // One lower residual block at the solution.
  struct Observation {
    int scenario;
    std::vector<int> coordinates;  // Of the scenario's y (tangent), those it depends on.
    Vector gradient;               // Its part of g's derivatives, by these coordinates.
    Matrix hessian;
    Vector residuals;
    Matrix jacobian;
    double rho[3];
  };
  struct Owner {
    int scenario, residual;  // Of its lower level.
  };
  std::unordered_map<ceres::ResidualBlockId, Owner> owner;
  std::unordered_map<ceres::ResidualBlockId, const ceres::LossFunction*> scaled_losses;
  // The last residual block asked for, and dy*/dr.
  mutable ceres::ResidualBlockId last_observation = nullptr;
  mutable Matrix last_sensitivity;

  // Of the scenarios' Hessians, from the first covariance on that was asked for.
  mutable std::vector<std::unique_ptr<InverseHessian>> inverses;

  // A block of some lower level.
  struct LowerBlock {
    int scenario = -1, block = -1;  // block: of the scenario's y; -1: constant.
    int size = 0, tangent_size = 0;
  };
  bool FindLower(const double* user, const char* which, LowerBlock* found) const;
  bool CheckLosses(int scenario) const;
  bool GetInverse(int scenario, InverseHessian** inverse) const;
  bool Covariance(const LowerBlock& rows, const LowerBlock& columns, Matrix* block) const;
  bool ToAmbient(const LowerBlock& rows, Matrix* block) const;
  // What both doors do.
  bool WriteCovariance(const double* lower1,
                       const double* lower2,
                       bool is_ambient,
                       double* block) const;

  bool Prepare(Problem* problem);
  bool Polish();
  // The y that one residual block depends on.
  struct OwnY {
    Space space;
    Vector point;
  };
  void GatherOwnY(const std::vector<double*>& blocks, Observation* observation, OwnY* own) const;
  bool Linearize(const ceres::CostFunction& cost,
                 const std::vector<double*>& blocks,
                 const OwnY& own,
                 Observation* observation) const;
  bool Look(ceres::ResidualBlockId id, bool with_jacobian, Observation* observation) const;
  bool ScatterAndSolve(const Observation& observation,
                       const Matrix& columns,
                       Matrix* solution) const;

  // The gradient in all of y.
  bool Gather(const std::vector<BlockVector>& lower_gradients, Vector* fy) const {
    *fy = Vector::Zero(program->y.tangent_size());
    for (const BlockVector& entry : lower_gradients) {
      const int l = program->y.Find(entry.block);
      if (l < 0) return Fail("a lower block is not variable in the lower level");
      const Space::Block& block = program->y.blocks()[l];
      fy->segment(block.tangent_offset, block.tangent_size) +=
          Eigen::Map<const Vector>(entry.values, block.tangent_size);
    }
    return true;
  }

  bool Fail(const std::string& what) const {
    message = what;
    return false;
  }

  // The loss of a residual block with its noise scaled.
  bool ScaleLosses(Problem* problem, Problem::CompileOptions* compile) {
    losses.clear();
    std::unordered_map<ceres::ResidualBlockId, const ceres::Problem*> owners;
    for (int i = 0; !scales.empty() && i < problem->num_scenarios(); ++i) {
      const ceres::Problem* lower = problem->scenario(i)->lower();
      std::vector<ceres::ResidualBlockId> ids;
      lower->GetResidualBlocks(&ids);
      for (ceres::ResidualBlockId id : ids) owners[id] = lower;
    }
    for (const Scale& scale : scales) {
      if (!scale.log_sigma) return Fail("ScaleNoise was given a null pointer");
      const auto& added = compile->more_upper;
      if (!problem->IsUpperParameterBlock(scale.log_sigma) &&
          std::find(added.begin(), added.end(), scale.log_sigma) == added.end()) {
        compile->more_upper.push_back(scale.log_sigma);
      }
      for (ceres::ResidualBlockId id : scale.residual_blocks) {
        const auto found = owners.find(id);
        if (found == owners.end()) {
          return Fail("ScaleNoise was given a residual block that is not in the problem");
        }
        if (compile->lower_losses.count(id)) {
          return Fail("ScaleNoise was given the same residual block twice");
        }
        losses.push_back(
            std::make_unique<NoiseScaleLoss>(found->second->GetLossFunctionForResidualBlock(id),
                                             scale.log_sigma,
                                             ceres::DO_NOT_TAKE_OWNERSHIP));
        compile->lower_losses[id] = losses.back().get();
      }
    }
    return true;
  }
};

}  // namespace bilevel

#endif  // BILEVEL_ANALYSIS_INTERNAL_SENSITIVITY_IMPLEMENTATION_H_
