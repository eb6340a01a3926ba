"""Every key of a recipe, its type and its default."""

from limbeck.recipes.schema.data import Data
from limbeck.recipes.schema.distillation import TAUGHT, WITH_TERMS, Distill, Scheme, Term
from limbeck.recipes.schema.fields import Taps
from limbeck.recipes.schema.models import OF_STUDENTS, PLACES, Model, Store, StoredOutputs, Student, Teacher
from limbeck.recipes.schema.recipe import Recipe, check_name
from limbeck.recipes.schema.task import Task
from limbeck.recipes.schema.training import EarlyStopping, Optimizer, Quantize, Schedule

__all__ = [
    "OF_STUDENTS",
    "PLACES",
    "TAUGHT",
    "WITH_TERMS",
    "Data",
    "Distill",
    "EarlyStopping",
    "Model",
    "Optimizer",
    "Quantize",
    "Recipe",
    "Schedule",
    "Scheme",
    "Store",
    "StoredOutputs",
    "Student",
    "Taps",
    "Task",
    "Teacher",
    "Term",
    "check_name",
]
