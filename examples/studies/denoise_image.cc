// Learns image priors for denoising, on some images, and tests them on others.
//
//   lower level   u*(x) = argmin |u - noisy|^2 / 2 + prior(u; x)
//   upper level   x     = argmin sum over images |u*(x) - clean|^2 / pixels
//
// Two priors. Total variation, smoothed: a weight and the smoothing. Fields of experts: 24 filters
// of 5 x 5 taps under a logarithmic penalty, first the cosine basis with a learned weight each,
// then all filters free (600 numbers). Every training image is a scenario.
//
// A lower level has a variable for each pixel, and 5 x 5 filters tie each of them to 80 others. No
// matrix is made: the energies are bilevel::Objectives that give products with their Hessian, and
// u*(x) and the adjoint are found by conjugate gradients. L-BFGS moves x.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bilevel/bilevel.h"
#include "bilevel/lower_level/newton_cg_lower_solver.h"
#include "ceres/ceres.h"
#include "examples/support/flags.h"
#include "examples/support/plot.h"
#include "examples/support/solve.h"
#include "examples/support/table.h"
#include "examples/support/verdict.h"
#include "examples/support/vision/image.h"
#include "examples/support/vision/image_model.h"

DEFINE_string(images,
              "build/data/denoise",
              "folder with BSD68_001-034.tar and Set12.tar, or images to split into training and "
              "test; drawn ones where it is absent");
DEFINE_double(sigma, 25.0, "standard deviation of the noise, in grey levels");
DEFINE_int32(crops, 40, "training images: crops of the clean ones");
DEFINE_int32(crop, 64, "width and height of a crop, in pixels");
DEFINE_int32(tests, 10, "whole images to test on; 0: all");
DEFINE_double(minutes, 2.5, "time to learn the filters, at most");
DEFINE_int32(iterations, 1000, "of L-BFGS for each prior, at most");
DEFINE_int32(seed, 0, "of the noise and of the crops");
DEFINE_string(out, "", "write clean, noisy and denoised images of the first test to OUT_*.png");
DEFINE_bool(progress, false, "print the iterations");

namespace {

using examples::FieldsOfExperts;
using examples::Format;
using examples::Image;
using examples::Now;
constexpr int kFilters = FieldsOfExperts::kFilters;

struct Pair {
  Image clean, noisy;
};

Image AddNoise(const Image& clean, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, FLAGS_sigma);
  Image noisy = clean;
  for (double& pixel : noisy.pixels) pixel += normal(generator);
  return noisy;
}

// Discs and stripes in front of a gradient.
Image Drawn(int size, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  Image image(size, size);
  image.name = "drawn " + std::to_string(seed);
  const double slope = 80.0 * uniform(generator);
  for (int y = 0; y < size; ++y) {
    for (int x = 0; x < size; ++x) image.at(x, y) = 60.0 + slope * (x + y) / size;
  }
  for (int k = 0; k < 12; ++k) {
    const double cx = size * uniform(generator), cy = size * uniform(generator);
    const double radius = size * (0.05 + 0.2 * uniform(generator));
    const double level = 255.0 * uniform(generator), angle = M_PI * uniform(generator);
    const double wave = k % 3 ? 0.0 : 0.5 + uniform(generator);
    for (int y = 0; y < size; ++y) {
      for (int x = 0; x < size; ++x) {
        if (std::hypot(x - cx, y - cy) > radius) continue;
        const double phase = wave * (x * std::cos(angle) + y * std::sin(angle));
        image.at(x, y) =
            std::min(255.0, std::max(0.0, level + (wave > 0.0 ? 40.0 * std::sin(phase) : 0.0)));
      }
    }
  }
  return image;
}

bool Load(std::vector<Image>* train, std::vector<Image>* test, bool* drawn, std::string* error) {
  *drawn = false;
  const std::string bsd = FLAGS_images + "/BSD68_001-034.tar", set12 = FLAGS_images + "/Set12.tar";
  std::vector<Image> images;
  if (std::ifstream(bsd).good() && std::ifstream(set12).good()) {
    std::vector<Image> classic;
    if (!examples::ReadImages(bsd, &images, error) ||
        !examples::ReadImages(set12, &classic, error)) {
      return false;
    }
    // Tests alternate between the two collections.
    train->assign(images.begin(), images.begin() + images.size() / 2);
    const std::vector<Image> unseen(images.begin() + images.size() / 2, images.end());
    for (size_t i = 0; i < std::max(unseen.size(), classic.size()); ++i) {
      if (i < classic.size()) test->push_back(classic[i]);
      if (i < unseen.size()) test->push_back(unseen[i]);
    }
    return true;
  }
  if (std::ifstream(FLAGS_images).good()) {
    if (!examples::ReadImages(FLAGS_images, &images, error)) return false;
    if (images.size() < 2) {
      *error = "two images at least, to learn from one and test on the other";
      return false;
    }
  } else {
    *drawn = true;
    for (unsigned k = 0; k < 12; ++k) images.push_back(Drawn(FLAGS_quick ? 128 : 256, k));
  }
  for (size_t i = 0; i < images.size(); ++i) (i % 2 ? test : train)->push_back(images[i]);
  return true;
}

std::vector<Pair> Crops(const std::vector<Image>& images, int count, int size) {
  std::vector<Pair> pairs;
  std::mt19937 generator(FLAGS_seed);
  for (int k = 0; k < count; ++k) {
    const Image& from = images[k % images.size()];
    const int width = std::min(size, from.width), height = std::min(size, from.height);
    const int x = static_cast<int>(generator() % (from.width - width + 1));
    const int y = static_cast<int>(generator() % (from.height - height + 1));
    Pair pair;
    pair.clean = Crop(from, x, y, width, height);
    pair.noisy = AddNoise(pair.clean, static_cast<unsigned>(1000 * FLAGS_seed + k));
    pairs.push_back(pair);
  }
  return pairs;
}

// ------------------------------------------------------------------------------------------------

struct Prior {
  std::string name;
  std::vector<double> weights;       // Logarithms: of w and eps, or of a weight a filter.
  std::vector<double> coefficients;  // Of the filters; empty: total variation.
};

struct Learned {
  Prior prior;
  std::vector<Image> images;
  bilevel::Solver::Summary summary;
  double seconds = 0.0;
};

// Both levels of one image; u is its memory.
void AddImage(
    const Pair& pair, bool hold_filters, Prior* x, Image* u, bilevel::Scenario* scenario) {
  using bilevel::Level;
  const int num_weights = static_cast<int>(x->weights.size());
  const int num_coefficients = static_cast<int>(x->coefficients.size());
  const int n = static_cast<int>(u->pixels.size());
  scenario->AddTerm(Level::kLower,
                    std::make_unique<examples::SquaredError>(pair.noisy, 1.0),
                    {{u->pixels.data(), n}});
  scenario->AddTerm(Level::kUpper,
                    std::make_unique<examples::SquaredError>(pair.clean, 1.0 / n),
                    {{u->pixels.data(), n}});
  if (num_coefficients == 0) {
    scenario->AddTerm(Level::kLower,
                      std::make_unique<examples::TotalVariation>(u->width, u->height),
                      {{x->weights.data(), num_weights}, {u->pixels.data(), n}});
    return;
  }
  scenario->AddTerm(Level::kLower,
                    std::make_unique<FieldsOfExperts>(u->width, u->height),
                    {{x->weights.data(), num_weights},
                     {x->coefficients.data(), num_coefficients},
                     {u->pixels.data(), n}});
  if (!hold_filters) return;
  scenario->lower()->AddParameterBlock(x->coefficients.data(), num_coefficients);
  scenario->lower()->SetParameterBlockConstant(x->coefficients.data());
}

std::unique_ptr<bilevel::LowerSolver> MakeLowerSolver(bilevel::Program* program,
                                                      double tolerance,
                                                      int max_num_iterations) {
  bilevel::NewtonCgLowerSolver::Options options;
  options.tolerance = tolerance;
  options.max_num_iterations = max_num_iterations;
  options.max_num_linear_iterations = 300;
  options.linear_tolerance = 10.0 * tolerance;
  return std::make_unique<bilevel::NewtonCgLowerSolver>(program, options);
}

// Learns x from where the prior is; images: where the lower levels begin.
Learned Learn(const std::vector<Pair>& pairs,
              Prior prior,
              std::vector<Image> images,
              bool filters,
              double function_tolerance,
              double seconds) {
  Learned learned;
  learned.prior = std::move(prior);
  learned.images = std::move(images);
  Prior& x = learned.prior;
  const int num_weights = static_cast<int>(x.weights.size());
  const int num_coefficients = static_cast<int>(x.coefficients.size());
  bilevel::Problem problem;
  problem.AddUpperParameterBlock(x.weights.data(), num_weights);
  problem.SetParameterName(x.weights.data(), "log weights");
  if (filters) {
    problem.AddUpperParameterBlock(x.coefficients.data(), num_coefficients);
    problem.SetParameterName(x.coefficients.data(), "filters");
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    auto* scenario =
        problem.AddScenario(pairs[i].clean.name + " " + std::to_string(i), 1.0 / pairs.size());
    AddImage(pairs[i], !filters, &x, &learned.images[i], scenario);
  }
  bilevel::Solver::Options options;
  options.num_threads = FLAGS_num_threads;
  options.max_num_iterations = FLAGS_iterations;
  options.max_solver_time_in_seconds = seconds;
  options.function_tolerance = function_tolerance;
  options.gradient_tolerance = 1e-6;
  options.minimizer_progress_to_stdout = FLAGS_progress;
  options.method = bilevel::CreateMethod("lbfgs");
  options.lower_solver = [](bilevel::Program* program) {
    return MakeLowerSolver(program, 1e-4, 30);  // More iterations: x is a poor trial.
  };
  const double begin = Now();
  examples::Solve(options, &problem, &learned.summary);
  learned.seconds = Now() - begin;
  return learned;
}

// Denoises whole images from where they are. False, with a sentence on stderr, if one fails.
bool Denoise(const std::vector<Pair>& pairs, const Prior& x, std::vector<Image>* images) {
  std::vector<std::string> errors(pairs.size());
  bilevel::ThreadPool pool(FLAGS_num_threads);
  pool.ParallelFor(static_cast<int>(pairs.size()), 1, [&](int, int i) {
    Prior own = x;
    bilevel::Problem problem;
    problem.AddUpperParameterBlock(own.weights.data(), static_cast<int>(own.weights.size()));
    AddImage(pairs[i], true, &own, &(*images)[i], problem.scenario(0));
    const auto program = problem.Compile(bilevel::Problem::CompileOptions(), &errors[i]);
    if (!program) return;
    // To a quarter of a grey level; ten times closer moves PSNR by hundredths at most.
    const auto solver = MakeLowerSolver(program.get(), 1e-2, 200);
    bilevel::Point px(&program->x), py(&program->y);
    program->x.ReadUser(px.value().data());
    program->y.ReadUser(py.value().data());
    if (!solver->Solve(px, &py)) errors[i] = solver->message();
    program->y.WriteUser(py.value().data());
  });
  bool ok = true;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (errors[i].empty()) continue;
    ok = false;
    std::fprintf(
        stderr, "%s was not denoised: %s.\n", pairs[i].clean.name.c_str(), errors[i].c_str());
  }
  return ok;
}

struct Score {
  std::string name;
  std::vector<Image> images;
  std::vector<double> psnr, ssim;
  double mean_psnr = 0.0, mean_ssim = 0.0, seconds = 0.0;
};

Score Judge(const std::string& name, const std::vector<Pair>& pairs, std::vector<Image> images) {
  Score score;
  score.name = name;
  score.images = std::move(images);
  for (size_t i = 0; i < pairs.size(); ++i) {
    score.psnr.push_back(Psnr(score.images[i], pairs[i].clean));
    score.ssim.push_back(Ssim(score.images[i], pairs[i].clean));
    score.mean_psnr += score.psnr.back() / pairs.size();
    score.mean_ssim += score.ssim.back() / pairs.size();
  }
  return score;
}

// Root mean squares of the rows of all images, in grey levels.
std::vector<double> ErrorsOfRows(const std::vector<Pair>& pairs, const Score& score) {
  std::vector<double> errors;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const Image &image = score.images[i], &clean = pairs[i].clean;
    for (int y = 0; y < clean.height; ++y) {
      double sum = 0.0;
      for (int x = 0; x < clean.width; ++x) sum += std::pow(image.at(x, y) - clean.at(x, y), 2);
      errors.push_back(std::sqrt(sum / clean.width));
    }
  }
  return errors;
}

// All filters, large for the eye, each from black to white.
Image Gallery(const Prior& prior) {
  constexpr int kScale = 16, kColumns = 8, kCell = kScale * FieldsOfExperts::kSize + 8;
  Image gallery(kColumns * kCell, (kFilters + kColumns - 1) / kColumns * kCell);
  std::fill(gallery.pixels.begin(), gallery.pixels.end(), 255.0);
  for (int k = 0; k < kFilters; ++k) {
    const auto filter = FieldsOfExperts::Filter(prior.coefficients.data(), k);
    double most = 1e-12;
    for (const double tap : filter) most = std::max(most, std::abs(tap));
    for (int y = 0; y < kScale * FieldsOfExperts::kSize; ++y) {
      for (int x = 0; x < kScale * FieldsOfExperts::kSize; ++x) {
        gallery.at(k % kColumns * kCell + 4 + x, k / kColumns * kCell + 4 + y) =
            127.5 * (1.0 + filter[y / kScale * FieldsOfExperts::kSize + x / kScale] / most);
      }
    }
  }
  return gallery;
}

// The filters and weights as C++.
std::string Paste(const Prior& x) {
  std::string text =
      "// energy: |u - v|^2 / 2 + sum_k w[k] sum log(1 + (f[k] * u)^2), grey levels 0 to 255\n";
  text += Format("constexpr double w[%d] = {", kFilters);
  for (int k = 0; k < kFilters; ++k)
    text += Format("%s%.6g", k ? ", " : "", std::exp(x.weights[k]));
  text += Format(
      "};\nconstexpr double f[%d][%d] = {  // Rows of 5 taps.\n", kFilters, FieldsOfExperts::kTaps);
  for (int k = 0; k < kFilters; ++k) {
    text += "  {";
    const auto filter = FieldsOfExperts::Filter(x.coefficients.data(), k);
    for (int t = 0; t < FieldsOfExperts::kTaps; ++t)
      text += Format("%s%.6g", t ? ", " : "", filter[t]);
    text += "},\n";
  }
  return text + "};\n";
}

int Run() {
  const double begin = Now();
  if (FLAGS_quick) {
    FLAGS_crops = std::min(FLAGS_crops, 8);
    FLAGS_crop = std::min(FLAGS_crop, 48);
    FLAGS_tests = FLAGS_tests > 0 ? std::min(FLAGS_tests, 2) : 2;
    FLAGS_iterations = std::min(FLAGS_iterations, 20);
  }
  if (!(FLAGS_sigma > 0.0) || FLAGS_crops < 1 || FLAGS_crop < 16 || FLAGS_tests < 0 ||
      FLAGS_iterations < 1 || !(FLAGS_minutes > 0.0)) {
    std::fprintf(stderr,
                 "--sigma, --crops, --minutes and --iterations must be positive, --tests not "
                 "negative, --crop at least 16.\n");
    return 1;
  }
  std::vector<Image> train, test;
  bool drawn;
  std::string error;
  if (!Load(&train, &test, &drawn, &error)) {
    std::fprintf(stderr, "%s.\n", error.c_str());
    return 1;
  }
  if (drawn) std::printf("No images in %s: drawn ones take their place.\n", FLAGS_images.c_str());
  if (FLAGS_tests > 0 && static_cast<int>(test.size()) > FLAGS_tests) test.resize(FLAGS_tests);
  for (Image& image : test) {
    if (!FLAGS_quick) continue;
    const int width = std::min(128, image.width), height = std::min(128, image.height);
    image = Crop(image, (image.width - width) / 2, (image.height - height) / 2, width, height);
  }
  const std::vector<Pair> pairs = Crops(train, FLAGS_crops, FLAGS_crop);
  std::vector<Image> noisy_crops;
  for (const Pair& pair : pairs) noisy_crops.push_back(pair.noisy);
  std::vector<Pair> tests;
  std::vector<Image> noisy;
  for (size_t i = 0; i < test.size(); ++i) {
    tests.push_back(
        {test[i], AddNoise(test[i], static_cast<unsigned>(7777 + 1000 * FLAGS_seed + i))});
    noisy.push_back(tests.back().noisy);
  }
  std::printf("%d crops of %d x %d to learn from, %zu whole images to test on; sigma %g.\n\n",
              FLAGS_crops,
              FLAGS_crop,
              FLAGS_crop,
              tests.size(),
              FLAGS_sigma);

  // Each prior begins where the one before ended, its lower levels too: the filters' energy has
  // many minima, and the one near the image that total variation gives is meant.
  std::vector<Learned> learned;
  const auto learn = [&](Prior start, bool filters, double function_tolerance, double seconds) {
    learned.push_back(Learn(pairs,
                            std::move(start),
                            learned.empty() ? noisy_crops : learned.back().images,
                            filters,
                            function_tolerance,
                            seconds));
    const Learned& l = learned.back();
    if (!l.summary.IsSolutionUsable()) {
      // Where a lower level's minimum ends, no step of the line search may be left; the best
      // filters so far are kept.
      std::fprintf(stderr, "%s: %s\n", l.prior.name.c_str(), l.summary.message.c_str());
      if (l.summary.num_successful_steps == 0) return false;
    }
    std::printf("%s: RMS error %.3f to %.3f in %.0f s. %s\n",
                l.prior.name.c_str(),
                std::sqrt(2.0 * l.summary.initial_objective),
                std::sqrt(2.0 * l.summary.final_objective),
                l.seconds,
                l.summary.BriefReport().c_str());
    return true;
  };
  const Prior by_hand{"total variation", {std::log(0.7 * FLAGS_sigma), 0.0}, {}};
  Prior experts{"cosine filters", {}, {}};
  experts.weights.assign(kFilters, std::log(0.8 * FLAGS_sigma));
  experts.coefficients.assign(kFilters * kFilters, 0.0);
  for (int k = 0; k < kFilters; ++k) {
    experts.coefficients[k * kFilters + k] = 1.75 / (FLAGS_sigma * FieldsOfExperts::kUnit);
  }
  if (!learn(by_hand, false, 1e-4, 60.0)) return 1;
  if (!learn(experts, false, 1e-3, 0.2 * 60.0 * FLAGS_minutes)) return 1;
  experts = learned.back().prior;
  experts.name = "learned filters";
  if (!learn(experts, true, 1e-5, 60.0 * FLAGS_minutes - learned.back().seconds)) return 1;

  bool ok = true;
  std::vector<Score> scores = {Judge("noisy", tests, noisy)};
  const auto judge = [&](const std::string& name, const Prior& prior, std::vector<Image> images) {
    const double start = Now();
    ok = Denoise(tests, prior, &images) && ok;
    Score score = Judge(name, tests, std::move(images));
    score.seconds = Now() - start;
    return score;
  };
  scores.push_back(judge("total variation, by hand", by_hand, noisy));
  // The best weight for the tests themselves, around both: all that total variation can do.
  Score best;
  for (Prior prior : {by_hand, learned[0].prior}) {
    const double log_weight = prior.weights[0];
    for (const double factor : {0.7, 0.84, 1.0, 1.2, 1.4}) {
      prior.weights[0] = log_weight + std::log(factor);
      Score score = judge("total variation, best", prior, scores[1].images);
      if (score.mean_psnr > best.mean_psnr) best = std::move(score);
    }
  }
  scores.push_back(best);
  for (size_t k = 1; k < learned.size(); ++k) {
    scores.push_back(judge(learned[k].prior.name, learned[k].prior, best.images));
  }

  // What a user has without learning is total variation, by the best weight for these very images.
  const bilevel::Verdict verdict = bilevel::JudgeLearned(
      {}, ErrorsOfRows(tests, best), ErrorsOfRows(tests, scores[4]), &learned[2].summary);
  examples::Print(verdict);
  std::printf("\nPSNR [dB] of unseen images\n\n");
  std::vector<std::string> header = {""};
  for (const Score& s : scores) header.push_back(s.name);
  examples::Table table(header);
  for (size_t i = 0; i < tests.size(); ++i) {
    std::vector<std::string> row = {
        Format("%s, %d x %d", test[i].name.c_str(), test[i].width, test[i].height)};
    for (const Score& s : scores) row.push_back(Format("%.2f", s.psnr[i]));
    table.Add(row);
  }
  std::vector<std::string> mean = {"mean"}, ssim = {"mean SSIM"}, seconds = {"seconds"};
  for (const Score& s : scores) {
    mean.push_back(Format("%.3f", s.mean_psnr));
    ssim.push_back(Format("%.4f", s.mean_ssim));
    seconds.push_back(Format("%.0f", s.seconds));
  }
  table.Add(mean);
  table.Add(ssim);
  table.Add(seconds);
  std::printf("%s\n", table.ToString().c_str());
  const double gain_of_weights = scores[3].mean_psnr - best.mean_psnr;
  const double gain = scores[4].mean_psnr - best.mean_psnr;
  std::printf(
      "Over the best total variation: learned filters %.2f dB, cosine filters with learned weights "
      "%.2f dB.\n",
      gain,
      gain_of_weights);

  if (!FLAGS_out.empty()) {
    // Clean, noisy, total variation, learned, side by side.
    const Image& first = tests[0].clean;
    Image strip(4 * first.width, first.height);
    const Image* parts[] = {&first, &noisy[0], &best.images[0], &scores[4].images[0]};
    for (int k = 0; k < 4; ++k) {
      for (int y = 0; y < first.height; ++y) {
        for (int x = 0; x < first.width; ++x) strip.at(k * first.width + x, y) = parts[k]->at(x, y);
      }
    }
    for (const auto& [suffix, image] : std::vector<std::pair<std::string, Image>>{
             {"_denoised.png", strip}, {"_filters.png", Gallery(learned[2].prior)}}) {
      if (WritePng(FLAGS_out + suffix, image, &error)) {
        std::printf("Picture: %s%s\n", FLAGS_out.c_str(), suffix.c_str());
      } else {
        std::fprintf(stderr, "%s.\n", error.c_str());
        ok = false;
      }
    }
    if (verdict.kind == bilevel::Verdict::kUseLearned) {
      ok = examples::WriteFile(FLAGS_out + "_prior.h", Paste(learned[2].prior)) && ok;
      std::printf("To paste, filters and weights: %s_prior.h\n", FLAGS_out.c_str());
    }
  }
  std::printf("%.0f s in all.\n", Now() - begin);

  examples::Json json;
  json.Add("drawn", drawn ? 1 : 0).Add("gain", gain).Add("gain_of_weights", gain_of_weights);
  json.Add("seconds", Now() - begin).Add("verdict", examples::ToJson(verdict));
  for (const Score& s : scores) {
    json.Add(s.name, examples::Json().Add("psnr", s.mean_psnr).Add("ssim", s.mean_ssim));
  }
  for (const Learned& l : learned) {
    json.Add("learning " + l.prior.name,
             examples::Json()
                 .Add("initial", l.summary.initial_objective)
                 .Add("final", l.summary.final_objective)
                 .Add("seconds", l.seconds));
  }
  json.AddRaw("summary", learned[2].summary.Json());
  ok = examples::WriteFile(FLAGS_summary_json, json.ToString()) && ok;
  ok = examples::WriteFile(FLAGS_trace_csv, learned[2].summary.Csv()) && ok;
  if (!FLAGS_plot.empty()) {
    examples::Panel convergence{"Training images", "time [s]", "RMS error [grey levels]"};
    double from = 0.0;
    for (const Learned& l : learned) {
      examples::Series series{l.prior.name, "lines", {}, {}};
      for (const auto& it : l.summary.iterations) {
        series.x.push_back(from + it.cumulative_time_in_seconds);
        series.y.push_back(std::sqrt(2.0 * it.objective));
      }
      from += l.seconds;
      convergence.series.push_back(series);
    }
    examples::Panel unseen{"Unseen images", "image", "PSNR [dB]"};
    for (size_t k = 2; k < scores.size(); ++k) {
      examples::Series series{scores[k].name, "linespoints", {}, scores[k].psnr};
      for (size_t i = 0; i < tests.size(); ++i) series.x.push_back(static_cast<double>(i + 1));
      unseen.series.push_back(series);
    }
    ok = examples::Plot(FLAGS_plot, "Learned priors for denoising", {convergence, unseen}) && ok;
  }
  return examples::ExitCode(ok, verdict);
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  examples::ParseFlags(
      "Learns filters for denoising on some images and tests them on others, beside total "
      "variation\n"
      "with the best weight.\n\n"
      "Usage: denoise_image [flags] [folder]\n\n"
      "  denoise_image --out=denoised --plot=learning.png\n"
      "  denoise_image --minutes=30 --crops=100 --tests=0    (the long run, on all unseen images)",
      &argc,
      &argv,
      &FLAGS_images);
  if (FLAGS_num_threads < 1) {
    std::fprintf(stderr, "--num_threads must be positive.\n");
    return 1;
  }
  return Run();
}
