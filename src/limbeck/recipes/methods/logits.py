"""Methods that compare logits."""

from __future__ import annotations

from limbeck.recipes.methods.declaration import (
    CIFAR,
    IMAGENET,
    IMAGENET_EPOCHS,
    Method,
    Setting,
    TermDict,
    Terms,
    logits,
)
from limbeck.recipes.methods.places import Places

OWN = "own"
"""The setting of a method whose authors give no constants for classifiers: limbeck's choice."""

DKD_BETA = {
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenet_v2"): 6.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
}
"""β by (teacher, student), from the authors' scripts for CIFAR-100; it is 8 for every other pair there."""


def _decoupled(places: Places) -> list[TermDict]:
    student, teacher = places.names
    beta = DKD_BETA.get((teacher, student), 8.0)
    return [{"loss": "dkd", "weight": 1.0, "temperature": 4.0, "nontarget_weight": beta, "ramp": 20}]


def _multi_level_standardized() -> Terms:
    """The README's --base-temp 2 --kd-weight 9."""
    levels = {"temperatures": [2.0, 3.0, 5.0, 2.0, 6.0], "standardize": True}
    return logits("mlkd", 9.0, instance_weight=1.5, batch_weight=0.5, class_weight=0.5, **levels)


def _imagenet(task_weight: float, terms: Terms, source: str = "") -> Setting:
    return Setting(task_weight, terms, epochs=IMAGENET_EPOCHS, source=source)


LOGITS: dict[str, Method] = {
    "kd": Method(
        "Hinton et al., arXiv:1503.02531; constants of CRD's comparison (RepDistiller)",
        {
            CIFAR: Setting(0.1, logits("kd", 0.9, temperature=4.0)),
            IMAGENET: _imagenet(0.5, logits("kd", 0.5, temperature=1.0), "mdistiller"),
        },
    ),
    "dkd": Method(
        "Zhao et al., arXiv:2203.08679; mdistiller",
        {
            CIFAR: Setting(1.0, _decoupled),
            IMAGENET: _imagenet(1.0, logits("dkd", 1.0, temperature=1.0, nontarget_weight=0.5, ramp=1)),
        },
        "β is that of the authors' scripts for CIFAR-100, 2 or 6 for six pairs of networks, else 8; any other pair may "
        "want another: the surer its teacher, the larger",
    ),
    "dist": Method(
        "Huang et al., arXiv:2205.10536; image_classification_sota, which DIST_KD names",
        {
            CIFAR: Setting(1.0, logits("dist", 2.0, temperature=4.0)),
            IMAGENET: _imagenet(1.0, logits("dist", 2.0, temperature=1.0)),
        },
    ),
    "ls": Method(
        "Sun et al., arXiv:2403.01427; logit-standardization-KD",
        {CIFAR: Setting(0.1, logits("kd", 9.0, temperature=2.0, standardize=True))},
    ),
    "ls-mlkd": Method(
        "Sun et al., arXiv:2403.01427, over mlkd; logit-standardization-KD",
        {CIFAR: Setting(0.2, _multi_level_standardized(), epochs=480)},
        "one view, as mlkd; its temperatures are the base temperature 2 and the other four of mlkd, one of them 2 too. "
        "The relation of its C classes grows with B²/C: on 10 classes this weight, made for 100, lets the loss grow",
    ),
    "ttm": Method(
        "Zheng, Yang, arXiv:2402.11148; TTM: the constants of its example for vgg13 and vgg8",
        {CIFAR: Setting(1.0, logits("kd", 45.0, temperature=1.0, teacher_temperature=10.0, scale=False))},
        "T and the weight differ from pair to pair in the paper",
    ),
    "wttm": Method(
        "Zheng, Yang, arXiv:2402.11148; TTM: the constants of its example, which adds CRD",
        {CIFAR: Setting(1.0, logits("wttm", 4.0, temperature=5.0))},
        "alone; T and the weight differ from pair to pair in the paper",
    ),
    "ctkd": Method(
        "Li et al., arXiv:2211.16231; CTKD, its global temperature",
        {CIFAR: Setting(0.1, logits("CTKD", 0.9, least=1.0, span=20.0, epochs=10))},
        "the curriculum takes 10 epochs in a shorter run too",
    ),
    "normkd": Method(
        "Chi et al., arXiv:2308.00520; NormKD",
        {
            CIFAR: Setting(0.1, logits("normkd", 0.9, temperature=2.0)),
            IMAGENET: _imagenet(0.5, logits("normkd", 0.5, temperature=1.0)),
        },
    ),
    "nkd": Method(
        "Yang et al., arXiv:2303.13005; cls_KD",
        {
            CIFAR: Setting(1.0, logits("nkd", 1.0, temperature=3.0, nontarget_weight=3.5)),
            IMAGENET: _imagenet(1.0, logits("nkd", 1.0, temperature=1.0, nontarget_weight=1.5)),
        },
    ),
    "mlkd": Method(
        "Jin et al., CVPR 2023; its authors' code (Multi-Level-Logit-Distillation)",
        {CIFAR: Setting(0.2, logits("mlkd", 0.9, instance_weight=1.5, batch_weight=0.5, class_weight=0.5))},
    ),
    "wsld": Method(
        "Zhou et al., arXiv:2102.00650; the paper's constants for CIFAR-100, its authors' code for ImageNet",
        {
            CIFAR: Setting(1.0, logits("wsld", 2.25, temperature=4.0)),
            IMAGENET: _imagenet(1.0, logits("wsld", 2.5, temperature=2.0)),
        },
    ),
    "logit-mse": Method(
        "Ba, Caruana, arXiv:1312.6184; Kim et al., arXiv:2105.08919",
        {OWN: Setting(0.1, logits("logit_mse", 0.9))},
        "the mean of each row is taken off, which changes no probability; the weights are those of kd, and limbeck's "
        "choice",
    ),
    "hard": Method(
        "the hard labels of Touvron et al. (DeiT), arXiv:2012.12877, without its token",
        {IMAGENET: Setting(0.5, logits("hard_label", 0.5), epochs=300)},
    ),
    "reverse-kl": Method(
        "Gu et al. (MiniLLM), arXiv:2306.08543",
        {OWN: Setting(0.1, logits("reverse_kl", 0.9, temperature=4.0))},
        "on a classifier's logits, where the authors have sequences; the weights are those of kd, and limbeck's choice",
    ),
    "jsd": Method(
        "Agarwal et al. (GKD), arXiv:2306.13649",
        {OWN: Setting(0.1, logits("jsd", 0.9, temperature=4.0, beta=0.5))},
        "on a classifier's logits, where the authors have sequences; the weights are those of kd, and limbeck's choice",
    ),
}
