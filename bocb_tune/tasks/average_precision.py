"""Average precision over all ranks: each image counts once, whatever the number of ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bocb_tune.backbones import list_backbones
from bocb_tune.core.types import Measurement, Objective, TrialSpec
from bocb_tune.data.coco.parts import AnnotatedPart
from bocb_tune.data.coco.scores import Kind, Result, average_precision, ground_truth
from bocb_tune.training.context import Context, Ranks
from bocb_tune.training.distributed import gather_objects
from bocb_tune.training.loop import Training, catch_out_of_memory, fit


class PrecisionTask(ABC):
    """A task on images with objects, whose score is average precision."""

    @abstractmethod
    def training(self, trial: TrialSpec, context: Context) -> Training:
        """Build model, optimizer and data of a trial."""

    def objective(self, dataset: Mapping[str, Any], options: Mapping[str, Any]) -> Objective:  # noqa: ARG002
        return Objective(metric="ap", unit="points", floor=0.0)

    def backbones(self) -> Sequence[str]:
        return list_backbones()

    def run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        """See `Task.run`."""
        return catch_out_of_memory(self._run(trial, context))

    def _run(self, trial: TrialSpec, context: Context) -> Generator[Measurement, None, None]:
        yield from fit(self.training(trial, context), trial, context)


@dataclass(frozen=True, kw_only=True)
class AveragePrecision:
    """Scorer of the images of a part."""

    part: AnnotatedPart
    kinds: tuple[Kind, ...]
    """Kinds to score; metrics of the first have their plain names, those of others begin with the kind."""
    category_ids: Sequence[int] | None = None
    sigmas: Sequence[float] | None = None
    _found: dict[int, list[Result]] = field(default_factory=dict, init=False)

    def add(self, image_id: int, results: list[Result]) -> None:
        """Take the results of an image, in COCO's format of results, as floats and ints; those of an image that was
        taken already are left out."""
        self._found.setdefault(image_id, results)

    def scores(self, ranks: Ranks) -> dict[str, float]:
        """Score what all ranks took, in points, and forget it; every rank gets the same.

        Images of which no rank took anything count as images in which nothing was found.
        """
        gathered = gather_objects(dict(self._found), ranks)
        self._found.clear()
        own = self._scores(merged(gathered)) if ranks.rank == 0 else {}
        scores: dict[str, float] = gather_objects(own, ranks)[0]
        return scores

    def _scores(self, results: list[Result]) -> dict[str, float]:
        image_ids = self.part.annotations.image_ids[self.part.images].tolist()
        found: dict[str, float] = {}
        for kind in self.kinds:
            scored = average_precision(
                self._truth,
                results,
                kind,
                image_ids=image_ids,
                category_ids=self.category_ids,
                sigmas=self.sigmas,
            )
            prefix = "" if kind == self.kinds[0] else f"{kind}_"
            found |= {f"{prefix}{name}": value for name, value in scored.items()}
        return found

    @cached_property
    def _truth(self) -> Any:
        return ground_truth(self.part)


def merged(gathered: Sequence[dict[int, list[Result]]]) -> list[Result]:
    """Merge results by image, ordered by its id; an image that several ranks took counts once."""
    images: dict[int, list[Result]] = {}
    for found in gathered:
        for image_id, results in found.items():
            images.setdefault(image_id, results)
    return [result for image_id in sorted(images) for result in images[image_id]]
