#include "bilevel/methods/stochastic/vrbo.h"

#include "bilevel/base/memory.h"

namespace bilevel {

std::string Vrbo::CheckOptions(const Oracle& oracle) const {
  std::string complaint = NeumannMethod::CheckOptions(oracle);
  if (complaint.empty()) {
    complaint = CheckBatch(
        oracle.g, "lower level", own_.large_lower_batch, own_.sampling, "vrbo.large_lower_batch");
  }
  if (complaint.empty()) {
    complaint = CheckBatch(
        oracle.f, "upper level", own_.large_upper_batch, own_.sampling, "vrbo.large_upper_batch");
  }
  if (complaint.empty() && own_.period <= 0) complaint = "vrbo.period must be positive";
  return complaint;
}

// u and v over the samples drawn, at the point and the one before.
void Vrbo::Update(Oracle& o, State& s, const Batch& zeta, bool note) {
  u_now_ = u_.Next(
      0.0, s.x, s.y, nothing_, [&](const Point& x, const Point& y, const Vector&, Vector* g) {
        o.g(zeta).Gradient(x, y, nullptr, &g_y_);
        *g = g_y_.dense();
      });
  v_now_ = v_.Next(
      0.0, s.x, s.y, nothing_, [&](const Point& x, const Point& y, const Vector&, Vector* d) {
        const double f = neumann_.Evaluate(o, metric(), x, y, samples_, &d_);
        if (note) Note(f);
        *d = d_.dense();
      });
}

void Vrbo::Iterate(Oracle& o, State& s) {
  if (o.iteration % own_.period == 0) {
    u_.Restart();
    v_.Restart();
    Draw(o, &samples_);
    const auto enlarge = [](Batch* batch, int size) { batch->size = size; };
    enlarge(&samples_.f, own_.large_upper_batch);
    enlarge(&samples_.j, own_.large_lower_batch);
    for (Batch& h : samples_.h) enlarge(&h, own_.large_lower_batch);
    Batch zeta = Lower(o, kY);
    enlarge(&zeta, own_.large_lower_batch);
    Update(o, s, zeta, true);
  }
  MoveX(o, s, options_.x, v_now_);
  const double beta = options_.y.At(o.iteration);
  for (int t = 0; t <= options_.num_lower_steps && o.ok(); ++t) {
    if (t > 0) MoveY(o, s, beta, u_now_);
    Draw(o, &samples_);
    Update(o, s, Lower(o, kY), false);
  }
}

void Vrbo::RememberOwn(Oracle& oracle, Memory* memory) {
  u_.Remember("u", oracle, memory);
  v_.Remember("v", oracle, memory);
  memory->Keep("u_now", &u_now_);
  memory->Keep("v_now", &v_now_);
}

}  // namespace bilevel
