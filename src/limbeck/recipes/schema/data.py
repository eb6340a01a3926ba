"""The keys of `data`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from limbeck.recipes.schema.fields import Count, Seed, Strict


class Data(Strict):
    """Which data, how it is cut into batches, and how the students see it.

    `augment` lists augmentations, each a name or {name: options}. Epoch e sees view e mod `views`, a new one each epoch
    without `views`; a view is a function of (`view_seed`, view, sample), the same for all students of a comparison.
    """

    name: str = "digits"
    """Data set: a name of `limbeck list data`, a folder of images, or package.module:function."""
    options: dict[str, Any] = Field(default={})
    """Arguments of a function that makes the data set; it must take them."""
    root: str | None = None
    """Folder of the data, relative to the recipe's file; null: --data-root, $LIMBECK_DATA, or limbeck's cache."""
    batch_size: Count = 32
    """Samples per training step."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training set held out for validation, 0 to 1."""
    sampling: str = "uniform"
    """How training samples are drawn: uniform, balanced (each class as often), or package.module:function of labels."""
    drop_last: bool = False
    """Leave out a last batch that is smaller than the others."""
    size: Count | None = None
    """Height and width in pixels that the images of a folder are resized to; null: as they are."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that load data; 0: the main process."""
    augment: list[str | dict[str, Any]] = Field(default=[])
    """Augmentations in order, each a name or {name: options}; also torchvision:NAME and package.module:function."""
    views: Count | None = None
    """Number of different augmented views; null: a new one each epoch."""
    view_seed: Seed = 0
    """Seed of the views."""
    limit_steps: Count | None = None
    """Trial: use only so many training samples as so many steps an epoch need; null: all."""
    limit_samples: Count | None = None
    """Trial: use at most so many samples of each split; null: all."""

    @property
    def trial(self) -> dict[str, int]:
        """The limits that make figures those of a trial; empty without one."""
        limits = {"limit_steps": self.limit_steps, "limit_samples": self.limit_samples}
        return {name: limit for name, limit in limits.items() if limit is not None}
