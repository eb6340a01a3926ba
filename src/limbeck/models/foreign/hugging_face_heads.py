"""Which class of Hugging Face's transformers builds a model: by what is wanted, and by what its configuration says."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from limbeck.errors import RequestError, unknown
from limbeck.models.foreign.hugging_face_embedder import PLAIN

_KINDS = {
    "ForImageClassification": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING"),
    "ForCausalLM": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING"),
    "LMHeadModel": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING"),
    "Model": ("AutoModel", "MODEL_MAPPING"),
}
"""By the end of an architecture's name: the class that builds it, and the configurations for which there is one."""
HEADS = {
    "classification": ("ForImageClassification", "ForSequenceClassification"),
    "token-classification": ("ForTokenClassification",),
    "language-model": ("ForCausalLM", "LMHeadModel", "ForMaskedLM"),
    "causal-lm": ("ForCausalLM", "LMHeadModel"),
    "masked-lm": ("ForMaskedLM",),
    "embedding": ("Model",),
}
"""What a model can end in: logits of classes, of classes a token, of the next or the hidden token; or a vector."""
_OF_TASK = {
    "classification": "classification",
    "multi-label": "classification",
    "regression": "classification",
    "token-classification": "token-classification",
    "language-modelling": "language-model",
    "embedding": "embedding",
}


def head_of_task(task: str) -> str | None:
    """What a model ends in that learns a task, by the task's name; None for others, where its configuration says it."""
    return _OF_TASK.get(task)


def kind_of(settings: Any, head: str | None, where: str) -> tuple[Any, str]:
    """The class that builds a model, and the end of its architecture's name.

    Args:
        settings: Its configuration.
        head: One of `HEADS`, or None: as `architectures` says; where that says nothing, a classifier.
        where: What is read, for the error.

    Raises:
        RequestError: An unknown head, or one that transformers does not have for this configuration.
    """
    if head is not None and head not in HEADS:
        raise unknown("head", head, HEADS)
    named = getattr(settings, "architectures", None) or ()
    wanted = HEADS[head] if head else tuple(_KINDS)
    for name in named:
        for end in wanted:
            if name.endswith(end) and (end != "Model" or not _is_other(name)):
                return _class(end), end
    mappings = importlib.import_module("transformers.models.auto.modeling_auto")
    for end in wanted if head else HEADS["classification"]:
        if type(settings) in getattr(mappings, _KINDS[end][1]):
            return _class(end), end
    there = [
        one for one, ends in HEADS.items() if any(type(settings) in getattr(mappings, _KINDS[end][1]) for end in ends)
    ]
    what = f"no {head} head" if head else "no image or sequence classifier"
    raise RequestError(
        f"{where} holds {settings.model_type}, for which transformers has {what}"
        + (f"; say what it ends in: head: {' or '.join(there)}" if there else "")
    )


def encoder_options(settings: Any) -> dict[str, bool]:
    """What an encoder is built with, so that it has no layer behind its tokens."""
    maker = importlib.import_module("transformers.models.auto.modeling_auto").MODEL_MAPPING[type(settings)]
    return dict(PLAIN) if PLAIN.keys() <= inspect.signature(maker).parameters.keys() else {}


def _is_other(name: str) -> bool:
    """Whether an architecture that ends in "Model" is none without a head, such as GPT2LMHeadModel."""
    return name.endswith(("HeadModel", "HeadsModel"))


def _class(end: str) -> Any:
    return getattr(importlib.import_module("transformers"), _KINDS[end][0])
