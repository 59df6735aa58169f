"""One sample in a few numbers: accuracies over seeds, times over rounds."""

import dataclasses
import math
import statistics
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Spread:
    """A sample, in its own unit.

    Attributes:
      count: how many values.
      mean: their mean.
      deviation: their standard deviation (n - 1); NaN for one value.
      median, lower, upper: the median and the quartiles.
      min, max: the extremes.
    """

    count: int
    mean: float
    deviation: float
    median: float
    lower: float
    upper: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Returns the spread of a sample.

        Raises:
          ValueError: the sample is empty.
        """
        sample = sorted(float(value) for value in values)  # in any order the same, to the last digit
        if not sample:
            raise ValueError("values: needs at least one, got none.")
        mean, low, high = statistics.fmean(sample), min(sample), max(sample)
        if len(sample) == 1:
            return cls(1, mean, math.nan, mean, mean, mean, low, high)
        lower, median, upper = statistics.quantiles(sample, n=4, method="inclusive")
        return cls(len(sample), mean, statistics.stdev(sample), median, lower, upper, low, high)

    def quantiles(self, digits: int | None = None) -> dict[str, float]:
        """Returns median, quartiles and extremes as JSON values, rounded to this many digits."""
        found = {name: getattr(self, name) for name in ("median", "lower", "upper", "min", "max")}
        return found if digits is None else {name: float(f"{value:.{digits}g}") for name, value in found.items()}

    @property
    def percent(self) -> str:
        """Mean and standard deviation of shares, in per cent."""
        deviation = "(one seed)" if math.isnan(self.deviation) else f"± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f} {deviation}"

    @property
    def percent_range(self) -> str:
        """The extremes of shares, in per cent."""
        return f"{100 * self.min:.2f} to {100 * self.max:.2f}"
