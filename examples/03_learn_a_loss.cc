// A robust loss learned instead of picked: its scale, then Barron's shape and scale.
//
// A laser scanner sees one side of a round tank through scaffolding: a third of its points are not
// on the tank. Six points of the wall were surveyed properly. Which loss makes the scan's estimate
// agree with the survey?
//
//   lower level   circle*(theta) = argmin 1/2 sum rho(distance to the circle^2; theta)   the scan
//   upper level   theta = argmin 1/2 sum distance to circle*(theta)^2                    the survey
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"

struct Distance {
  template <typename T>
  bool operator()(const T* circle, T* residual) const {
    const T dx = circle[0] - x, dy = circle[1] - y;
    residual[0] = sqrt(dx * dx + dy * dy) - circle[2];
    return true;
  }
  double x, y;
};
using Cost = bilevel::AutoDiffCostFunction<Distance, 1, 3>;
using Circle = std::vector<double>;  // Centre x, y and radius [m].

std::vector<Distance> scan, survey;

void Simulate() {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  const auto on_wall = [](double angle, double off) {
    return Distance{4.0 + (2.0 + off) * std::cos(angle), 3.0 + (2.0 + off) * std::sin(angle)};
  };
  for (int i = 0; i < 200; ++i) {
    const double angle = 3.6 + 2.4 * (uniform(generator) - 0.5);
    const bool scaffolding = uniform(generator) < 0.35;
    scan.push_back(
        on_wall(angle, scaffolding ? 0.1 + 0.9 * uniform(generator) : 0.02 * normal(generator)));
  }
  for (int i = 0; i < 6; ++i) survey.push_back(on_wall(1.05 * i, 0.005 * normal(generator)));
}

Circle FitWithCeres(Circle circle, ceres::LossFunction* loss) {
  ceres::Problem problem;
  for (const Distance& point : scan) {
    problem.AddResidualBlock(new Cost(new Distance(point)), loss, circle.data());
  }
  ceres::Solver::Options options;
  options.logging_type = ceres::SILENT;
  options.max_num_iterations = 500;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  return circle;
}

// The parameters of the loss are declared in *problem already. The circle is where the lower level
// starts and ends. The loss is the problem's to delete, as with Ceres.
bilevel::Solver::Summary Learn(ceres::LossFunction* loss,
                               bilevel::Problem* problem,
                               Circle* circle) {
  for (const Distance& point : scan) {
    problem->lower()->AddResidualBlock(new Cost(new Distance(point)), loss, circle->data());
  }
  for (const Distance& point : survey) {
    problem->upper()->AddResidualBlock(new Cost(new Distance(point)), nullptr, circle->data());
  }
  bilevel::Solver::Summary summary;
  bilevel::Solve(bilevel::Solver::Options(), problem, &summary);
  std::puts(summary.BriefReport().c_str());
  return summary;
}

double Print(const char* name, const Circle& circle) {
  double sum = 0.0, r;
  for (const Distance& point : survey) {
    point(circle.data(), &r);
    sum += r * r;
  }
  const double rms = std::sqrt(sum / survey.size());
  std::printf("%-36s off by %6.1f mm RMS\n", name, 1e3 * rms);
  return rms;
}

int main() {
  Simulate();
  const Circle squares = FitWithCeres({3.0, 2.0, 1.0}, nullptr);
  const Circle by_hand = FitWithCeres(squares, new ceres::CauchyLoss(1.0));

  // A scale is positive, so its logarithm is learned; it begins at that of the fit by hand.
  double log_scale = 0.0;
  Circle cauchy = squares;
  bilevel::Problem cauchy_problem;
  cauchy_problem.AddUpperParameterBlock(&log_scale, 1);
  auto* cauchy_loss = new bilevel::CauchyLoss(&log_scale);
  if (!Learn(cauchy_loss, &cauchy_problem, &cauchy).IsSolutionUsable()) return 1;

  // Barron's family holds Cauchy's loss at alpha = 0 and c = scale / sqrt(2): learning goes on from
  // there. At alpha = 2, least squares, it has no derivative; a bound keeps away from that.
  double alpha = 0.0, log_c = log_scale - 0.5 * std::log(2.0);
  Circle barron = cauchy;
  bilevel::Problem barron_problem;
  barron_problem.AddUpperParameterBlock(&alpha, 1);
  barron_problem.AddUpperParameterBlock(&log_c, 1);
  barron_problem.SetParameterLowerBound(&alpha, 0, -10.0);
  barron_problem.SetParameterUpperBound(&alpha, 0, 1.9);
  auto* barron_loss = new bilevel::BarronLoss(&alpha, &log_c);
  if (!Learn(barron_loss, &barron_problem, &barron).IsSolutionUsable()) return 1;

  Print("least squares", squares);
  const double before = Print("ceres::CauchyLoss(1.0), by hand", by_hand);
  const double after = Print(cauchy_loss->Describe().c_str(), cauchy);  // Lines to paste.
  const double best = Print(barron_loss->Describe().c_str(), barron);
  return after < 0.5 * before && best <= after ? 0 : 1;
}
