// A robust loss learned instead of picked: its scale, then Barron's shape and scale.
//
// A laser scanner sees one side of a round tank through scaffolding: a third of its points are not
// on the tank. Six points of the wall were surveyed properly. Which loss makes the scan's estimate
// agree with the survey?
//
//   lower level   circle*(theta) = argmin 1/2 sum rho(distance to the circle^2; theta)   the scan
//   upper level   theta = argmin 1/2 sum distance to circle*(theta)^2                    the survey
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bilevel/bilevel.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/table.h"

using Circle = std::vector<double>;  // Centre x, y and radius [m].

struct Distance {
  template <typename T>
  bool operator()(const T* circle, T* residual) const {
    const T dx = circle[0] - x, dy = circle[1] - y;
    residual[0] = sqrt(dx * dx + dy * dy) - circle[2];
    return true;
  }
  double x, y;
};

struct Data {
  std::vector<Distance> scan, survey;
  Circle truth{4.0, 3.0, 2.0};
};

Data Simulate(int num_points) {
  std::mt19937 generator(5);
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  Data data;
  const Circle& c = data.truth;
  const auto on_wall = [&](double angle, double off) {
    return Distance{c[0] + (c[2] + off) * std::cos(angle), c[1] + (c[2] + off) * std::sin(angle)};
  };
  for (int i = 0; i < num_points; ++i) {  // The side that faces the scanner, and scaffolding.
    const double angle = 3.6 + 2.4 * (uniform(generator) - 0.5);
    const bool scaffolding = uniform(generator) < 0.35;
    data.scan.push_back(
        on_wall(angle, scaffolding ? 0.1 + 0.9 * uniform(generator) : 0.02 * normal(generator)));
  }
  for (int i = 0; i < 6; ++i) data.survey.push_back(on_wall(1.05 * i, 0.005 * normal(generator)));
  return data;
}

// ------------------------------------------------------------------------------------------------

using Cost = bilevel::AutoDiffCostFunction<Distance, 1, 3>;

double Rms(const std::vector<Distance>& points, const Circle& circle) {
  double sum = 0.0;
  for (const Distance& point : points) {
    double r;
    point(circle.data(), &r);
    sum += r * r;
  }
  return std::sqrt(sum / points.size());
}

// What a user of Ceres does with the line that is printed.
Circle FitWithCeres(const Data& data, Circle start, ceres::LossFunction* loss) {
  ceres::Problem problem;
  for (const Distance& point : data.scan) {
    problem.AddResidualBlock(new Cost(new Distance(point)), loss, start.data());
  }
  ceres::Solver::Options options;
  options.logging_type = ceres::SILENT;
  options.function_tolerance = 1e-15;
  options.max_num_iterations = 500;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  return start;
}

// The parameters of the loss are declared in *problem, with their bounds; *circle is where the
// lower level starts and ends. The loss is the problem's to delete, as with Ceres.
bilevel::Solver::Summary Learn(const Data& data,
                               ceres::LossFunction* loss,
                               bilevel::Problem* problem,
                               Circle* circle) {
  for (const Distance& point : data.scan) {
    problem->lower()->AddResidualBlock(new Cost(new Distance(point)), loss, circle->data());
  }
  for (const Distance& point : data.survey) {
    problem->upper()->AddResidualBlock(new Cost(new Distance(point)), nullptr, circle->data());
  }
  bilevel::Solver::Options options;
  options.minimizer_progress_to_stdout = true;
  bilevel::Solver::Summary summary;
  bilevel::Solve(options, problem, &summary);
  return summary;
}

int main(int argc, char** argv) {
  examples::ParseFlags("The scale and the shape of a robust loss, learned.", &argc, &argv);
  const Data data = Simulate(FLAGS_quick ? 60 : 200);
  const Circle guess{3.0, 2.0, 1.0};
  const Circle squares = FitWithCeres(data, guess, nullptr);
  const Circle by_hand = FitWithCeres(data, squares, new ceres::CauchyLoss(1.0));

  // A scale is positive, so its logarithm is learned, from that of the fit by hand.
  std::puts("Cauchy, log scale");
  double log_scale = 0.0;
  Circle cauchy = squares;
  auto* cauchy_loss = new bilevel::CauchyLoss(&log_scale);
  bilevel::Problem cauchy_problem;
  cauchy_problem.AddUpperParameterBlock(&log_scale, 1);
  const bilevel::Solver::Summary cauchy_summary =
      Learn(data, cauchy_loss, &cauchy_problem, &cauchy);

  // Barron's family holds Cauchy's loss at alpha = 0 and c = scale / sqrt(2): go on from there.
  // Least squares is at alpha = 2, where the family has no derivative; a bound keeps away from it.
  // Here alpha runs into the other bound, towards Welsch's loss: far points mean nothing at all.
  std::puts("\nBarron, alpha and log c");
  double alpha = 0.0, log_c = log_scale - 0.5 * std::log(2.0);
  Circle barron = cauchy;
  auto* barron_loss = new bilevel::BarronLoss(&alpha, &log_c);
  bilevel::Problem barron_problem;
  barron_problem.AddUpperParameterBlock(&alpha, 1);
  barron_problem.AddUpperParameterBlock(&log_c, 1);
  barron_problem.SetParameterLowerBound(&alpha, 0, -10.0);
  barron_problem.SetParameterUpperBound(&alpha, 0, 1.9);
  const bilevel::Solver::Summary barron_summary =
      Learn(data, barron_loss, &barron_problem, &barron);
  if (!cauchy_summary.IsSolutionUsable() || !barron_summary.IsSolutionUsable()) {
    std::fprintf(
        stderr, "%s\n%s\n", cauchy_summary.message.c_str(), barron_summary.message.c_str());
    return 1;
  }

  examples::Table table({"loss", "survey RMS [mm]", "centre off [mm]", "radius off [mm]"});
  const auto add = [&](const std::string& name, const Circle& c) {
    table.Add(
        {name,
         examples::Format("%.1f", 1e3 * Rms(data.survey, c)),
         examples::Format("%.1f", 1e3 * std::hypot(c[0] - data.truth[0], c[1] - data.truth[1])),
         examples::Format("%.1f", 1e3 * (c[2] - data.truth[2]))});
  };
  add("least squares", squares);
  add("ceres::CauchyLoss(1.0), by hand", by_hand);
  add("Cauchy, learned scale", cauchy);
  add("Barron, learned alpha and c", barron);
  add("(the truth)", data.truth);
  std::printf("\n%s\nTo paste:\n  %s\n  %s\n\n",
              table.ToString().c_str(),
              cauchy_loss->Describe().c_str(),
              barron_loss->Describe().c_str());

  // The pasted line in a plain ceres::Problem, from a centimetre away: the same circle.
  Circle start = cauchy;
  start[0] += 0.01;
  const Circle pasted = FitWithCeres(data, start, new ceres::CauchyLoss(std::exp(log_scale)));
  double difference = 0.0;
  for (int i = 0; i < 3; ++i) {
    difference = std::max(difference, std::abs(pasted[i] - cauchy[i]));
  }
  std::printf("Ceres with the pasted Cauchy loss ends %.0e m from the learned circle.\n",
              difference);

  const double before = Rms(data.survey, by_hand), after = Rms(data.survey, cauchy),
               best = Rms(data.survey, barron);
  examples::WriteFile(FLAGS_summary_json,
                      examples::Json()
                          .Add("survey_rms_by_hand_m", before)
                          .Add("survey_rms_cauchy_m", after)
                          .Add("survey_rms_barron_m", best)
                          .Add("cauchy_scale_m", std::exp(log_scale))
                          .Add("barron_alpha", alpha)
                          .Add("barron_scale_m", std::exp(log_c))
                          .Add("pasted_difference_m", difference)
                          .AddRaw("cauchy", cauchy_summary.Json())
                          .AddRaw("barron", barron_summary.Json())
                          .ToString());
  examples::WriteFile(FLAGS_trace_csv, barron_summary.Csv());
  if (!FLAGS_plot.empty()) {
    const auto points = [](const char* title, const std::vector<Distance>& from) {
      examples::Series series{title, "points", {}, {}};
      for (const Distance& point : from) {
        series.x.push_back(point.x);
        series.y.push_back(point.y);
      }
      return series;
    };
    const auto line = [](const char* title, const Circle& c) {
      examples::Series series{title, "lines", {}, {}};
      for (int i = 0; i <= 100; ++i) {
        series.x.push_back(c[0] + c[2] * std::cos(0.02 * M_PI * i));
        series.y.push_back(c[1] + c[2] * std::sin(0.02 * M_PI * i));
      }
      return series;
    };
    examples::Panel panel;
    panel.title = "Circles fitted to the scan";
    panel.x_label = "x [m]";
    panel.y_label = "y [m]";
    panel.equal_axes = true;
    panel.series = {points("scan", data.scan),
                    line("CauchyLoss(1.0)", by_hand),
                    line("learned", barron),
                    points("survey", data.survey)};
    examples::Plot(FLAGS_plot, "A learned loss", {panel});
  }
  return after < 0.5 * before && best <= after && difference < 1e-5 ? 0 : 1;
}
