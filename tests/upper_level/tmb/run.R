# The figures of marginal_likelihood_beside_tmb_test.cc, by Template Model Builder (Debian:
# r-cran-tmb, r-base-dev): Rscript run.R
library(TMB)
options(digits = 15)
directory <- tempdir()
of <- function(name, data, x, y) {
  file.copy(paste0(name, ".cpp"), directory, overwrite = TRUE)
  compile(file.path(directory, paste0(name, ".cpp")))
  dyn.load(dynlib(file.path(directory, name)))
  f <- MakeADFun(data, list(x = x, y = y), random = "y", DLL = name, silent = TRUE)
  newtonOption(f, tol10 = 0, grad.tol = 1e-12, tol = 1e-12)
  f
}
show <- function(f, x) cat("x", x, "\n  value", f$fn(x), "\n  gradient", f$gr(x), "\n")
best <- function(f, x) {
  found <- nlminb(x, f$fn, f$gr, control = list(rel.tol = 1e-14, x.tol = 1e-12, iter.max = 500))
  cat("best", found$par, "\n  value", found$objective, "\n  gradient", f$gr(found$par), "\n")
}

t <- 0:399
states <- of("states", list(z = 2 * sin(0.05 * t) + 0.3 * cos(1.7 * t * t)), c(-1, -1, 0.9), rep(0, 400))
show(states, c(-1, -1, 0.9))
show(states, c(-2, -0.5, 1))
best(states, c(-1, -1, 0.9))

# Draper and Smith (1981): five orange trees, in R's datasets.
growth <- of("growth",
             list(age = Orange$age, size = Orange$circumference,
                  tree = as.integer(as.character(Orange$Tree)) - 1L),
             c(190, 720, 350, 3.4, 2), rep(0, 5))
show(growth, c(190, 720, 350, 3.4, 2))
show(growth, c(200, 700, 300, 3, 2.5))
best(growth, c(190, 720, 350, 3.4, 2))
