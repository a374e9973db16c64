"""Schema of an experiment file: its keys, their types and ranges, and the JSON schema that editors use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, create_model, model_validator

from bocb_tune.core.groups import GroupShape
from bocb_tune.data import DATASETS
from bocb_tune.optimizers import OPTIMIZERS
from bocb_tune.spec.pretrained import ANY
from bocb_tune.spec.source import Location
from bocb_tune.spec.space_file import OwnRange, Positive, SpaceFile
from bocb_tune.spec.strict import StrictModel
from bocb_tune.tasks import TASKS
from bocb_tune.training.recipes import RECIPES, Recipe

MOST = 1_000_000_000
"""Largest number of anything that is counted."""
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


def _names(known: Collection[str]) -> dict[str, Any]:
    return {"enum": sorted(known)}


class Choice(StrictModel):
    """A name from a table, with options of its own: `digits`, or `{name: digits, image_size: 64}`."""

    model_config = ConfigDict(extra="allow")

    name: str

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        if (
            isinstance(value, dict)
            and "name" not in value
            and (near := get_close_matches("name", map(str, value), n=1))
        ):
            raise ValueError(f"has no name; it says {near[0]!r}, did you mean 'name'?")
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Options given beside the name."""
        return dict(self.model_extra or {})


class RecipeShape(StrictModel):
    """A named recipe with changes: `digits`, or `{base: digits, batch_size: 32}`."""

    base: Annotated[str, Field(json_schema_extra=_names(RECIPES))]
    """Name of the recipe that the other keys change."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"base": value} if isinstance(value, str) else value

    @property
    def changes(self) -> dict[str, Any]:
        """Fields that were given."""
        return self.model_dump(exclude_unset=True, exclude={"base", "by_backbone"})


def _drop_default(schema: dict[str, Any]) -> None:
    del schema["default"]


def _recipe_file() -> type[RecipeShape]:
    hints, described = get_type_hints(Recipe), TypeAdapter(Recipe).json_schema()["properties"]
    # A field left out takes the value of the base recipe, so it has no default of its own: None is never read.
    entries: dict[str, Any] = {
        name: (
            hints[name],
            # YAML has lists where a recipe has tuples
            Field(
                None,
                strict=None if get_origin(hints[name]) is not tuple else False,
                description=field["description"],
                json_schema_extra=_drop_default,
            ),
        )
        for name, field in described.items()
    }
    return create_model("RecipeFile", __base__=RecipeShape, __doc__=RecipeShape.__doc__, **entries)


RecipeFile = _recipe_file()


class GridRecipeFile(RecipeFile):  # type: ignore[valid-type, misc]
    """The recipe of a grid: a named one with changes, and other ones for some of its backbones."""

    by_backbone: dict[str, RecipeFile] = Field(default_factory=dict)  # type: ignore[valid-type]
    """Recipes of those backbones that differ from the others, by the backbone's name."""

    def choices(self) -> Iterator[tuple[Location, Any]]:
        """Yield every recipe in here, the grid's own first, with its place in the file."""
        yield ("recipe",), self
        for backbone, choice in self.by_backbone.items():
            yield ("recipe", "by_backbone", backbone), choice

    def of(self, backbone: str) -> tuple[Location, Any]:
        """Return the recipe that a backbone is trained by, with its place in the file."""
        own = self.by_backbone.get(backbone)
        return (("recipe", "by_backbone", backbone), own) if own else (("recipe",), self)


class Budget(StrictModel):
    """Epochs of a trial and trials of a cell."""

    epochs: AtLeastOne
    """Epochs of a trial that is not stopped; also the length of the learning rate schedule of every trial."""
    trials_per_cell: AtLeastOne
    """Trials of a cell before repeats: one at the default, `search.design` of the design, the others of the search."""
    checkpoint_every: AtLeastOne = 1
    """Epochs between two checkpoints of a trial."""
    checkpoint_every_s: Positive = 900.0
    """Seconds after which a trial is checkpointed at its next step, also within an epoch."""


class Asha(StrictModel):
    """Early stopping by asynchronous successive halving (arXiv:1810.05934)."""

    grace: AtLeastOne = 1
    """Epochs that every trial gets: the first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One trial in this many continues at each rung; also the ratio between the budgets of successive rungs."""


class Search(StrictModel):
    """Exploration of the space of a cell."""

    design: Count = 8
    """Space-filling points, the same in every cell of an optimizer."""
    sampler: Literal["tpe", "gp", "random", "qmc", "grid"] = "tpe"
    """Sampler that proposes the points of the search phase."""
    asha: Asha | None = Asha()
    """Early stopping; null runs every trial to the end."""
    audit: Share = 0.1
    """Share of design, search and refine trials that is exempt from stopping."""
    refine: Count = 0
    """Trials of a cell, when its search is over, that move what is the optimizer's own (momentum, betas ...) at the
    best learning rate and weight decay, over the ranges that the search space names under `own`."""


class Repeats(StrictModel):
    """Fresh seeds, run to the end when the search is over."""

    best: Count = 3
    """Fresh seeds at the best point of the cell, and as many, the same, at the refined best."""
    default: Count = 1
    """Fresh seeds at the optimizer's published setting."""


class GroupFile(StrictModel):
    """Resources of the trials of a backbone; those not given are as for the others."""

    workers: AtLeastOne | None = None
    """Ranks of data-parallel training per trial."""
    gpus_per_worker: Annotated[float, Field(ge=0)] | None = None
    """GPUs each rank takes; a fraction shares one between trials."""
    cpus_per_worker: AtLeastOne | None = None
    """CPUs each rank takes."""
    labels: dict[str, str] | None = None
    """Labels that nodes must have to train these."""


class Resources(StrictModel):
    """Resources of one trial."""

    workers: AtLeastOne = 1
    """Ranks of data-parallel training per trial."""
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    """GPUs each rank takes; a fraction shares one between trials."""
    cpus_per_worker: AtLeastOne = 1
    """CPUs each rank takes."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels that nodes must have, as `ray start --labels` gave them: a value, `!value`, or `in(one, other)`."""
    by_backbone: dict[str, GroupFile] = Field(default_factory=dict)
    """Resources of the trials of those backbones that differ from the others, by the backbone's name."""
    turns: Literal["trials", "time"] = "trials"
    """Policy by which cells share the cluster. trials: all cells are kept level in trials. time: each gets the same
    time of the cluster, so that cells of small backbones are done first."""
    max_slots: AtLeastOne | None = None
    """Most trials at a time; null for as many as fit."""
    warm: bool = True
    """Whether worker processes are reused from one trial to the next."""
    patience_min: Positive = 10.0
    """Minutes without a step or a measurement, but at least ten usual epochs, after which workers are started again."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the slots that a run keeps, one at least, while another run on the cluster waits for room."""

    def of(self, backbone: str) -> GroupShape:
        """Return what a trial of a backbone takes."""
        values = {key: self._given(backbone, key) for key in GroupFile.model_fields}
        return GroupShape(**values | {"labels": tuple(sorted(values["labels"].items()))})

    def place(self, backbone: str, key: str) -> Location:
        """Return the place in the file of what decides a value for a backbone."""
        own = self.by_backbone.get(backbone)
        is_own = own is not None and getattr(own, key) is not None
        return ("resources", "by_backbone", backbone, key) if is_own else ("resources", key)

    def _given(self, backbone: str, key: str) -> Any:
        own = getattr(self.by_backbone.get(backbone), key, None)
        return getattr(self, key) if own is None else own

    def resolved(self) -> Resources:
        """Return the same with nothing left unsaid."""
        own = {
            name: GroupFile(**{key: self._given(name, key) for key in GroupFile.model_fields})
            for name in self.by_backbone
        }
        return self.model_copy(update={"by_backbone": own})

    def alone(self) -> Resources:
        """Return the same with one rank for each trial."""
        own = {name: group.model_copy(update={"workers": 1}) for name, group in self.by_backbone.items()}
        return self.model_copy(update={"workers": 1, "by_backbone": own})


class RangeChange(StrictModel):
    """Ends of a range; those not given stay as shipped."""

    low: Positive | None = None
    """Smallest value tried."""
    high: Positive | None = None
    """Largest value tried."""


class ZeroRangeChange(RangeChange):
    """Ends of a range, and the share of exact zeros beside it."""

    zero: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Probability that a trial has weight decay 0; 0 excludes it."""


class PointChange(StrictModel):
    """The setting of the default trial."""

    lr: Positive | None = None
    """Peak learning rate at the recipe's batch size."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    """Weight decay as the optimizer's own argument."""


class SpaceChange(StrictModel):
    """Differences from the optimizer's file in search_spaces/."""

    lr: RangeChange = RangeChange()
    """Range of the peak learning rate."""
    weight_decay: ZeroRangeChange = ZeroRangeChange()
    """Range of the weight decay."""
    default: PointChange = PointChange()
    """The setting of the default trial."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the optimizer that are never tuned; those not given stay as shipped."""
    decay: str | None = None
    """Kind of weight decay; a property of the optimizer that cannot be changed."""
    own: dict[str, OwnRange | None] = Field(default_factory=dict)
    """Ranges of what is the optimizer's own, for `search.refine`; null leaves out one that is shipped."""

    def over(self, file: SpaceFile) -> SpaceFile:
        """Return the file with these changes."""
        ranges = {name: bounds.model_dump(exclude_none=True) for name, bounds in self.own.items() if bounds}
        changes = {**self.model_dump(exclude_none=True, exclude={"own"}), "own": ranges}
        left_out = self.own.keys() - ranges.keys()
        merged = _merge(file.model_dump(), changes)
        own = {name: bounds for name, bounds in merged["own"].items() if name not in left_out}
        return SpaceFile.model_validate({**merged, "own": own})


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    nested = {key: _merge(base[key], value) for key, value in change.items() if isinstance(base.get(key), dict)}
    return {**base, **change, **nested}


def _for_any(value: Any) -> Any:
    """Take one source as that of every backbone."""
    if not isinstance(value, dict):
        return value
    return {name: {ANY: given} if isinstance(given, str) else given for name, given in value.items()}


class SpecFile(StrictModel):
    """An experiment: a grid of backbones and optimizers, how it is searched, and with what budget."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the experiment and its run folder: letters, digits, dot, underscore and hyphen."""
    task: Choice
    """Task to train for: a name, or a mapping of name and options."""
    dataset: Choice
    """Data set to train on: a name, or a mapping of name and options."""
    backbones: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """Names of backbones, listed by `bocb-tune list backbones`."""
    pretrained: Annotated[dict[str, dict[str, str]], BeforeValidator(_for_any)] = Field(default_factory=dict)
    """Weights that backbones start from, by name (that of the optimizer they were trained by, where there is one): each
    makes a row `backbone@name` of the grid. timm:TAG, a file, RUN:BACKBONE/OPTIMIZER, or scratch; `*` stands for the
    backbone. Or a mapping of these by backbone."""
    optimizers: Annotated[
        tuple[str, ...],
        Field(strict=False, min_length=1, json_schema_extra={"items": {"type": "string", **_names(OPTIMIZERS)}}),
    ]
    """Names of optimizers."""
    recipe: GridRecipeFile
    """Recipe, which the grid holds fixed: a name, or a mapping of its base and changes, also by backbone."""
    budget: Budget
    """Epochs of a trial and trials of a cell."""
    search: Search = Search()
    """Exploration of the space of a cell."""
    repeats: Repeats = Repeats()
    """Fresh seeds, run to the end when the search is over."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw of the experiment."""
    resources: Resources = Resources()
    """Resources of one trial."""
    storage: Annotated[str, Field(min_length=1)] = "runs"
    """Folder that holds the run folder, or a URI such as `s3://bucket/runs`; `~` is the home folder."""
    search_spaces: dict[str, SpaceChange] = Field(default_factory=dict)
    """Changes to the shipped search spaces, by optimizer."""


def schema() -> dict[str, Any]:
    """Make the JSON schema of an experiment file, for editors: every key with its description, every name there is."""
    whole = SpecFile.model_json_schema()
    keys, parts = whole["properties"], whole["$defs"]
    tables: dict[str, Mapping[str, Any]] = {"task": TASKS, "dataset": DATASETS}
    for key, table in tables.items():
        variants = [_variant(name, row) for name, row in table.items()]
        keys[key] = {"description": keys[key]["description"], "anyOf": [_names(table), *variants]}
    keys["recipe"] = {"description": keys["recipe"]["description"], "anyOf": [_names(RECIPES), parts["GridRecipeFile"]]}
    parts["GridRecipeFile"]["properties"]["by_backbone"]["additionalProperties"] = {
        "anyOf": [_names(RECIPES), {"$ref": "#/$defs/RecipeFile"}]
    }
    by_backbone = keys["pretrained"]["additionalProperties"]
    keys["pretrained"]["additionalProperties"] = {"anyOf": [{"type": "string"}, by_backbone]}
    keys["search_spaces"]["propertyNames"] = _names(OPTIMIZERS)
    del parts["Choice"], parts["GridRecipeFile"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def _variant(name: str, row: Any) -> dict[str, Any]:
    """Describe one row of a table as a mapping of its name and options."""
    options = {option: {"default": default} for option, default in row.options.items()}
    properties = {"name": {"const": name, "description": row.description}, **options}
    return {"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False}
