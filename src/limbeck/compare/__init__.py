"""The accuracy of each method: the same student by several methods and seeds, at one budget.

Every method trains the same starts on the same data order for the same epochs with the same optimizer; "baseline", the
student without a teacher, is always among them. Differences are taken in pairs of one seed.

For self-distillation "baseline" learns the labels at every exit, and "backbone" is the plain network behind the deepest
exit, trained alone: the two things that "without self-distillation" may mean.
"""

from limbeck.compare.comparison import compare
from limbeck.compare.verdicts import difference, summarise

__all__ = ["compare", "difference", "summarise"]
