# SPDX-License-Identifier: MIT
"""How much chance alone moves a result, and which differences are larger.

Two variants are compared by the means over their seeds. A difference counts
only if it is larger than chance alone would make it in 19 of 20 repetitions:
quantile * s * sqrt(1/n + 1/m), with s the standard deviation of one run.
"""

import math
from dataclasses import dataclass

from .variants import final, mean, sample_std

# Standard deviation of one run from seed to seed, in bits per byte, and the
# difference that two single runs need. Measured before this program was
# written, on the same text with the same small model at 3 and 8 TFLOP.
ASSUMED_STD = 0.009
SINGLE_RUN_LIMIT = 0.025
# With fewer degrees of freedom an estimate from the run's own seeds is worse than the assumption.
ENOUGH_FREEDOM = 3
# Below this budget the models have hardly begun to learn and no noise level is known.
SMALLEST_BUDGET = 1e12
# 97.5 % points of Student's t distribution for 1 to 20 degrees of freedom.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip

BELOW, INSIDE, ABOVE, UNKNOWN = "lower", "inside the noise", "higher", "not judged"


@dataclass(frozen=True)
class Noise:
    std: float
    estimated: bool
    freedom: int
    usable: bool

    @property
    def quantile(self):
        if not self.estimated:
            return 1.96
        return STUDENT[self.freedom - 1] if self.freedom <= len(STUDENT) else 1.96 + 2.5 / self.freedom

    def limit(self, runs_a, runs_b):
        limit = self.quantile * self.std * math.sqrt(1 / runs_a + 1 / runs_b)
        return max(limit, SINGLE_RUN_LIMIT) if runs_a == runs_b == 1 else limit

    def sentence(self):
        if not self.usable:
            return (
                "At this budget the models have hardly begun to learn: the run shows that the program works, "
                "and its losses are not compared."
            )
        if self.estimated:
            return (
                f"Seeds alone move one run by {self.std:.3f} bits per byte (standard deviation, estimated "
                f"from the seeds of this comparison with {self.freedom} degrees of freedom)."
            )
        return (
            f"Seeds alone move one run by about {self.std:.3f} bits per byte (standard deviation, assumed from earlier "
            "measurements of this model: there are too few seeds here to estimate it), "
            f"so two single runs must differ by {SINGLE_RUN_LIMIT} to mean anything."
        )


def noise_of(results):
    """Pooled over all variants with several seeds, if there are enough of them."""
    groups = [final(variant, "bits_per_byte") for variant in results["variants"]]
    freedom = sum(len(group) - 1 for group in groups)
    usable = results["budget_flops"] >= SMALLEST_BUDGET
    if freedom < ENOUGH_FREEDOM:
        return Noise(ASSUMED_STD, False, freedom, usable)
    squares = sum((len(group) - 1) * sample_std(group) ** 2 for group in groups)
    return Noise(math.sqrt(squares / freedom), True, freedom, usable)


@dataclass(frozen=True)
class Difference:
    subject: dict
    reference: dict
    value: float
    limit: float
    verdict: str


def compare(subject, reference, noise):
    a, b = final(subject, "bits_per_byte"), final(reference, "bits_per_byte")
    value, limit = mean(a) - mean(b), noise.limit(len(a), len(b))
    if not noise.usable:
        verdict = UNKNOWN
    elif abs(value) <= limit:
        verdict = INSIDE
    else:
        verdict = BELOW if value < 0 else ABOVE
    return Difference(subject, reference, value, limit, verdict)
