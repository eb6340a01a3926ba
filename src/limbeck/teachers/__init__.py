"""Teachers: what turns a batch into a signal. Each is frozen, and stays outside the distiller."""

from limbeck.teachers.ensemble import EnsembleTeacher
from limbeck.teachers.module import ModuleTeacher
from limbeck.teachers.teacher import Teacher

__all__ = ["EnsembleTeacher", "ModuleTeacher", "Teacher"]
