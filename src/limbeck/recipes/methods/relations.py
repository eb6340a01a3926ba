"""Methods that compare vectors before the classifiers, or how samples and channels lie to each other."""

from __future__ import annotations

from limbeck.recipes.methods.declaration import CIFAR, Method, Setting, TermDict, embeddings, last
from limbeck.recipes.methods.logits import OWN
from limbeck.recipes.methods.places import Places

COMPARISON = "constants of CRD's comparison (RepDistiller)"


def _contrastive(places: Places) -> list[TermDict]:
    return [{"loss": "CRD", "weight": 0.8, **places.embedding(), "samples": places.samples}]


RELATIONS: dict[str, Method] = {
    "cosine": Method(
        "the cosine-embedding loss of PyTorch's knowledge-distillation tutorial",
        {OWN: Setting(1.0, embeddings("cosine", 1.0, adapter="auto"))},
        "the weight is limbeck's choice; the recipe cifar10-tutorial has the tutorial's own form",
    ),
    "sp": Method(f"Tung, Mori, arXiv:1907.09682; {COMPARISON}", {CIFAR: Setting(1.0, last("similarity", 3000.0))}),
    "rkd": Method(f"Park et al., arXiv:1904.05068; {COMPARISON}", {CIFAR: Setting(1.0, embeddings("rkd", 1.0))}),
    "pkt": Method(
        f"Passalis, Tefas, arXiv:1803.10837; {COMPARISON}", {CIFAR: Setting(1.0, embeddings("pkt", 30000.0))}
    ),
    "cc": Method(
        "Peng et al., arXiv:1904.01802; Knowledge-Distillation-Zoo, on CIFAR-10",
        {CIFAR: Setting(1.0, embeddings("correlation", 100.0))},
        "the paper's kernel, and so not the weight 0.02 of CRD's comparison, which belongs to another form of the loss",
    ),
    "ickd": Method(
        "Liu et al., arXiv:2202.03680; ICKD",
        {CIFAR: Setting(1.0, last("channel_correlation", 2.5, adapter="conv1x1_bn"))},
    ),
    "crd": Method("Tian et al., arXiv:1910.10699; RepDistiller", {CIFAR: Setting(1.0, _contrastive)}),
}
