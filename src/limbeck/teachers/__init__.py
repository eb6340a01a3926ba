"""Teachers: what turns a batch into a `TeacherOutput`. Each is frozen, and stays outside the distiller."""

from limbeck.teachers.cached import CachedTeacher, memory_need
from limbeck.teachers.ensemble import EnsembleTeacher
from limbeck.teachers.function import FunctionTeacher
from limbeck.teachers.module import ModuleTeacher
from limbeck.teachers.stored import StoredTeacher
from limbeck.teachers.teacher import Teacher
from limbeck.teachers.virtual import VirtualTeacher

__all__ = [
    "CachedTeacher",
    "EnsembleTeacher",
    "FunctionTeacher",
    "ModuleTeacher",
    "StoredTeacher",
    "Teacher",
    "VirtualTeacher",
    "memory_need",
]
