"""A recipe's teacher of which nothing is there but its stored outputs: whether they fit, and how they are read."""

from __future__ import annotations

from limbeck.data import DataSet
from limbeck.errors import RequestError
from limbeck.recipes import schema
from limbeck.runs.outputs.asking import views_digest, views_of
from limbeck.runs.outputs.ledger import Outputs
from limbeck.runs.written_out import setting_of
from limbeck.teachers import StoredTeacher


def given_teacher(recipe: schema.Recipe, data: DataSet) -> StoredTeacher:
    """The stored outputs that a recipe names as its teacher.

    Raises:
        RequestError: Nothing is stored there, or it belongs to other data (another tokenizer, length, file or split),
            classes or views; or the recipe's method trains in stages.
    """
    place = recipe.stored
    assert place is not None
    method = recipe.distill.method
    if method is not None and setting_of(method).stages:
        raise RequestError(f"method {method} trains in stages, for which stored outputs do not do; name the teacher")
    about = {"data": data.train.fingerprint}
    if recipe.data.augment:
        about["views"] = views_digest(recipe.data)
    found = StoredTeacher(place, about)
    held = found.description
    if held.samples != len(data.train) or held.about["classes"] not in (None, data.classes):
        raise RequestError(
            f"{place} holds outputs for {held.samples:,} samples of {held.about['classes']:,} classes, and "
            f"{data.name} has {len(data.train):,} of {data.classes:,}"
        )
    if held.views < views_of(recipe, data):
        raise RequestError(
            f"{place} holds outputs for {held.views} view(s) of each sample, and the training sees "
            f"{views_of(recipe, data)}; set data.views to {held.views}"
        )
    return found


def outputs_of(teacher: StoredTeacher) -> Outputs:
    """What a result says of them."""
    who = teacher.description.words.get("teacher", "a teacher that is not here")
    return Outputs.stored(teacher, f"stored outputs of {who}, as {teacher.coding.words}", found=True)
